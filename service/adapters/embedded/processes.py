"""What other processes on this machine are: asked before one is named to a person or sent a signal."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

COMMAND_BYTES = 4096
PS_SECONDS = 5.0
OUTPUT_BYTES = 4096
# Nothing of our environment goes along to a child: PGOPTIONS, LANG or the key of a model are not its business.
ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}


def command_of(pid: int) -> str:
    """The command line of a running process, at most 4096 bytes of it; empty for one that is gone, or dead unreaped."""
    if Path("/proc/self/cmdline").exists():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                raw = file.read(COMMAND_BYTES)
        except OSError:
            return ""
    else:
        ps = shutil.which("ps") or "/bin/ps"
        try:
            raw = subprocess.run(  # noqa: S603 - a number is all that varies
                [ps, "-o", "command=", "-p", str(pid)], capture_output=True, timeout=PS_SECONDS, check=False
            ).stdout[:COMMAND_BYTES]
        except (OSError, subprocess.TimeoutExpired):
            return ""
    return " ".join(raw.replace(b"\0", b" ").decode(errors="replace").split())


async def ask(command: Sequence[str | Path], seconds: float) -> tuple[int, str]:
    """Run a short command: its exit code and the first 4096 bytes of its output. After `seconds` it is killed (-9).

    Raises OSError when it cannot be started.
    """
    process = await start_process(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    try:
        async with asyncio.timeout(seconds):
            printed, _ = await process.communicate()
    except TimeoutError:
        return -signal.SIGKILL, ""
    finally:
        if process.returncode is None:
            await end_process(process)
    return process.returncode or 0, printed[:OUTPUT_BYTES].decode(errors="replace")


async def start_process(*command: str | Path, **how: Any) -> asyncio.subprocess.Process:
    """Like `create_subprocess_exec`, but a cancellation arrives when the process is there, and has been killed (-9).

    asyncio itself, when its start is cut, may lose a child that ends just then, and says so on stderr.
    """
    starting = asyncio.create_task(asyncio.create_subprocess_exec(*command, **how))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await end_process(await starting)
        raise


async def end_process(process: asyncio.subprocess.Process) -> None:
    """Kill a process (-9) and wait for it.

    Not by its own `kill`, which first asks for the exit code: it may be the one that takes it away from asyncio.
    """
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    await process.wait()


def read_pid(path: Path) -> int:
    """The number in the first line of a pid file; 0 when there is none."""
    try:
        with path.open("rb") as file:
            return int(file.readline(32))
    except (OSError, ValueError):
        return 0


def signal_if_ours(pid: int, mark: str, number: signal.Signals) -> bool:
    """Send a signal to `pid` if its command line holds `mark`, the name of our private folder; says whether it did.

    A pid is recycled soon after its process ended, so a number from a file alone proves nothing.
    """
    if pid <= 0 or mark not in command_of(pid):
        return False
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
