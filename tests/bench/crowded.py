"""M7: 1,000 tasks with a reader each, on one process of the service: how many events a second each may have.

A rate is held where the 99th percentile of the events' ages stays below 100 ms. The rates are tried from below until
one is not held. One process appends for all tasks, for fifty at a time and at an even pace; naive awaits the calls of
fifty side by side.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Final, TypeVar

from service.adapters.redis_client import connect
from tests.bench.crowd import Crowd, UnevenDelivery, open_crowd
from tests.bench.ground import Ground
from tests.bench.latency import paced
from tests.bench.naive import Event, NaiveLog, serving_naive
from tests.bench.ours import open_tasks, serving, stamped
from tests.bench.table import Row, Target, alone

TASKS: Final = 1000
GROUP: Final = 50
AGE_LIMIT_MS: Final = 100.0
SECONDS: Final = 3.0
OUR_RATES: Final = (20, 30, 40, 50, 60, 80)
NAIVE_RATES: Final = (1, 2, 3, 4, 6, 8, 10)
_Task = TypeVar("_Task")
TARGET: Final = Target(40)
NAIVE_TARGET: Final = Target(13)


@dataclass(frozen=True, slots=True)
class Side:
    """All tasks of one side with their readers; `append` gives an event to each of the next GROUP of them."""

    crowd: Crowd
    append: Callable[[], Awaitable[object]]

    async def held(self, rates: Sequence[int], seconds: float) -> tuple[int, float]:
        """The highest of the rates that is held, before the first that is not, and the 99th percentile at it, in ms."""
        await self._p99(rates[0], 1.0)  # until connections are there
        best = (0, 0.0)
        for rate in rates:
            age = await self._p99(rate, seconds)
            if age >= AGE_LIMIT_MS:
                break
            best = (rate, age)
        return best

    async def _p99(self, rate: int, seconds: float) -> float:
        rounds, groups = round(rate * seconds), self.crowd.readers // GROUP
        await self.crowd.time()
        await self.crowd.expect(rounds)
        await paced(self.append, rounds * groups, 1 / rate / groups)
        try:
            await self.crowd.delivered()
        except UnevenDelivery:
            return float("inf")
        return (await self.crowd.times()).p99


async def run(ground: Ground) -> list[Row]:
    """Two rows."""
    count, seconds = ground.sized(TASKS, 50), ground.sized(30, 5) / 10
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(ground, "--only", "http"))
        tasks = await stack.enter_async_context(open_tasks(ground))
        crowd = await stack.enter_async_context(open_crowd(ground))
        opened = [await tasks.open() for _ in range(count)]
        await crowd.connect(port, count, _listed(ground.folder, [task.path for task in opened]))

        # Two parts in turn: neighbours of one part would be merged while they wait.
        ours = cycle([(part, group) for part in (0, 1) for group in _groups(opened)])

        async def append_ours() -> None:
            part, group = next(ours)
            for task in group:
                await task.log.put(stamped(part))

        side = Side(crowd, append_ours)
        held = [await side.held(OUR_RATES, seconds) for _ in range(ground.rounds)]
        await crowd.close()
    await ground.clear()
    async with AsyncExitStack() as stack:
        naive_port = await stack.enter_async_context(serving_naive(ground))
        crowd = await stack.enter_async_context(open_crowd(ground))
        redis = await stack.enter_async_context(connect(ground.redis_url, connections=64))
        logs = [NaiveLog(redis, f"crowded-{number}") for number in range(count)]
        paths = [f"/tasks/crowded-{number}/stream" for number in range(count)]
        await crowd.connect(naive_port, count, _listed(ground.folder, paths))

        theirs = cycle(_groups(logs))

        async def append_naive() -> None:
            stamp = stamped()
            event = Event(id=stamp.id, delta=stamp.delta)
            await asyncio.gather(*(log.append(event) for log in next(theirs)))

        naive = [(await Side(crowd, append_naive).held(NAIVE_RATES, seconds))[0] for _ in range(ground.rounds)]
    await ground.clear()
    workload = f"{count} tasks × 1 reader, p99 < {AGE_LIMIT_MS:.0f} ms"
    rates = [float(rate) for rate, _ in held]
    ages = ", ".join(f"{age:.0f} ms at {rate}/s" for rate, age in held)
    ground.notes.append(f"M7: p99 at the highest rate that was held: {ages}; naive held {naive} events/s each")
    ratio = [ours / max(theirs, 1) for ours, theirs in zip(rates, naive, strict=True)]
    return [
        alone("M7", workload, "events/s each", rates, TARGET),
        alone("M7", f"{workload}, over the rate that naive holds", "×", ratio, NAIVE_TARGET),
    ]


def _groups(tasks: Sequence[_Task]) -> list[Sequence[_Task]]:
    return [tasks[start : start + GROUP] for start in range(0, len(tasks), GROUP)]


def _listed(folder: Path, paths: Sequence[str]) -> str:
    """A file of paths, as the readers take it."""
    file = folder / "paths"
    file.write_text("\n".join(paths))
    return f"@{file}"
