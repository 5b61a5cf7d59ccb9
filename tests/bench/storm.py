"""M6: seconds until 1,000 readers that come at once have the 100 events of a log, from before the first connection.

Each of our samples is of a log that nobody has read before, and that is not closed: all of them go on to follow it.
"""

from contextlib import AsyncExitStack
from typing import Final

from tests.bench.crowd import open_crowd
from tests.bench.ground import Ground
from tests.bench.nchan import serving_nchan
from tests.bench.ours import open_tasks, serving
from tests.bench.table import Row, Sample, Target, against, alone, alternate, skipped

READERS: Final = 1000
EVENTS: Final = 100
TARGET: Final = Target(0.5, at_least=False)


async def run(ground: Ground) -> list[Row]:
    """One row."""
    readers = ground.sized(READERS, 100)
    workload = f"{readers} readers come back, {EVENTS} events each"
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(ground, "--only", "http"))
        tasks = await stack.enter_async_context(open_tasks(ground))
        nchan = await stack.enter_async_context(serving_nchan(ground))
        crowd = await stack.enter_async_context(open_crowd(ground))
        paths = iter([(await tasks.filled(EVENTS)).path for _ in range(ground.rounds + 1)])

        async def ours() -> float:
            return await crowd.replay(port, readers, next(paths), EVENTS)

        await ours()
        sides: dict[str, Sample] = {"ours": ours}
        if nchan is not None:
            async with nchan.publisher("redis", "storm") as publisher:
                for _ in range(EVENTS):
                    await publisher.append()
            path = nchan.path("redis", "storm")
            sides["nchan"] = lambda: crowd.replay(nchan.port, readers, path, EVENTS)
        taken = await alternate(ground.rounds, sides)
    await ground.clear()
    if nchan is None:
        return [alone("M6", workload, "s", taken["ours"]), skipped("M6", workload, "nginx with Nchan")]
    return [against("M6", workload, "s", taken["ours"], ("Nchan redis", taken["nchan"]), TARGET)]
