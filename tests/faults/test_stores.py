"""Stores that die, come back, and come back without what they had acknowledged."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.adapters.redis_keys import log_key
from service.model.ids import TaskId
from service.model.position import Position
from tests.faults.bench import Bench
from tests.faults.checks import assert_kept, i6_the_archive_has_what_the_log_had, i10_everything_moves, standing
from tests.faults.patience import until
from tests.faults.turns import Count, Turn, post, read, to_the_end

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOST = 5
"""Appends."""


async def test_stores_that_are_killed_and_come_back_cost_a_pause(bench: Bench) -> None:
    """Valkey, then PostgreSQL, then both; all under the same turns."""
    valkey, postgres = bench.stores.valkey, bench.stores.postgres
    turns = [await post(door.service.url, Count(70, rate=20)) for door in bench.doors * 2]
    async with read(turns[0], bench.urls, 4) as some, read(turns[1], bench.urls, 4) as others:
        for number, kills in enumerate([(valkey,), (postgres,), (valkey, postgres)]):
            await asyncio.gather(*(turn.recorders[0].has(10 + 10 * number) for turn in turns[:2]))
            await asyncio.gather(*(store.kill() for store in kills))
            await asyncio.gather(*(store.start() for store in kills))
            await i10_everything_moves(bench.truth, await standing(bench.truth))
        await to_the_end(some, others)
    for turn in turns[2:]:
        async with read(turn, bench.urls, 1) as late:
            await to_the_end(late)
    await assert_kept(bench.truth, *turns)


async def test_pitfall_81_a_tail_that_its_writer_still_has_comes_back_and_no_reader_knows(bench: Bench) -> None:
    turn = await post(bench.doors[0].service.url, Count(50, rate=20))
    async with read(turn, bench.urls, 4) as readers:
        await _cut_tail(bench, turn)
        await bench.stores.valkey.start()
        await to_the_end(readers)
    await assert_kept(bench.truth, turn)
    assert [event.type for event in await bench.truth.log(turn.task_id)].count("data-attempt") == 1


async def test_pitfall_81_a_tail_that_nobody_has_is_told_and_the_log_goes_on(bench: Bench) -> None:
    turn = await post(bench.doors[0].service.url, Count(50, rate=20))
    async with read(turn, bench.urls, 4) as readers:

        async def kill_holder() -> None:
            await (await bench.holder(turn.task_id)).kill()

        await _cut_tail(bench, turn, kill_holder)
        await bench.stores.valkey.start()
        await bench.truth.let_leases_lapse()
        await to_the_end(readers)
    await assert_kept(bench.truth, turn, lost=True)
    await _assert_told_and_later(bench, turn)


@pytest.mark.parametrize("way", ["flushed", "removed"])
async def test_a_store_that_comes_back_empty_is_told_and_the_log_begins_again(bench: Bench, way: str) -> None:
    await i6_the_archive_has_what_the_log_had(bench.truth)  # or what is to be archived is lost too
    turn = await post(bench.doors[0].service.url, Count(40, rate=20))
    async with read(turn, bench.urls, 4) as readers:
        await asyncio.gather(*(recorder.has(20) for recorder in turn.recorders))
        if way == "flushed":
            await bench.truth.redis.flushall()
        else:
            await bench.stores.valkey.kill()
            bench.stores.lose_everything()
            await bench.stores.valkey.start()
        await to_the_end(readers)
    await assert_kept(bench.truth, turn, lost=True)
    await _assert_told_and_later(bench, turn)


async def _cut_tail(bench: Bench, turn: Turn, meanwhile: Callable[[], Awaitable[None]] | None = None) -> None:
    """Kill Valkey when all readers have some, and take away the last of what they have."""
    await asyncio.gather(*(recorder.has(20) for recorder in turn.recorders))
    if meanwhile is not None:
        await meanwhile()
    await _has_all(bench, turn)
    await bench.stores.valkey.kill()
    bench.stores.lose_appends(log_key(TaskId(turn.task_id)), LOST)


async def _has_all(bench: Bench, turn: Turn) -> None:
    """Every reader has what stands there now."""
    last = await bench.truth.last(turn.task_id)

    async def have_it() -> bool:
        return all(last in recorder.known for recorder in turn.recorders)

    await until(have_it, 10)


async def _assert_told_and_later(bench: Bench, turn: Turn) -> None:
    """Everybody is told once; what stands where something was lost is later than that."""
    log = {event.n: Position.parse(event.position) for event in await bench.truth.log(turn.task_id)}
    for recorder in turn.recorders:
        assert len(recorder.gaps) == 1, recorder.gaps
        for position in map(Position.parse, (known.decode() for known in recorder.known)):
            now = log.get(position.n, position)
            assert now == position or now.ms > position.ms
