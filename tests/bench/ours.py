"""Our side: the service's HTTP part as another process, and this process as the tasks' worker.

Sessions, tasks, epochs and logs are made the way the service makes them; nothing is left out on the way.
"""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Final

from service.model.caller import EVERYONES
from service.model.events import Chunk, TextDelta, TextPart
from service.model.ids import PartId
from service.model.session import NewMessage
from service.registry.task_log import TaskLog
from service.registry.writer import LogWriter, log_writer
from service.wiring import House, open_house
from tests.bench.ground import Ground
from tests.bench.processes import said, started

EVENT_BYTES: Final = 136
LEASE_SECONDS: Final = 3600.0

_FRAME: Final = len('{"type":"text-delta","id":"p0","delta":""}')
CHUNKS: Final[Sequence[Chunk]] = [
    TextDelta(PartId(f"p{number}"), "abcdefg " * ((EVENT_BYTES - _FRAME) // 8) + "x" * ((EVENT_BYTES - _FRAME) % 8))
    for number in range(2)
]
"""Two deltas of EVENT_BYTES, of two parts in turn: neighbours of one part would be merged while they wait."""


def stamped(part: int = 0) -> TextDelta:
    """A delta of EVENT_BYTES that says when it was made, for readers that look at ages."""
    stamp = f"@{time.monotonic_ns()}@"
    return TextDelta(PartId(f"p{part}"), stamp + "x" * (EVENT_BYTES - _FRAME - len(stamp)))


@dataclass(frozen=True, slots=True)
class OpenTask:
    """A running task in this process' hands."""

    log: TaskLog
    path: str
    """Where it can be followed."""


class Tasks:
    """Makes tasks and is their worker."""

    def __init__(self, house: House, writer: LogWriter) -> None:
        self._house = house
        self._writer = writer

    async def open(self) -> OpenTask:
        """A session, a message, the turn that it queues; claimed, its log opened."""
        session = await self._house.sessions.create(None)
        posted = await self._house.messages.post(EVERYONES, session.id, NewMessage((TextPart("measure"),)))
        (claim,) = await self._house.queue.claim(1, LEASE_SECONDS)
        assert claim.task.id == posted.task_id
        return OpenTask(await self._writer.open(posted.task_id, claim.epoch), f"/tasks/{posted.task_id}/stream")

    async def filled(self, events: int) -> OpenTask:
        """A task whose log has so many events."""
        task = await self.open()
        chunks = cycle(CHUNKS)
        for start in range(0, events, 500):
            await task.log.append(*(next(chunks) for _ in range(min(500, events - start))))
        return task


@asynccontextmanager
async def open_tasks(ground: Ground) -> AsyncGenerator[Tasks]:
    """This process as a worker over the ground's stores."""
    async with open_house(ground.settings()) as house, log_writer(house.logs, clock_ms) as writer:
        yield Tasks(house, writer)


@dataclass(frozen=True, slots=True)
class Served:
    """A running service."""

    port: int
    pid: int


@asynccontextmanager
async def serving(ground: Ground, *arguments: str, profile: str | None = None) -> AsyncGenerator[int]:
    """`playhead serve` as a process; yields its port. With `profile`, cProfile writes what it saw into that file."""
    async with serving_process(ground, *arguments, profile=profile) as served:
        yield served.port


@asynccontextmanager
async def serving_process(ground: Ground, *arguments: str, profile: str | None = None) -> AsyncGenerator[Served]:
    """The same, known by its process too."""
    log = ground.folder / "service.log"
    under = ["-m", "cProfile", "-o", profile] if profile else []
    argv = [sys.executable, *under, "-m", "service", "serve", *arguments]
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(started(argv, log, env=ground.environment()))
        url = await said(process, "listening on", log)
        assert process.stdout is not None
        draining = asyncio.create_task(process.stdout.read(), name="service-output")
        stack.callback(draining.cancel)
        yield Served(int(url.rpartition(":")[2]), process.pid)


def clock_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000
