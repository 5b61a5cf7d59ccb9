"""Workers that die, and workers that sleep and wake."""

import asyncio
import time

import pytest

from tests.faults.bench import LEASE_SECONDS, Bench
from tests.faults.checks import assert_kept, over
from tests.faults.patience import until
from tests.faults.turns import Count, Script, post, read, to_the_end
from tests.faults.wire import Hold, Way

HELD_SECONDS = 10.0

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_worker_that_is_killed_in_mid_stream_is_followed_by_another_and_readers_see_a_pause(
    bench: Bench,
) -> None:
    turn = await post(bench.doors[0].service.url, Count(60, rate=30))
    async with read(turn, bench.urls, 4) as readers:
        await asyncio.gather(*(recorder.has(15) for recorder in turn.recorders))
        await (await bench.holder(turn.task_id)).kill()
        killed_at = time.time()
        await to_the_end(readers)
    await assert_kept(bench.truth, turn)
    log = await bench.truth.log(turn.task_id)
    types = [event.type for event in log]
    assert types.count("data-attempt") == 2
    taken = types.index("data-attempt", types.index("data-attempt") + 1)
    assert types[taken : taken + 3] == ["data-attempt", "reset-step", "text-start"]
    assert int(log[taken].position.partition("-")[0]) / 1000 - killed_at < 2 * LEASE_SECONDS
    for recorder in turn.recorders:
        assert (recorder.connections, recorder.breaks, recorder.end) == (1, 0, "done")


async def test_pitfall_22_an_append_that_was_on_its_way_arrives_when_another_has_begun(bench: Bench) -> None:
    """It would join the log, as far as numbers go: it reaches beyond what the successor has said until then."""
    victim, successor = bench.workers
    victim.redis.break_by(Hold(b"reasoning-start", Way.UP))
    successor.pause()
    turn = await post(bench.doors[0].service.url, Script("/wait 1\n/reason a\n/say b\n/reason c\n/say d", "bd"))
    async with read(turn, bench.urls, 2) as readers:
        async with asyncio.timeout(HELD_SECONDS):
            await victim.redis.held.wait()
        await victim.kill()
        await bench.truth.let_leases_lapse()
        successor.wake()

        async def has_begun() -> bool:
            return (await bench.truth.log(turn.task_id))[-1].type == "reset-step"

        await until(has_begun, HELD_SECONDS)
        victim.redis.heal()
        await to_the_end(readers)
    await assert_kept(bench.truth, turn)
    log = await bench.truth.log(turn.task_id)
    assert [event.type for event in log].count("reasoning-start") == 2


async def test_pitfall_22_and_70_a_worker_that_wakes_up_after_three_leases_writes_nothing_in_either_store(
    bench: Bench,
) -> None:
    """When it wakes, one of its turns is over, and one is in its successor's hands, in mid-stream."""
    sleeper, successor = bench.workers
    successor.pause()
    turns = [await post(bench.doors[0].service.url, count) for count in (Count(40, rate=40), Count(160, rate=30))]
    async with read(turns[0], bench.urls, 2) as some, read(turns[1], bench.urls, 2) as others:
        await asyncio.gather(*(turn.recorders[0].has(8) for turn in turns))
        sleeper.pause()
        successor.wake()
        await asyncio.sleep(3 * LEASE_SECONDS)  # the sleep itself; nothing is waited for
        open_turns = await bench.truth.unclosed()
        sleeper.wake()
        assert open_turns == {turns[1].task_id}
        assert await bench.holder(turns[1].task_id) is successor
        await to_the_end(some, others)
    await over(bench.truth, *turns)
    ids = [turn.task_id for turn in turns]
    left = await bench.truth.everything(ids)
    successor.pause()
    await over(bench.truth, await post(bench.doors[0].service.url, Count(3)))  # the sleeper has worked since it woke
    assert await bench.truth.everything(ids) == left
    await assert_kept(bench.truth, *turns)
    for turn in turns:
        for recorder in turn.recorders:
            assert (recorder.connections, recorder.breaks) == (1, 0)
