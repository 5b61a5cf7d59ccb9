"""A worker is killed at each of the last writes of a turn: the proxy holds a write, or its answer, meanwhile.

The end is decided in the database (F2), said in the log (F3), and then nothing is owed any more (F4).
"""

import asyncio
from dataclasses import dataclass
from typing import Literal

import pytest

from tests.faults.bench import Bench, Member
from tests.faults.checks import assert_kept
from tests.faults.patience import until
from tests.faults.turns import Count, Turn, post, read, to_the_end
from tests.faults.wire import Hold, Way

pytestmark = pytest.mark.asyncio(loop_scope="session")

HELD_SECONDS = 10.0
FINISH = b'"type":"finish"'
CLOSE = b"UPDATE tasks t SET log_closed = true"


Stage = Literal["undecided", "decided", "said", "over"]


@dataclass(frozen=True, slots=True)
class Moment:
    """Where the worker dies: how far its turn has come, and in how many attempts it will have been made.

    A write that is held back is lost with the worker, or it arrives: when its successor is just about to do the same
    (`amid`), or `late`, behind it.
    """

    name: str
    store: Literal["redis", "postgres"]
    hold: Hold
    stage: Stage
    attempts: int = 1
    arrives: Literal["never", "amid", "late"] = "never"


MOMENTS = (
    Moment("before F2", "postgres", Hold(FINISH, Way.UP), "undecided", attempts=2, arrives="amid"),
    Moment("behind F2", "postgres", Hold(FINISH, Way.DOWN), "decided"),
    Moment("before F3", "redis", Hold(FINISH, Way.UP), "decided", arrives="late"),
    Moment("behind F3", "redis", Hold(FINISH, Way.DOWN), "said"),
    Moment("behind F4", "postgres", Hold(CLOSE, Way.DOWN, behind=1), "over"),  # it is prepared first
)


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.name)
async def test_a_worker_that_is_killed_at_its_last_writes(bench: Bench, moment: Moment) -> None:
    victim, successor = bench.workers
    link = victim.redis if moment.store == "redis" else victim.postgres
    link.break_by(moment.hold)
    successor.pause()
    turn = await post(bench.doors[0].service.url, Count(10))
    async with read(turn, bench.urls, 2) as readers:
        async with asyncio.timeout(HELD_SECONDS):
            await link.held.wait()

        async def has_come_so_far() -> bool:
            return await _stage(bench, turn) == moment.stage

        await until(has_come_so_far, HELD_SECONDS)
        await victim.kill()
        if moment.arrives == "never":
            link.cut()
        if moment.arrives == "amid":
            successor.postgres.break_by(moment.hold)
        await bench.truth.let_leases_lapse()
        successor.wake()
        if moment.arrives == "amid":
            await _arrives_amid(bench, turn)
        await to_the_end(readers)
    await assert_kept(bench.truth, turn)
    left = await bench.truth.everything([turn.task_id])
    link.heal()
    await _answered(victim)
    assert await bench.truth.everything([turn.task_id]) == left
    log = await bench.truth.log(turn.task_id)
    assert len([event for event in log if event.type == "data-attempt"]) == moment.attempts


@pytest.mark.parametrize("moment", [m for m in MOMENTS if m.store == "postgres"], ids=lambda moment: moment.name)
async def test_a_database_that_is_killed_at_a_turn_s_last_writes_costs_a_pause(bench: Bench, moment: Moment) -> None:
    """What it had committed is not decided again; what it had not is decided when it is back."""
    worker, other = bench.workers
    await worker.stop()  # what it has prepared already does not come again as it stands in `hold`
    await worker.start()
    worker.postgres.break_by(moment.hold)
    other.pause()
    turn = await post(bench.doors[0].service.url, Count(10))
    async with read(turn, bench.urls, 2) as readers:
        async with asyncio.timeout(HELD_SECONDS):
            await worker.postgres.held.wait()

        async def has_come_so_far() -> bool:
            return await _stage(bench, turn) == moment.stage

        await until(has_come_so_far, HELD_SECONDS)
        await bench.stores.postgres.kill()
        worker.postgres.cut()
        worker.postgres.heal()
        other.wake()
        await bench.stores.postgres.start()
        await to_the_end(readers)
    await assert_kept(bench.truth, turn)


async def _arrives_amid(bench: Bench, turn: Turn) -> None:
    """Let go what the dead worker decided, while the successor's own decision is held; nothing must have come of it."""
    victim, successor = bench.workers
    async with asyncio.timeout(HELD_SECONDS):
        await successor.postgres.held.wait()
    victim.postgres.heal()
    await _answered(victim)
    assert await _stage(bench, turn) == "undecided"
    successor.postgres.heal()


async def _stage(bench: Bench, turn: Turn) -> Stage:
    row, log = await bench.truth.row(turn.task_id), await bench.truth.log(turn.task_id)
    if row.log_closed:
        return "over"
    if log and log[-1].type == "finish":
        return "said"
    return "undecided" if row.status == "running" else "decided"


async def _answered(victim: Member) -> None:
    """The stores have taken all that was held back, and hung up."""

    async def hung_up() -> bool:
        return victim.redis.connections == victim.postgres.connections == 0

    await until(hung_up, HELD_SECONDS)
