"""M2: milliseconds until one event is stored and answered when nothing else goes on, the median of many.

Against one awaited XADD of the same bytes over a client that is configured the same, alternating call by call.
"""

import time
from collections.abc import Awaitable, Callable
from itertools import cycle
from statistics import median

from service.adapters.redis_client import connect
from service.model.encoding import encode
from tests.bench.ground import Ground
from tests.bench.ours import CHUNKS, open_tasks
from tests.bench.table import Row, Target, against


async def run(ground: Ground) -> list[Row]:
    """One row."""
    chunks, data = cycle(CHUNKS), encode(CHUNKS[0])
    ours: list[float] = []
    bare: list[float] = []
    redis = connect(ground.redis_url)
    async with open_tasks(ground) as tasks:
        log = (await tasks.open()).log
        for _ in range(ground.rounds):
            samples = [
                (
                    await _milliseconds(lambda: log.append(next(chunks))),
                    await _milliseconds(lambda: redis.xadd("bench:idle", {"d": data})),
                )
                for _ in range(ground.sized(2000, 500))
            ]
            ours.append(median(a for a, _ in samples))
            bare.append(median(b for _, b in samples))
    await redis.aclose()
    await ground.clear()
    return [against("M2", "one append when idle, p50", "ms", ours, ("XADD", bare), Target(1.5, at_least=False))]


async def _milliseconds(call: Callable[[], Awaitable[object]]) -> float:
    begun = time.perf_counter_ns()
    await call()
    return (time.perf_counter_ns() - begun) / 1e6
