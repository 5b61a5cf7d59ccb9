"""What the tests have of npm, and the Node that it runs under: npm alone has to be there."""

import platform
import shutil
from pathlib import Path

PACKAGES = Path(__file__).parent / "node_modules"
NO_NODE = "no npm, or nothing to be had with it (`make node` tries)"

_MACHINES = {"x86_64": "x64", "aarch64": "arm64"}


def node() -> Path | None:
    """The Node that the lock file brings; None where it is not installed, or is not for this machine."""
    binary = PACKAGES / f"node-linux-{_MACHINES.get(platform.machine())}" / "bin" / "node"
    return binary if (PACKAGES / ".ready").exists() and shutil.which(binary) else None
