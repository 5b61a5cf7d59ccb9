"""M3: deliveries a second to the readers of one task, over HTTP, from another process.

The task's worker appends from eight coroutines, each awaiting its append, and nothing else holds it back. A sample is a
number of events: from the first append until the last reader has the last of them, each reader all of them. Where the
worker is faster than the readers, they catch up from what is stored, as they do in production; how many frames came
with one read is said under the table, and shows how much of that there was. Reported beside it for many readers: bursts
of eight events, each begun when every reader has the one before, so that nobody ever has anything to catch up.
"""

import sys
from contextlib import AsyncExitStack
from statistics import median
from typing import Final

from tests.bench.crowd import open_crowd
from tests.bench.ground import Ground
from tests.bench.naive import serving_naive
from tests.bench.nchan import Store, serving_nchan
from tests.bench.ours import open_tasks, serving
from tests.bench.processes import said, started
from tests.bench.sides import WRITERS, Side, open_naive, open_nchan, open_ours
from tests.bench.table import Row, Target, against, alternate, shown, skipped

MANY_READERS: Final = 100
TARGETS: Final[dict[int, tuple[float, Store, float]]] = {
    1: (4, "redis", 1),
    10: (5, "redis", 1.5),
    100: (6, "memory", 1.5),
    1000: (15, "memory", 3),
}
"""Readers: the target against naive, Nchan's store, the target against that."""


async def run(ground: Ground) -> list[Row]:
    """Two rows for each number of readers."""
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(ground, "--only", "http"))
        tasks = await stack.enter_async_context(open_tasks(ground))
        naive_port = await stack.enter_async_context(serving_naive(ground))
        nchan = await stack.enter_async_context(serving_nchan(ground))
        for readers in TARGETS if not ground.quick else (1, 10, 100):
            async with AsyncExitStack() as sides:
                opened = {
                    "ours": await sides.enter_async_context(open_ours(ground, tasks, port, readers)),
                    "naive": await sides.enter_async_context(open_naive(ground, naive_port, readers)),
                }
                if nchan is not None:
                    store = TARGETS[readers][1]
                    opened["nchan"] = await sides.enter_async_context(open_nchan(ground, nchan, store, readers))
                rows += await _measure(ground, readers, opened)
            await ground.clear()
    await _note_what_readers_take(ground)
    return rows


async def _measure(ground: Ground, readers: int, sides: dict[str, Side]) -> list[Row]:
    for side in sides.values():
        await side.warm_up(0.2 if ground.quick else 1.5)
    taken = await alternate(ground.rounds, {name: side.rate for name, side in sides.items()})
    least_naive, store, least_nchan = TARGETS[readers]
    workload = f"1 task → {readers} readers"
    sizes = ", ".join(f"{name} {s.events} ({median(s.frames_a_read):.1f} a read)" for name, s in sides.items())
    ground.notes.append(f"M3, {workload}: events a sample (frames that came with one read): {sizes}")
    targets = {"naive": Target(least_naive), "nchan": Target(least_nchan)}
    rows = _rows(workload, store, taken, targets)
    if readers >= MANY_READERS:
        taken = await alternate(ground.rounds, {name: side.burst_rate for name, side in sides.items()})
        rows += _rows(f"{workload}, bursts of {WRITERS} in turn", store, taken, {})
    return rows


def _rows(workload: str, store: Store, taken: dict[str, list[float]], targets: dict[str, Target]) -> list[Row]:
    names = {"naive": "naive", "nchan": f"Nchan {store}"}
    rows = [
        against("M3", workload, "/s", taken["ours"], (names[name], taken[name]), targets.get(name))
        for name in names
        if name in taken
    ]
    return rows if "nchan" in taken else [*rows, skipped("M3", workload, "nginx with Nchan")]


async def _note_what_readers_take(ground: Ground) -> None:
    """What the readers' process takes from a sender that only sends: our number cannot be above it."""
    readers, log = ground.sized(1000, 100), ground.folder / "sender.log"
    said_rates = []
    for frames in (1, 8, 64):
        argv = [sys.executable, "-m", "tests.bench.sender", str(readers), str(frames)]
        async with started(argv, log) as process, open_crowd(ground) as crowd:
            await crowd.connect(int(await said(process, "port", log)), readers, "/")
            events = max(1, 100_000 // readers // frames) * frames
            await crowd.expect(events)
            assert process.stdin is not None
            process.stdin.write(b"%d\n" % events)
            delivered = await crowd.delivered()
            rate = readers * events / (delivered.done - delivered.begun)
            said_rates.append(f"{shown(rate, '/s')} at {frames} a send")
    ground.notes.append(f"M3: what {readers} readers take from a program that only sends: {', '.join(said_rates)}")
