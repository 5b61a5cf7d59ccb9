"""Processes that are not ours to wait for: asked, polled, and held by a handle while they serve the stores."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.adapters.embedded.processes import command_of

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
needs_root = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root on Linux")


async def eventually(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    """Poll: foreign processes send us no signal. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)


def pid_in(path: Path) -> int:
    with suppress(FileNotFoundError):
        return int(path.read_text())
    return 0


def is_running(pid: int) -> bool:
    return bool(command_of(pid))


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@dataclass(frozen=True, slots=True)
class Serving:
    """A process with the stores open; `says` is the first line that it printed."""

    process: asyncio.subprocess.Process
    data: Path
    says: dict[str, str]

    @property
    def pids(self) -> dict[str, int]:
        return {name: pid_in(self.data / f"{name}.pid") for name in ("valkey", "postgres")}

    async def leave(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await asyncio.wait_for(self.process.wait(), 30)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


Serve = Callable[..., Awaitable[Serving]]
