"""M4: how old an event is when its readers have it, at 10,000 deliveries a second.

One task; its events come at an even pace, each appended by itself and stamped before that. A sample is the 99th
percentile over all deliveries of a few seconds. Nchan keeps its messages in the same Redis.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from service.model.encoding import encode
from tests.bench.crowd import Crowd, open_crowd
from tests.bench.ground import Ground
from tests.bench.nchan import Nchan, serving_nchan
from tests.bench.ours import Tasks, open_tasks, serving, stamped
from tests.bench.table import Row, Sample, Target, against, alternate, skipped

DELIVERIES_A_SECOND: Final = 10_000
READERS: Final = (100, 1000)
TARGET: Final = Target(1.0, at_least=False)


@dataclass(frozen=True, slots=True)
class Paced:
    """A log with one writer, and the readers that follow it."""

    crowd: Crowd
    append: Callable[[], Awaitable[object]]

    async def p99(self, seconds: float) -> float:
        """Milliseconds."""
        interval = self.crowd.readers / DELIVERIES_A_SECOND
        events = round(seconds / interval)
        await self.crowd.time()
        await self.crowd.expect(events)
        await paced(self.append, events, interval)
        await self.crowd.delivered()
        return (await self.crowd.times()).p99


async def paced(act: Callable[[], Awaitable[object]], times: int, interval: float) -> None:
    """Do something so often, at an even pace; where it takes too long for that, the next ones follow at once."""
    now = asyncio.get_running_loop().time
    begun = now()
    for number in range(times):
        if (early := begun + number * interval - now()) > 0:
            await asyncio.sleep(early)
        await act()


async def run(ground: Ground) -> list[Row]:
    """A row for each number of readers."""
    rows: list[Row] = []
    seconds = 0.5 if ground.quick else 3.0
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(ground, "--only", "http"))
        tasks = await stack.enter_async_context(open_tasks(ground))
        nchan = await stack.enter_async_context(serving_nchan(ground))
        for readers in READERS if not ground.quick else READERS[:1]:
            workload = f"age at {readers} readers, {DELIVERIES_A_SECOND} deliveries/s, p99"
            if nchan is None:
                rows.append(skipped("M4", workload, "nginx with Nchan"))
                continue
            async with _ours(ground, tasks, port, readers) as ours, _nchan(ground, nchan, readers) as theirs:
                await ours.p99(0.5)
                await theirs.p99(0.5)
                sides: dict[str, Sample] = {
                    "ours": partial(ours.p99, seconds),
                    "nchan": partial(theirs.p99, seconds),
                }
                taken = await alternate(ground.rounds, sides)
            rows.append(against("M4", workload, "ms", taken["ours"], ("Nchan redis", taken["nchan"]), TARGET))
            await ground.clear()
    return rows


@asynccontextmanager
async def _ours(ground: Ground, tasks: Tasks, port: int, readers: int) -> AsyncGenerator[Paced]:
    task = await tasks.open()
    async with open_crowd(ground) as crowd:
        await crowd.connect(port, readers, task.path)
        yield Paced(crowd, lambda: task.log.append(stamped()))


@asynccontextmanager
async def _nchan(ground: Ground, nchan: Nchan, readers: int) -> AsyncGenerator[Paced]:
    channel = f"latency{readers}"
    async with open_crowd(ground) as crowd, nchan.publisher("redis", channel) as publisher:
        await crowd.connect(nchan.port, readers, nchan.path("redis", channel))
        yield Paced(crowd, lambda: publisher.append(encode(stamped())))
