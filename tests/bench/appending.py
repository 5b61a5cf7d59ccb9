"""M1: events a second that 50 tasks of one process append at once, stored and answered, AOF everysec.

Against what one connection of redis-benchmark reaches with 16 XADDs of like size under way, on the same server: that is
what the server and the wire allow. And against the obvious worker, in the same process. Positions, fencing and the hint
to the readers are in our number, and none of them in redis-benchmark's.
"""

import asyncio
import csv
import shutil
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import cycle, islice

from service.adapters.redis_client import connect
from service.model.events import Chunk
from tests.bench.ground import Ground
from tests.bench.naive import EVENT, NaiveLog
from tests.bench.ours import CHUNKS, EVENT_BYTES, OpenTask, open_tasks
from tests.bench.table import Row, Sample, Target, against, alternate, skipped

TASKS = 50
EVENTS_A_CALL = (5, 1, 20)


async def run(ground: Ground) -> list[Row]:
    """Rows for 5 events a call, which has targets, and for 1 and 20, which are reported."""
    rows: list[Row] = []
    seconds = 0.3 if ground.quick else 1.5
    async with open_tasks(ground) as tasks, connect(ground.redis_url) as redis:
        opened = [await tasks.open() for _ in range(TASKS)]
        naive = [NaiveLog(redis, f"append-{number}") for number in range(TASKS)]
        for events in EVENTS_A_CALL:
            sides: dict[str, Sample] = {
                "ours": partial(ours_rate, opened, events, seconds),
                "naive": partial(_naive_rate, naive, events, seconds),
            }
            if shutil.which("redis-benchmark"):
                sides["redis-benchmark"] = partial(_benchmark_rate, ground, ground.sized(200_000, 50_000))
            taken = await alternate(ground.rounds, sides)
            rows += _rows(taken, events)
            await redis.xtrim("bench:xadd", 0)
    await ground.clear()
    return rows


def _rows(taken: dict[str, list[float]], events: int) -> list[Row]:
    workload = f"append, {TASKS} tasks, {events} a call"
    has_target = events == EVENTS_A_CALL[0]
    rows = [
        against("M1", workload, "/s", taken["ours"], (name, taken[name]), Target(least) if has_target else None)
        for name, least in (("redis-benchmark", 0.7), ("naive", 12))
        if name in taken
    ]
    return rows if "redis-benchmark" in taken else [skipped("M1", workload, "redis-benchmark"), *rows]


async def ours_rate(opened: list[OpenTask], events: int, seconds: float) -> float:
    """Events a second; each call is awaited before the task's next one."""
    batches: list[tuple[Chunk, ...]] = [tuple(islice(cycle(CHUNKS), number, number + events)) for number in range(2)]

    async def append(task: OpenTask, number: int) -> None:
        await task.log.append(*batches[number % 2 if events % 2 else 0])

    return events * await _calls_a_second([partial(append, task) for task in opened], seconds)


async def _naive_rate(logs: list[NaiveLog], events: int, seconds: float) -> float:
    async def append(log: NaiveLog, _: int) -> None:
        for _ in range(events):
            await log.append(EVENT)

    return events * await _calls_a_second([partial(append, log) for log in logs], seconds)


async def _calls_a_second(callers: list[Callable[[int], Awaitable[None]]], seconds: float) -> float:
    """Calls a second of all callers together, each in a loop of its own."""
    calls = 0
    begun = time.monotonic()

    async def repeat(call: Callable[[int], Awaitable[None]]) -> None:
        nonlocal calls
        number = 0
        while time.monotonic() - begun < seconds:
            await call(number)
            number += 1
        calls += number

    await asyncio.gather(*map(repeat, callers))
    return calls / (time.monotonic() - begun)


async def _benchmark_rate(ground: Ground, requests: int) -> float:
    command = f"redis-benchmark -h 127.0.0.1 -p {ground.redis_port} -P 16 -c 1 -n {requests} --csv XADD bench:xadd * d"
    process = await asyncio.create_subprocess_exec(
        *command.split(), "x" * EVENT_BYTES, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    return float(list(csv.reader(output.decode().splitlines()))[-1][1])
