"""One owner per data folder: a lock that the keepers and the servers inherit.

It is held as long as any of them lives. Without that, a second Valkey would happily write the same append-only file
while the first one is still on its way down.
"""

import asyncio
import fcntl
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from service.adapters.embedded.processes import command_of, read_pid, signal_if_ours
from service.model.errors import ConfigurationError

LOCK_FILE = "lock"
LEFT_OVER_SECONDS = 25.0
KILL_AFTER_SECONDS = 15.0
POLL_SECONDS = 0.05
SHOWN_CHARACTERS = 80
RECORD_BYTES = 8192

STOP_SIGNALS = {"valkey": signal.SIGTERM, "postgres": signal.SIGINT, "initdb": signal.SIGTERM}


def pid_file(data: Path, name: str) -> Path:
    """Where the pid of the server `name` stands while it runs."""
    return data / f"{name}.pid"


@asynccontextmanager
async def held_lock(data: Path, mark: str) -> AsyncIterator[int]:
    """Hold the data folder; gives the descriptor that children must inherit.

    A living owner is refused at once, by name. Servers of a dead owner are asked to stop (only processes whose command
    line holds `mark`), killed after 15 seconds, and waited for up to 25. Raises ConfigurationError.
    """
    try:
        descriptor = os.open(data / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigurationError(f"PLAYHEAD_DATA_DIR: {data} cannot be written: {error.strerror}") from error
    try:
        await _acquire(descriptor, data, mark)
        # Before any server starts: whoever finds the lock taken then also finds its owner.
        _write(descriptor, f"{os.getpid()}\n{command_of(os.getpid())}\n")
        try:
            yield descriptor
        finally:
            _write(descriptor, "")
    finally:
        os.close(descriptor)


async def _acquire(descriptor: int, data: Path, mark: str) -> None:
    started = time.monotonic()
    asked: set[tuple[int, signal.Signals]] = set()
    while not _take(descriptor):
        await asyncio.to_thread(_refuse_living_owner, descriptor, data)
        waited = time.monotonic() - started
        if waited > LEFT_OVER_SECONDS:
            raise ConfigurationError(
                f"PLAYHEAD_DATA_DIR: servers of a run that has ended still hold {data} after {LEFT_OVER_SECONDS:.0f} "
                f"seconds; see the .pid files there"
            )
        await asyncio.to_thread(_stop_left_overs, data, mark, asked, kill=waited > KILL_AFTER_SECONDS)
        await asyncio.sleep(POLL_SECONDS)


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _refuse_living_owner(descriptor: int, data: Path) -> None:
    if (owner := _living_owner(os.pread(descriptor, RECORD_BYTES, 0))) is not None:
        pid, command = owner
        raise ConfigurationError(
            f"PLAYHEAD_DATA_DIR: {data} is in use by pid {pid} ({command[:SHOWN_CHARACTERS]}): stop it, or give "
            "this one a folder of its own"
        )


def is_held(data: Path) -> bool:
    """Whether a process that lives holds the data folder. Raises OSError where nobody can tell."""
    with (data / LOCK_FILE).open("rb") as file:
        return _living_owner(file.read(RECORD_BYTES)) is not None


def _living_owner(record: bytes) -> tuple[int, str] | None:
    """The pid and the command line of who wrote this into the lock, if that lives."""
    number, _, command = record.decode(errors="replace").partition("\n")
    command = command.strip()
    # The command must be the recorded one: a recycled pid is not the owner.
    if number.isdigit() and command and command_of(int(number)) == command:
        return int(number), command
    return None


def _stop_left_overs(data: Path, mark: str, asked: set[tuple[int, signal.Signals]], *, kill: bool) -> None:
    for name, gentle in STOP_SIGNALS.items():
        pid, number = read_pid(pid_file(data, name)), signal.SIGKILL if kill else gentle
        if (pid, number) not in asked and signal_if_ours(pid, mark, number):
            asked.add((pid, number))


def _write(descriptor: int, record: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, record.encode()[:RECORD_BYTES], 0)
