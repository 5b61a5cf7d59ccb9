"""A log with eight writers and its readers, ours and each reference's: what M3 takes its samples of."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from typing import Final

from service.adapters.redis_client import connect
from tests.bench.crowd import Crowd, open_crowd
from tests.bench.ground import Ground
from tests.bench.naive import EVENT, NaiveLog
from tests.bench.nchan import Nchan, Store
from tests.bench.ours import CHUNKS, Tasks

WRITERS: Final = 8
BURSTS: Final = 20

Append = Callable[[], Awaitable[object]]


@dataclass(slots=True)
class Side:
    """A log with its writers, and the readers that follow it."""

    crowd: Crowd
    appends: list[Append]
    events: int = 0
    frames_a_read: list[float] = field(default_factory=list)

    async def rate(self) -> float:
        """Deliveries a second over `events` events."""
        await self.crowd.expect(self.events)
        begun = time.monotonic()
        shares = [self.events // WRITERS + (number < self.events % WRITERS) for number in range(WRITERS)]
        await asyncio.gather(*map(_repeat, self.appends, shares))
        delivered = await self.crowd.delivered()
        self.frames_a_read.append(delivered.frames_a_read)
        return self.crowd.readers * self.events / (delivered.done - begun)

    async def burst_rate(self) -> float:
        """Deliveries a second over bursts that wait for their readers."""
        seconds = 0.0
        for _ in range(BURSTS):
            await self.crowd.expect(WRITERS)
            begun = time.monotonic()
            await asyncio.gather(*(append() for append in self.appends))
            seconds += (await self.crowd.delivered()).done - begun
        return BURSTS * WRITERS * self.crowd.readers / seconds

    async def warm_up(self, seconds: float) -> None:
        """Choose `events` so that a sample takes about so long."""
        for _ in range(2):
            self.events = max(40, self.events or 2000 // self.crowd.readers)
            rate = await self.rate()
            self.events = int(min(100_000, max(40, rate * seconds / self.crowd.readers)))
        self.frames_a_read.clear()


async def _repeat(append: Append, times: int) -> None:
    for _ in range(times):
        await append()


@asynccontextmanager
async def open_ours(ground: Ground, tasks: Tasks, port: int, readers: int) -> AsyncGenerator[Side]:
    """A task of ours, with its readers."""
    task, chunks = await tasks.open(), cycle(CHUNKS)
    async with open_crowd(ground) as crowd:
        await crowd.connect(port, readers, task.path)
        yield Side(crowd, [lambda: task.log.append(next(chunks))] * WRITERS)


@asynccontextmanager
async def open_naive(ground: Ground, port: int, readers: int) -> AsyncGenerator[Side]:
    async with open_crowd(ground) as crowd, connect(ground.redis_url) as redis:
        log = NaiveLog(redis, f"fanout-{readers}")
        await crowd.connect(port, readers, f"/tasks/fanout-{readers}/stream")
        yield Side(crowd, [partial(log.append, EVENT)] * WRITERS)


@asynccontextmanager
async def open_nchan(ground: Ground, nchan: Nchan, store: Store, readers: int) -> AsyncGenerator[Side]:
    channel = f"fanout{readers}"
    async with AsyncExitStack() as stack:
        crowd = await stack.enter_async_context(open_crowd(ground))
        publishers = [await stack.enter_async_context(nchan.publisher(store, channel)) for _ in range(WRITERS)]
        await crowd.connect(nchan.port, readers, nchan.path(store, channel))
        yield Side(crowd, [publisher.append for publisher in publishers])
