"""A program under a keeper: started, waited for, stopped. The keeper stops it when this process is gone."""

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from service.adapters.embedded.lock import pid_file
from service.adapters.embedded.logfile import last_words, open_log
from service.adapters.embedded.processes import ENVIRONMENT, read_pid, signal_if_ours, start_process
from service.model.errors import ConfigurationError

KEEPER = Path(__file__).with_name("keeper.py")
STOP_SECONDS = 15.0
KEEPER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Program:
    """What to run: `name` in messages and of the pid file, `log` the name of the log file, `identity` the keeper's."""

    name: str
    command: tuple[str, ...]
    stop_signal: signal.Signals
    identity: str = "same"
    log: str = ""


@dataclass(frozen=True, slots=True)
class Ground:
    """Where programs run: the data folder, the descriptor of its lock, which they inherit, and the mark of our servers.

    `mark` is a text that only command lines of our servers hold: the path of the socket folder.
    """

    data: Path
    lock: int
    mark: str


class KeptProcess:
    """One run of a program. Made by `start_kept`."""

    def __init__(
        self, program: Program, ground: Ground, keeper: asyncio.subprocess.Process, held: int, log: Path, since: int
    ) -> None:
        self._program = program
        self._ground = ground
        self._keeper = keeper
        self._held = held  # the read end of a pipe that the keeper, the server and all its children hold open
        self._all_gone = False
        self._log = log
        self._since = since

    @property
    def is_gone(self) -> bool:
        return self._keeper.returncode is not None

    def last_words(self) -> str:
        """The line of the log that says best why it ended."""
        return last_words(self._log, self._since)

    async def wait(self) -> int:
        """The program's exit code, 128 + n after signal n. Its children may still be there: see `last_is_gone`."""
        return await self._keeper.wait()

    async def last_is_gone(self) -> None:
        """Wait until the server and all its children are gone: after 15 seconds the server is killed, if it is there.

        Only then may another one start on the same data and socket: a server whose keeper was killed is still on its
        way down, and would remove its successor's socket. Raises TimeoutError when one is left after 20 seconds.
        """
        if self._all_gone:
            return
        if not await self._ended_within(STOP_SECONDS):
            server = read_pid(pid_file(self._ground.data, self._program.name))
            signal_if_ours(server, self._ground.mark, signal.SIGKILL)
            if not await self._ended_within(KEEPER_SECONDS):
                raise TimeoutError(f"{self._program.name} has left processes behind that do not end")
        pid_file(self._ground.data, self._program.name).unlink(missing_ok=True)  # a killed keeper's
        self._all_gone = True
        os.close(self._held)

    async def _ended_within(self, seconds: float) -> bool:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._held, ended.set)  # nobody writes: it is readable at its end only
        try:
            async with asyncio.timeout(seconds):
                await ended.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._held)
        return True

    def ask_to_stop(self) -> None:
        """Cut the tie: the keeper sends the stop signal. At once, and needs no waiting to take effect."""
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()

    async def stop(self) -> None:
        """Ask, and wait until the program is gone: at most 15 seconds, then it is killed. A repeat does nothing.

        Raises TimeoutError when processes are left that cannot be ended.
        """
        self.ask_to_stop()
        try:
            async with asyncio.timeout(STOP_SECONDS + KEEPER_SECONDS):
                await self._keeper.wait()
        except TimeoutError:
            self._keeper.kill()
            await self._keeper.wait()
        await self.last_is_gone()


async def start_kept(program: Program, ground: Ground) -> KeptProcess:
    """Start a keeper with its program. Raises ConfigurationError when not even the keeper can start."""
    path = ground.data / f"{program.log or program.name}.log"
    pid = pid_file(ground.data, program.name)
    try:
        pid.unlink(missing_ok=True)
        log, since = open_log(path)
    except OSError as error:
        place = error.filename or path
        raise ConfigurationError(f"PLAYHEAD_DATA_DIR: {place} cannot be written: {error.strerror}") from error
    try:
        held, holder = os.pipe()
    except OSError as error:
        os.close(log)
        raise ConfigurationError(f"{program.name} cannot be started: {error}") from error
    try:
        keeper = await start_process(
            sys.executable, "-I", "-S", KEEPER, "run",
            program.identity, str(int(program.stop_signal)), str(STOP_SECONDS),
            pid, *program.command,
            stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log,
            pass_fds=[ground.lock, holder], start_new_session=True, cwd=ground.data, env=ENVIRONMENT,
        )  # fmt: skip
    except BaseException as error:
        os.close(held)
        if isinstance(error, OSError):
            raise ConfigurationError(f"{program.name} cannot be started: {error}") from error
        raise
    finally:
        os.close(log)
        os.close(holder)
    return KeptProcess(program, ground, keeper, held, path, since)


async def run_kept(program: Program, ground: Ground, seconds: float) -> None:
    """Run a program to its end. Raises ConfigurationError when it fails or takes longer than `seconds`."""
    kept = await start_kept(program, ground)
    try:
        async with asyncio.timeout(seconds):
            code = await kept.wait()
    except TimeoutError:
        raise ConfigurationError(f"{program.name} did not end within {seconds:.0f} seconds") from None
    finally:
        await kept.stop()
    if code != 0:
        raise ConfigurationError(f"{program.name} failed: {kept.last_words()}")
