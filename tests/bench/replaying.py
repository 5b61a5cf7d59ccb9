"""M5: events a second when readers take a log of 10,000 events from its beginning, one reader and 50 at once.

From before the first connection until the last reader has the last event. Each of our samples reads a log that nobody
has read before. Against naive, which pages with XRANGE, and against Nchan's memory store, which holds all of it itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from itertools import count
from typing import Final

from redis.asyncio import Redis

from tests.bench.crowd import Crowd, open_crowd
from tests.bench.ground import Ground
from tests.bench.naive import EVENT, serving_naive
from tests.bench.nchan import Nchan, serving_nchan
from tests.bench.ours import Tasks, open_tasks, serving
from tests.bench.table import Row, Sample, Target, against, alternate, skipped

TARGETS: Final = {1: 15.0, 50: 100.0}
"""Readers: the target against naive."""

NCHAN_TARGET: Final = Target(8)


async def run(ground: Ground) -> list[Row]:
    """Two rows for each number of readers."""
    events = ground.sized(10_000, 2_000)
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(ground, "--only", "http"))
        tasks = await stack.enter_async_context(open_tasks(ground))
        crowd = await stack.enter_async_context(open_crowd(ground))
        naive_port = await stack.enter_async_context(serving_naive(ground))
        nchan = await stack.enter_async_context(serving_nchan(ground))
        await _fill_naive(ground, events)
        if nchan is not None:
            await _fill_nchan(nchan, events)
        for readers, least in TARGETS.items():
            sides: dict[str, Sample] = {
                "ours": ours(crowd, port, readers, events, await _paths(tasks, ground.rounds, events)),
                "naive": _repeated(crowd, naive_port, readers, events, "/tasks/replay/stream"),
            }
            if nchan is not None:
                sides["nchan"] = _repeated(crowd, nchan.port, readers, events, nchan.path("memory", "replay"))
            taken = await alternate(ground.rounds, sides)
            workload = f"replay {events} events, {readers} readers at once"
            rows.append(against("M5", workload, "/s", taken["ours"], ("naive", taken["naive"]), Target(least)))
            if nchan is None:
                rows.append(skipped("M5", workload, "nginx with Nchan"))
            else:
                reference = ("Nchan memory", taken["nchan"])
                rows.append(against("M5", workload, "/s", taken["ours"], reference, NCHAN_TARGET))
    await ground.clear()
    return rows


def ours(crowd: Crowd, port: int, readers: int, events: int, paths: Iterator[str]) -> Sample:
    """A sample a path."""

    async def rate() -> float:
        return readers * events / await crowd.replay(port, readers, next(paths), events)

    return rate


def _repeated(crowd: Crowd, port: int, readers: int, events: int, path: str) -> Sample:
    async def rate() -> float:
        return readers * events / await crowd.replay(port, readers, path, events)

    return rate


async def _paths(tasks: Tasks, tasks_needed: int, events: int) -> Iterator[str]:
    return iter([(await tasks.filled(events)).path for _ in range(tasks_needed)])


async def _fill_naive(ground: Ground, events: int) -> None:
    """As NaiveLog would have, but at once."""
    data = EVENT.model_dump_json().encode()
    async with Redis.from_url(ground.redis_url) as redis, redis.pipeline(transaction=False) as pipeline:
        for _ in range(events):
            pipeline.xadd("naive:replay", {"d": data})
        await pipeline.execute()


async def _fill_nchan(nchan: Nchan, events: int) -> None:
    numbers = count()
    async with AsyncExitStack() as stack:
        publishers = [await stack.enter_async_context(nchan.publisher("memory", "replay")) for _ in range(8)]

        async def publish(append: Callable[[], Awaitable[None]]) -> None:
            while next(numbers) < events:
                await append()

        await asyncio.gather(*(publish(publisher.append) for publisher in publishers))
