"""The lock of the data folder, and what happens to servers that outlived their owner."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from service.adapters.embedded import lock
from service.adapters.embedded.lock import held_lock, pid_file
from service.adapters.embedded.processes import command_of
from service.model.errors import ConfigurationError
from tests.adapters.embedded.foreign import is_running

SLEEPS = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"


async def left_over(data: Path, mark: str, code: str = SLEEPS) -> asyncio.subprocess.Process:
    """A server of a run that has ended: it holds the lock, and its pid file is there. The run's owner is dead."""
    async with held_lock(data, mark) as descriptor:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, mark, pass_fds=[descriptor], stdout=asyncio.subprocess.PIPE
        )
    pid_file(data, "valkey").write_text(f"{process.pid}\n")
    return process


async def test_a_left_over_server_is_asked_to_stop_and_waited_for(tmp_path: Path) -> None:
    server = await left_over(tmp_path, "/our/sockets")
    async with asyncio.timeout(10), held_lock(tmp_path, "/our/sockets"):
        assert await server.wait() == -signal.SIGTERM


async def test_a_left_over_server_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "KILL_AFTER_SECONDS", 0.3)
    server = await left_over(tmp_path, "/our/sockets", STUBBORN)
    assert server.stdout is not None
    await server.stdout.readline()
    async with asyncio.timeout(10), held_lock(tmp_path, "/our/sockets"):
        assert await server.wait() == -signal.SIGKILL


async def test_a_recycled_pid_is_never_signalled_and_the_wait_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LEFT_OVER_SECONDS", 0.5)
    monkeypatch.setattr(lock, "KILL_AFTER_SECONDS", 0.2)
    stranger = await left_over(tmp_path, "/other/sockets")
    try:
        with pytest.raises(ConfigurationError, match="servers of a run that has ended still hold"):
            async with held_lock(tmp_path, "/our/sockets"):
                pass
        assert is_running(stranger.pid)
    finally:
        stranger.kill()
        await stranger.wait()


async def test_an_owner_whose_pid_is_somebody_elses_now_is_not_named(tmp_path: Path) -> None:
    server = await left_over(tmp_path, "/our/sockets")
    (tmp_path / "lock").write_text(f"{os.getpid()}\nanother command\n")
    async with asyncio.timeout(10), held_lock(tmp_path, "/our/sockets"):
        await server.wait()


async def test_the_owner_is_named_while_it_holds_and_forgotten_after(tmp_path: Path) -> None:
    async with held_lock(tmp_path, "x"):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n{command_of(os.getpid())}\n"
        with pytest.raises(ConfigurationError, match=f"in use by pid {os.getpid()} "):
            async with held_lock(tmp_path, "x"):
                pass
    assert (tmp_path / "lock").read_text() == ""


async def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match=f"{tmp_path} cannot be written"):
        async with held_lock(tmp_path, "x"):
            pass
