"""Commands that run beside the agent: started in a session's folder, read, waited for, killed, processes and all."""

import asyncio
import fcntl
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog

from service.adapters.commands.excerpt import Excerpt
from service.adapters.commands.folders import checked_name, session_folder
from service.adapters.embedded.processes import start_process
from service.model.errors import CommandNotStarted, ConfigurationError, InvalidInput, TooManyCommands, translate
from service.model.job import CommandEnd, Exited, Lost, Signalled

log = structlog.get_logger()

WARDEN: Final = Path(__file__).with_name("warden.py")
SHELLS: Final = ("/bin/bash", "/bin/sh")
SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MAX_COMMAND_BYTES: Final = 100_000
"""Linux takes 128 KiB as one argument."""

START_SECONDS: Final = 15.0
GRACE_SECONDS: Final = 5.0
"""Between SIGTERM and SIGKILL. Less than a lease lasts: what a dead worker ran is gone before another one goes on."""

WARDEN_SECONDS: Final = 15.0
"""More than the ten seconds in which a warden kills; whichever does not end in these is killed itself."""

READ_BYTES: Final = 65_536


class Running:
    """A command, while it runs and afterwards. Made by `Commands.start`."""

    def __init__(self, job_id: str, warden: asyncio.subprocess.Process, printed: int, grace_seconds: float) -> None:
        """Let the warden start the command. `printed` is where its output is read; it is closed at the end."""
        self._job_id = job_id
        self._warden = warden
        self._printed = printed
        self._grace_seconds = grace_seconds
        self._excerpt = Excerpt()
        loop = asyncio.get_running_loop()
        self.started: asyncio.Future[bool] = loop.create_future()
        """Whether it could be started."""
        os.set_blocking(printed, False)
        loop.add_reader(printed, self._read)
        self.ended = loop.create_task(self._live(), name=f"command-{job_id}")
        if warden.stdin is not None:
            warden.stdin.write(b"!")

    def output(self) -> str:
        """What it has printed so far, on both outputs in their order: at most 16,000 characters, head and tail."""
        return self._excerpt.text()

    async def wait(self) -> CommandEnd:
        """How it ended. Returns when the command has ended and none of its processes is left; may be repeated."""
        return await asyncio.shield(self.ended)

    async def kill(self) -> CommandEnd:
        """SIGTERM to its process group, SIGKILL to what is left after the grace; returns what `wait` does.

        A repeat waits with the first; behind the end it does nothing. What was asked for is done also if the waiting
        is cancelled. What cannot be killed, as on a file system that hangs, is left, and logged
        (`command_left_processes`) after ten seconds more.
        """
        self.ask_to_stop()
        await asyncio.wait([self.ended], timeout=self._grace_seconds + WARDEN_SECONDS)
        if not self.ended.done():
            log.error("command_warden_hangs", job_id=self._job_id)
            with suppress(ProcessLookupError):
                os.kill(self._warden.pid, signal.SIGKILL)
        return await self.wait()

    def ask_to_stop(self) -> None:
        """Cut the tie: the warden does what `kill` says. At once, and needs no waiting to take effect."""
        if self._warden.stdin is not None:
            self._warden.stdin.close()

    async def _live(self) -> CommandEnd:
        """Until the warden has gone: it goes last."""
        said: dict[str, int] = {}
        try:
            assert self._warden.stdout is not None  # noqa: S101 - it is made with a pipe
            async for line in self._warden.stdout:
                word, number = line.decode().split()
                said[word] = int(number)
                if not self.started.done():
                    self.started.set_result(True)
            return self._end(said)
        finally:
            self.ask_to_stop()
            self._read_the_rest()
            if not self.started.done():
                self.started.set_result(False)
            await self._warden.wait()

    def _end(self, said: dict[str, int]) -> CommandEnd:
        if left := said.get("left"):
            log.error("command_left_processes", job_id=self._job_id, processes=left)
        if "exited" in said:
            return Exited(said["exited"])
        if "signalled" in said:
            return Signalled(said["signalled"])
        if "started" in said:
            log.error("command_warden_lost", job_id=self._job_id)
            # The command's first process went with its warden; the others of its group did not.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(said["started"], signal.SIGKILL)
        return Lost()

    def _read(self) -> bool:
        """Whether there may be more."""
        try:
            printed = os.read(self._printed, READ_BYTES)
        except BlockingIOError:
            return False
        self._excerpt.take(printed)
        if not printed:
            asyncio.get_running_loop().remove_reader(self._printed)
        return bool(printed)

    def _read_the_rest(self) -> None:
        """What is in the pipe: who wrote it is gone. Not to its end, which somebody may keep who got away."""
        for _ in range(fcntl.fcntl(self._printed, fcntl.F_GETPIPE_SZ) // READ_BYTES + 1):
            if not self._read():
                break
        self._excerpt.end()
        asyncio.get_running_loop().remove_reader(self._printed)
        os.close(self._printed)


class Commands:
    """Runs commands of sessions, each by a shell, in the session's folder below `workspace`, as the service's user.

    A command has no input, a small environment with nothing of the service's in it, no descriptor of ours, writes no
    core file, and gains no rights by set-user-id. However this process ends, killed included, the command and whatever
    it started get SIGTERM, and SIGKILL after the grace. Away get only those whom somebody else starts for it (a daemon
    that it asks: cron, Docker), and those in a session of their own if the command kills its warden first.

    `open_at_once` commands may run; one more is refused. Leaving the context kills those that run.
    Raises ConfigurationError on other systems than Linux, which could not keep that.
    """

    def __init__(self, workspace: Path, *, open_at_once: int = 16, grace_seconds: float = GRACE_SECONDS) -> None:
        if sys.platform != "linux":
            raise ConfigurationError("PLAYHEAD_WORKSPACE_DIR: background commands need Linux.")
        self._workspace = workspace
        self._open_at_once = open_at_once
        self._grace_seconds = grace_seconds
        self._starting: set[str] = set()
        self._running: dict[str, Running] = {}
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_closed = True
        await asyncio.gather(*(running.kill() for running in self._running.values()))

    async def start(self, session_id: str, job_id: str, command: str) -> Running:
        """Run `command` with bash, or sh where there is none; returns when the shell runs. Cancelled, it is killed.

        Raises InvalidInput for a job's id that is odd or of one that runs, and for a command that is too long or has a
        NUL; TooManyCommands; CommandNotStarted.
        """
        self._check(job_id, command)
        with translate({OSError: CommandNotStarted}):  # a time-out is one
            folder = session_folder(self._workspace, session_id)
            running = await self._open(job_id, folder, command)
            try:
                async with asyncio.timeout(START_SECONDS):
                    if await running.started:
                        return running
            except BaseException:
                running.ask_to_stop()
                raise
        raise CommandNotStarted

    async def _open(self, job_id: str, folder: Path, command: str) -> Running:
        self._starting.add(job_id)
        try:
            warden, printed = await _warden(job_id, self._grace_seconds, folder, command)
        finally:
            self._starting.remove(job_id)
        running = self._running[job_id] = Running(job_id, warden, printed, self._grace_seconds)
        running.ended.add_done_callback(lambda _: self._running.pop(job_id))
        if self._is_closed:
            running.ask_to_stop()
        return running

    def _check(self, job_id: str, command: str) -> None:
        if self._is_closed:
            raise CommandNotStarted
        if checked_name(job_id) in self._starting or job_id in self._running:
            raise InvalidInput("A job with this id is running already.")
        with translate({UnicodeEncodeError: InvalidInput}):
            if "\0" in command or len(command.encode()) > MAX_COMMAND_BYTES:
                raise InvalidInput(f"A command has at most {MAX_COMMAND_BYTES} bytes, none of them NUL.")
        if len(self._starting) + len(self._running) >= self._open_at_once:
            raise TooManyCommands


async def _warden(
    job_id: str, grace_seconds: float, folder: Path, command: str
) -> tuple[asyncio.subprocess.Process, int]:
    """A warden that waits to be told, and where the output will be read. Raises OSError."""
    shell = next((shell for shell in SHELLS if os.access(shell, os.X_OK)), SHELLS[-1])
    printed, printer = os.pipe()
    try:
        warden = await start_process(
            sys.executable, "-I", "-S", WARDEN, job_id, str(grace_seconds), shell, "-c", "--", command,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=printer,
            start_new_session=True, cwd=folder, env={"PATH": SEARCH_PATH, "HOME": str(folder), "LANG": "C.UTF-8"},
        )  # fmt: skip
    except BaseException:
        os.close(printed)
        raise
    finally:
        os.close(printer)
    return warden, printed
