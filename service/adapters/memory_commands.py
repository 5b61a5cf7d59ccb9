"""Background commands without processes, for tests: as much of a shell as it takes to end in every way."""

import asyncio
import re
import signal
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from service.model.errors import CommandNotStarted, InvalidInput, TooManyCommands
from service.model.job import CommandEnd, Exited, Signalled

MAX_COMMAND_BYTES: Final = 100_000
MAX_CHARACTERS: Final = 16_000

_NO_COMMAND: Final = 127
_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


class MemoryCommand:
    """The port `RunningCommand`. Made by `MemoryCommands.start`."""

    def __init__(self, command: str, sleep: Callable[[float], Awaitable[object]]) -> None:
        self._sleep = sleep
        self._printed = ""
        self._is_killed = False
        loop = asyncio.get_running_loop()
        self._running = loop.create_task(self._run(command), name="command")
        self.ended = loop.create_task(self._live(), name="command-end")

    def output(self) -> str:
        if len(self._printed) <= MAX_CHARACTERS:
            return self._printed
        half = MAX_CHARACTERS // 2 - 64
        left_out = len(self._printed) - 2 * half
        return f"{self._printed[:half]}\n[{left_out} characters are left out.]\n{self._printed[-half:]}"

    async def wait(self) -> CommandEnd:
        return await asyncio.shield(self.ended)

    async def kill(self) -> CommandEnd:
        self._is_killed = True
        self._running.cancel()
        return await self.wait()

    async def _live(self) -> CommandEnd:
        await asyncio.wait([self._running])
        return Signalled(signal.SIGTERM) if self._is_killed or self._running.cancelled() else self._running.result()

    async def _run(self, command: str) -> CommandEnd:
        code = 0
        for line in command.split("; "):
            match line.split():
                case ["echo", *words]:
                    self._printed, code = f"{self._printed}{' '.join(words)}\n", 0
                case ["exit", number]:
                    return Exited(int(number))
                case ["kill", number, "$$"]:
                    return Signalled(-int(number))
                case ["sleep", seconds]:
                    await self._sleep(float(seconds))
                    code = 0
                case _:
                    code = _NO_COMMAND
        return Exited(code)


class MemoryCommands:
    """The port `Commands`: `echo`, `exit`, `kill -<n> $$` and `sleep`, with `; ` between them, each in one process."""

    def __init__(self, *, open_at_once: int = 16, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        self._open_at_once = open_at_once
        self._sleep = sleep
        self._is_closed = False
        self.running: dict[str, MemoryCommand] = {}
        self.started: list[tuple[str, str, str]] = []
        """Session, job and command of all that ran."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_closed = True
        await asyncio.gather(*(running.kill() for running in self.running.values()))

    async def start(self, session_id: str, job_id: str, command: str) -> MemoryCommand:
        if self._is_closed:
            raise CommandNotStarted
        if not _SAFE.fullmatch(job_id) or job_id in self.running:
            raise InvalidInput
        if "\0" in command or len(command.encode(errors="surrogatepass")) > MAX_COMMAND_BYTES:
            raise InvalidInput
        if len(self.running) >= self._open_at_once:
            raise TooManyCommands
        running = self.running[job_id] = MemoryCommand(command, self._sleep)
        running.ended.add_done_callback(lambda _: self.running.pop(job_id))
        self.started.append((session_id, job_id, command))
        await asyncio.sleep(0)
        return running
