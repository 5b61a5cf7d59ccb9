"""The ports `TaskQueue`, `TaskStore` and `TaskDirectory`: who works on what, and how it ends, wherever that is kept.

What is about locks, pools and statements asks for a `database`, and runs on every PostgreSQL that we support.

A lease of no time (LAPSED) has ended as soon as it is given: so is "the holder is gone" said here, without waiting.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import structlog

from service.adapters.postgres import Database, postgres_pool, statements
from service.adapters.postgres_tasks import PostgresTasks
from service.model import events as e
from service.model.caller import EVERYONES
from service.model.encoding import plain
from service.model.errors import DatabaseUnavailable, SessionBusy, TakenOver
from service.model.ids import SessionId, TaskId
from service.model.log import TaskFacts
from service.model.session import Message, NewMessage
from service.model.task import Claim, End, Ended, Held, Task, TaskFilter
from tests.contracts.conversations import Kept, Store, Tasks
from tests.sessions.databases import until_somebody_waits
from tests.sessions.endings import NOON, bounced, ended_with, finish
from tests.sessions.texts import ODD_TEXTS

LEASE = 60.0
LAPSED = 0.0
NOBODYS = TaskId("01890000-0000-7000-8000-000000000000")


@pytest.fixture
def store(kept: Kept) -> Store:
    return kept.store


@pytest.fixture
def queue(kept: Kept) -> Tasks:
    return kept.queue


async def queued(store: Store, text: str = "Hi") -> TaskId:
    """A session of its own with a turn."""
    session = await store.create(None)
    return (await store.post(EVERYONES, session.id, NewMessage((e.TextPart(text),)))).task_id


async def claimed(store: Store, queue: Tasks, lease_seconds: float = LEASE) -> Claim:
    task_id = await queued(store)
    (claim,) = await queue.claim(1, lease_seconds)
    assert claim.task.id == task_id
    return claim


def still(claim: Claim) -> Held:
    """What is answered of a claim that holds, of a task that nobody wants cancelled."""
    return Held(claim.task.id, claim.epoch, cancel_requested=False)


async def the_task(queue: Tasks, claim: Claim) -> Task:
    task = await queue.read(EVERYONES, claim.task.id)
    assert task is not None
    return task


async def conversation(store: Store, session_id: SessionId) -> tuple[Message, ...]:
    session = await store.read(EVERYONES, session_id)
    assert session is not None
    return session.messages


# --- claim ------------------------------------------------------------------------------------------------------------


async def test_a_claim_is_the_task_with_its_first_epoch(store: Store, queue: Tasks) -> None:
    task_id = await queued(store)
    (claim,) = await queue.claim(10, LEASE)
    task = await queue.read(EVERYONES, task_id)
    assert task is not None
    assert (claim.task, claim.epoch, claim.owed) == (task, 1, None)
    assert task.status == "running"
    assert claim.task.started_at is not None


async def test_there_is_nothing_to_claim_where_nothing_is_due(store: Store, queue: Tasks) -> None:
    assert await queue.claim(10, LEASE) == []
    await claimed(store, queue)
    assert await queue.claim(10, LEASE) == []  # it is held
    assert await queue.claim(0, LEASE) == []


async def test_the_oldest_come_first_and_no_more_than_asked_for(store: Store, queue: Tasks) -> None:
    tasks = [await queued(store) for _ in range(7)]
    taken = [{claim.task.id for claim in await queue.claim(3, LEASE)} for _ in range(4)]
    assert taken == [set(tasks[:3]), set(tasks[3:6]), set(tasks[6:]), set()]


async def test_lapsed_and_queued_ones_together_are_no_more_than_asked_for(store: Store, queue: Tasks) -> None:
    lapsed = {(await claimed(store, queue, LAPSED)).task.id}
    waiting = [await queued(store) for _ in range(3)]
    taken = [claim.task.id for claim in await queue.claim(2, LEASE)]
    assert len(taken) == 2
    assert set(taken) == lapsed | {waiting[0]}


async def test_a_claim_that_loses_a_session_to_another_takes_nothing_and_holds_nothing(
    store: Store, queue: Tasks, kept: Kept, database: Database
) -> None:
    before, lapsed = await claimed(store, queue), await claimed(store, queue)
    await queue.renew([lapsed], LAPSED)
    waiting = await kept.second_turn_queued(before)
    await queue.end(before, ended_with(before, "There."))
    async with database.connection() as connection, asyncio.TaskGroup() as tasks:
        async with connection.transaction():
            again = "UPDATE tasks SET status = 'running', ending = NULL WHERE id = $1"
            await connection.fetch(again, before.task.id)  # stands for any other turn of that session
            claim = tasks.create_task(queue.claim(10, LEASE))
            await until_somebody_waits(database)
        assert await claim == []
    assert (await queue.read(EVERYONES, waiting) or before.task).status == "queued"
    assert lapsed.task.id in {claim.task.id for claim in await queue.claim(10, LEASE)}


async def test_each_task_goes_to_one_claimer(dsn: str, store: Store) -> None:
    tasks = {await queued(store) for _ in range(60)}
    taken: list[Claim] = []
    async with AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(postgres_pool(dsn, connections=3)) for _ in range(4)]

        async def work(queue: Tasks) -> None:
            for _ in range(200):  # an empty answer may only mean that another claim looks at the rest
                taken.extend(await queue.claim(7, LEASE))
                if len(taken) >= len(tasks):
                    return

        await asyncio.gather(*(work(PostgresTasks(Database(pool))) for pool in pools * 3))
    assert sorted(claim.task.id for claim in taken) == sorted(tasks)
    assert {claim.epoch for claim in taken} == {1}


async def test_a_lapsed_task_goes_to_one_of_those_who_take_it_over(dsn: str, store: Store) -> None:
    async with AsyncExitStack() as stack:
        queues = [
            PostgresTasks(Database(await stack.enter_async_context(postgres_pool(dsn, connections=2))))
            for _ in range(4)
        ]
        lost = [await claimed(store, queues[0]) for _ in range(10)]
        await queues[0].renew(lost, LAPSED)
        taken = await asyncio.gather(*(queue.claim(10, LEASE) for queue in queues * 2))
        rest = await queues[0].claim(100, LEASE)  # passed over by all, because another looked at it
    claims = [claim for some in (*taken, rest) for claim in some]
    assert sorted(claim.task.id for claim in claims) == sorted(claim.task.id for claim in lost)
    assert {claim.epoch for claim in claims} == {2}


async def test_no_more_than_asked_for_is_taken_over_where_many_take_over_at_once(dsn: str, database: Database) -> None:
    """Among so many tasks that PostgreSQL finds the open ones by their index."""
    await many_tasks(database, closed=2000, running=30, held=False)

    async def take_over(queue: PostgresTasks) -> None:
        for round_ in range(60):
            limit = round_ % 5 + 1
            assert len(await queue.claim(limit, LAPSED)) <= limit

    async with postgres_pool(dsn) as pool:
        await asyncio.gather(*(take_over(PostgresTasks(Database(pool))) for _ in range(6)))


async def test_a_claim_looks_at_no_lease_of_what_is_closed(database: Database) -> None:
    """Though so many run that PostgreSQL would rather walk over all leases that there ever were."""
    await many_tasks(database, closed=2000, running=1000, held=True)
    explained = "EXPLAIN (ANALYZE, FORMAT JSON) " + statements("tasks")["claim"]
    ((plans,),) = await database.fetch(explained, 64, timedelta(seconds=LEASE), [], True, 0)
    read = [
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes(plans[0]["Plan"])
        if node.get("Alias") == "l"
    ]
    assert read == [1000]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan and all that is below it."""
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


async def many_tasks(database: Database, *, closed: int, running: int, held: bool) -> None:
    """Tasks that were, and then as many that run, each in a session of its own, and known to the planner."""
    await database.fetch(
        """
        WITH session AS (
            INSERT INTO sessions SELECT n::text FROM generate_series(1, $1::int + $2::int) n RETURNING id
        ), task AS (
            INSERT INTO tasks (session_id, kind, input_id, log_closed, status, ending)
            SELECT id, 'turn', 'i', id::int <= $1,
                   CASE WHEN id::int <= $1 THEN 'succeeded' ELSE 'running' END,
                   CASE WHEN id::int <= $1 THEN '[]'::json END
            FROM session ORDER BY id::int
            RETURNING id, log_closed
        )
        INSERT INTO leases (task_id, epoch, lease_until)
        SELECT id, 1, CASE WHEN log_closed OR NOT $3 THEN timestamptz '-infinity' ELSE 'infinity' END FROM task
        """,
        closed,
        running,
        held,
    )
    await database.fetch("ANALYZE tasks")
    await database.fetch("ANALYZE leases")


async def test_what_is_to_be_ended_or_taken_over_leaves_half_to_what_waits(store: Store, queue: Tasks) -> None:
    cancelled = [await queued(store) for _ in range(10)]
    for task_id in cancelled:
        await queue.cancel(EVERYONES, task_id)
    waiting = [await queued(store) for _ in range(3)]
    first = [claim.task.id for claim in await queue.claim(4, LEASE)]
    assert set(waiting[:2]) < set(first)
    assert len(set(first) & set(cancelled)) == 2
    second = [claim.task.id for claim in await queue.claim(4, LEASE)]
    assert len(set(second) & set(cancelled)) == 3
    assert waiting[2] in second
    assert len(await queue.claim(10, LEASE)) == 5  # nothing waits: all of it


async def test_one_by_one_too_neither_keeps_the_other_waiting(store: Store, queue: Tasks) -> None:
    cancelled, waiting = [await queued(store) for _ in range(3)], [await queued(store) for _ in range(3)]
    for task_id in cancelled:
        await queue.cancel(EVERYONES, task_id)
    claims = [claim.task.id for _ in range(6) for claim in await queue.claim(1, LEASE)]
    assert claims == [task_id for pair in zip(cancelled, waiting, strict=True) for task_id in pair]


async def test_what_waits_for_a_session_that_is_busy_keeps_nobody_waiting(
    kept: Kept, store: Store, queue: Tasks
) -> None:
    await kept.second_turn_queued(await claimed(store, queue))
    cancelled = [await queued(store) for _ in range(3)]
    for task_id in cancelled:
        await queue.cancel(EVERYONES, task_id)
    assert [claim.task.id for _ in range(3) for claim in await queue.claim(1, LEASE)] == cancelled


async def test_the_epoch_rises_with_every_holder(store: Store, queue: Tasks) -> None:
    first = await claimed(store, queue, LAPSED)
    epochs = [(await queue.claim(1, LAPSED))[0].epoch for _ in range(5)]
    assert [first.epoch, *epochs] == [1, 2, 3, 4, 5, 6]


async def test_pitfall_68_a_busy_session_is_passed_over_and_starves_nobody(
    store: Store, queue: Tasks, kept: Kept
) -> None:
    running = await claimed(store, queue)
    waiting = await kept.second_turn_queued(running)
    other = await queued(store)  # younger than the one that waits
    assert [claim.task.id for claim in await queue.claim(1, LEASE)] == [other]
    assert await queue.claim(1, LEASE) == []
    await queue.end(running, ended_with(running, "There."))
    assert [claim.task.id for claim in await queue.claim(1, LEASE)] == [waiting]  # the end frees, not the closing


async def test_pitfall_68_a_session_has_one_queued_turn_at_most(store: Store, queue: Tasks, kept: Kept) -> None:
    running = await claimed(store, queue)
    await kept.second_turn_queued(running)
    with pytest.raises((asyncpg.UniqueViolationError, SessionBusy)):
        await kept.second_turn_queued(running)


async def test_pitfall_21_a_lapsed_task_is_taken_over_as_it_stands(store: Store, queue: Tasks) -> None:
    lost = await claimed(store, queue, LAPSED)
    (taken,) = await queue.claim(1, LEASE)
    assert (taken.task, taken.owed) == (lost.task, None)
    assert taken.epoch == lost.epoch + 1


async def test_pitfall_69_an_ended_task_whose_log_is_open_is_taken_over_with_what_is_owed(
    store: Store, queue: Tasks
) -> None:
    lost = await claimed(store, queue, LAPSED)
    end = ended_with(lost, "There.")
    await queue.end(lost, end)
    (taken,) = await queue.claim(1, LEASE)
    assert (taken.task.id, taken.epoch, taken.task.status) == (lost.task.id, 2, "succeeded")
    assert taken.owed == end.ending
    await queue.close(taken)
    assert await queue.claim(1, LEASE) == []


async def test_pitfall_69_a_task_that_ends_while_it_is_claimed_is_taken_over_as_it_ended(
    store: Store, queue: Tasks, database: Database
) -> None:
    """Not as it was when the claim began: the model would be asked again for what is answered."""
    lost = await claimed(store, queue, LAPSED)
    end = ended_with(lost, "There.")
    async with claim_under_way(database) as under_way:
        await queue.end(lost, end)
    (row,) = await under_way
    assert (row["status"], row["ending"]) == ("succeeded", [plain(chunk) for chunk in end.ending])


async def test_pitfall_69_a_lapsed_task_that_another_takes_while_it_is_claimed_is_left_to_that_one(
    store: Store, queue: Tasks, database: Database
) -> None:
    await claimed(store, queue, LAPSED)
    async with claim_under_way(database) as under_way:
        (taken,) = await queue.claim(1, LEASE)
    assert await under_way == []
    assert [held.task_id for held in await queue.renew([taken], LEASE)] == [taken.task.id]


@asynccontextmanager
async def claim_under_way(database: Database) -> AsyncGenerator[asyncio.Task[list[asyncpg.Record]]]:
    """A claim that has begun and locks nothing until the block is over."""
    gate = "FROM (SELECT pg_advisory_xact_lock(7)) gate, tasks t\n    WHERE (t"
    gated = statements("tasks")["claim"].replace("FROM tasks t\n    WHERE (t", gate, 1)
    assert gate in gated
    async with database.connection() as connection, asyncio.TaskGroup() as tasks, connection.transaction():
        await connection.fetch("SELECT pg_advisory_xact_lock(7)")
        claim = tasks.create_task(database.fetch(gated, 1, timedelta(seconds=LEASE), [], True, 0))
        await until_somebody_waits(database)
        yield claim


async def test_an_ended_task_that_is_still_held_is_left_to_its_holder(store: Store, queue: Tasks) -> None:
    claim = await claimed(store, queue)
    await queue.end(claim, ended_with(claim, "There."))
    assert await queue.claim(1, LEASE) == []


# --- cancel -----------------------------------------------------------------------------------------------------------


async def test_a_running_task_that_is_to_be_cancelled_runs_on_and_its_holder_is_told(
    store: Store, queue: Tasks
) -> None:
    claim, other = await claimed(store, queue), await claimed(store, queue)
    asked = await queue.cancel(EVERYONES, claim.task.id)
    assert asked is not None
    assert (asked.status, asked.has_ended) == ("running", False)
    assert asked.cancel_requested_at is not None
    held = await queue.renew([claim, other], LEASE)
    assert {one.task_id: one.cancel_requested for one in held} == {claim.task.id: True, other.task.id: False}
    assert (await queue.retake(claim, LEASE)).task == asked


async def test_the_first_time_that_it_was_wanted_counts(store: Store, queue: Tasks) -> None:
    claim = await claimed(store, queue)
    asked = await queue.cancel(EVERYONES, claim.task.id)
    assert await queue.cancel(EVERYONES, claim.task.id) == asked == await queue.read(EVERYONES, claim.task.id)


async def test_a_queued_task_that_is_to_be_cancelled_is_given_out_and_stays_queued(store: Store, queue: Tasks) -> None:
    task_id = await queued(store)
    await queue.cancel(EVERYONES, task_id)
    (claim,) = await queue.claim(10, LEASE)
    assert (claim.task.id, claim.task.status, claim.epoch, claim.owed) == (task_id, "queued", 1, None)
    assert await queue.claim(10, LEASE) == []  # it is held
    end = End("cancelled", (finish(claim, "cancelled", "", e.Usage(0, 0)),), e.Usage(0, 0), NOON)
    assert (await queue.end(claim, end)).owed == end.ending
    task = await the_task(queue, claim)
    assert (task.status, task.started_at, task.finished_at) == ("cancelled", NOON, NOON)


async def test_a_queued_task_that_is_to_be_cancelled_does_not_wait_for_its_session(
    store: Store, queue: Tasks, kept: Kept
) -> None:
    running = await claimed(store, queue)
    waiting = await kept.second_turn_queued(running)
    await queue.cancel(EVERYONES, waiting)
    (claim,) = await queue.claim(10, LAPSED)
    assert (claim.task.id, claim.task.status) == (waiting, "queued")
    (again,) = await queue.claim(10, LEASE)  # whoever held it was lost
    assert (again.epoch, again.task.status, again.lost_attempts) == (2, "queued", 0)


async def test_a_task_that_has_ended_is_not_cancelled(store: Store, queue: Tasks) -> None:
    claim = await claimed(store, queue)
    await queue.end(claim, ended_with(claim, "There."))
    task = await the_task(queue, claim)
    assert await queue.cancel(EVERYONES, claim.task.id) == task
    assert task.cancel_requested_at is None


async def test_what_does_not_exist_is_not_cancelled(queue: Tasks) -> None:
    assert await queue.cancel(EVERYONES, NOBODYS) is None


async def test_a_task_that_is_cancelled_while_it_is_claimed_is_run_or_given_out_to_be_ended(
    store: Store, queue: Tasks, database: Database
) -> None:
    """The claim that looked before the request sees it when it has waited; what it skips, the next one takes."""
    task_id = await queued(store)
    async with database.connection() as connection:
        async with connection.transaction():
            await connection.fetch(statements("tasks")["cancel"], task_id, True, None)
            assert await queue.claim(10, LEASE) == []
        (claim,) = await queue.claim(10, LEASE)
    assert claim.task.status == "queued"


# --- attempts that are lost -------------------------------------------------------------------------------------------


async def test_holders_that_are_lost_with_a_running_task_are_counted(store: Store, queue: Tasks) -> None:
    claim = await claimed(store, queue, LAPSED)
    assert claim.lost_attempts == 0
    counts = []
    for _ in range(3):
        (claim,) = await queue.claim(1, LAPSED)
        counts.append(claim.lost_attempts)
    assert counts == [1, 2, 3]


async def test_a_holder_that_lets_its_task_go_is_not_counted(store: Store, queue: Tasks) -> None:
    claim = await claimed(store, queue)
    await queue.renew([claim], 0)
    (claim,) = await queue.claim(1, LEASE)
    assert (claim.epoch, claim.lost_attempts) == (2, 0)
    assert (await queue.retake(claim, LEASE)).lost_attempts == 0


async def test_a_claimer_that_does_not_count_takes_a_lapsed_task_as_it_stands(store: Store, queue: Tasks) -> None:
    """What was counted before stays, and who counts goes on from there."""
    claim = await claimed(store, queue, LAPSED)
    counts = []
    for counts_lost in (False, True, False, False, True, True):
        (claim,) = await queue.claim(1, LAPSED, counts_lost=counts_lost)
        counts.append((claim.epoch, claim.task.status, claim.lost_attempts))
    assert counts == [(epoch, "running", lost) for epoch, lost in zip(range(2, 8), (0, 1, 1, 1, 2, 3), strict=True)]


async def test_a_holder_that_is_lost_with_an_ended_task_is_not_counted(store: Store, queue: Tasks) -> None:
    claim = await claimed(store, queue, LAPSED)
    await queue.end(claim, ended_with(claim, "There."))
    (claim,) = await queue.claim(1, LEASE)
    assert claim.lost_attempts == 0


# --- renew ------------------------------------------------------------------------------------------------------------


async def test_what_is_renewed_is_held_on(store: Store, queue: Tasks) -> None:
    claims = [await claimed(store, queue) for _ in range(3)]
    renewed = await queue.renew(claims, LEASE)
    assert sorted((held.task_id, held.epoch) for held in renewed) == sorted((c.task.id, c.epoch) for c in claims)
    assert await queue.claim(10, LEASE) == []


async def test_a_renewal_counts_from_when_it_was_made(store: Store, queue: Tasks) -> None:
    claim = await claimed(store, queue)
    assert len(await queue.renew([claim], LAPSED)) == 1
    assert len(await queue.claim(1, LEASE)) == 1


async def test_a_lapsed_lease_is_not_renewed_even_where_nobody_took_it(store: Store, queue: Tasks) -> None:
    lost, held = await claimed(store, queue), await claimed(store, queue)
    await queue.renew([lost], LAPSED)
    assert await queue.renew([lost, held], LEASE) == [still(held)]


async def test_pitfall_22_an_older_epoch_renews_nothing(store: Store, queue: Tasks) -> None:
    old = await claimed(store, queue, LAPSED)
    (new,) = await queue.claim(1, LEASE)
    assert await queue.renew([old], LEASE) == []
    assert await queue.renew([old, new], LEASE) == [still(new)]


async def test_what_is_renewed_for_no_time_is_let_go(store: Store, queue: Tasks) -> None:
    claims = [await claimed(store, queue) for _ in range(3)]
    assert len(await queue.renew(claims[:2], 0)) == 2
    assert await queue.renew(claims, LEASE) == [still(claims[2])]
    taken = await queue.claim(10, LEASE)
    assert sorted((claim.task.id, claim.epoch) for claim in taken) == sorted((c.task.id, 2) for c in claims[:2])
    assert {claim.task.status for claim in taken} == {"running"}


async def test_pitfall_41_who_lost_the_task_lets_nothing_go(store: Store, queue: Tasks) -> None:
    loser = await claimed(store, queue, LAPSED)
    (winner,) = await queue.claim(1, LEASE)
    assert await queue.renew([loser], 0) == []
    assert await queue.renew([winner], LEASE) == [still(winner)]


async def test_what_was_let_go_is_not_held_again_by_a_renewal_that_was_under_way(
    store: Store, queue: Tasks, database: Database
) -> None:
    claim = await claimed(store, queue)
    async with database.connection() as connection, asyncio.TaskGroup() as tasks:
        async with connection.transaction():
            await connection.fetch("SELECT FROM leases WHERE task_id = $1 FOR UPDATE", claim.task.id)
            renewal = tasks.create_task(queue.renew([claim], LEASE))
            await until_somebody_waits(database)
            # Said from within the transaction that the renewal waits for, at a time after the renewal's own.
            await connection.fetch(
                statements("tasks")["renew"].replace("now()", "clock_timestamp()"),
                [claim.task.id],
                [claim.epoch],
                timedelta(0),
            )
        assert await renewal == []


async def test_renewing_nothing_is_nothing(queue: Tasks) -> None:
    assert await queue.renew([], LEASE) == []


# --- retake -----------------------------------------------------------------------------------------------------------


async def test_a_holder_retakes_its_task_with_a_higher_epoch(store: Store, queue: Tasks) -> None:
    first = await claimed(store, queue)
    again = await queue.retake(first, LEASE)
    assert (again.task, again.owed, again.epoch) == (first.task, None, 2)
    with pytest.raises(TakenOver):
        await queue.end(first, ended_with(first, "Too late."))
    assert await queue.renew([first, again], LEASE) == [still(again)]


async def test_who_retakes_an_ended_task_is_told_what_is_owed(store: Store, queue: Tasks) -> None:
    claim = await claimed(store, queue)
    end = ended_with(claim, "There.")
    await queue.end(claim, end)
    assert (await queue.retake(claim, LEASE)).owed == end.ending


async def test_only_the_holder_retakes(store: Store, queue: Tasks) -> None:
    old = await claimed(store, queue, LAPSED)
    with pytest.raises(TakenOver):  # lapsed
        await queue.retake(old, LEASE)
    (new,) = await queue.claim(1, LEASE)
    with pytest.raises(TakenOver):  # an older epoch
        await queue.retake(old, LEASE)
    assert (await queue.retake(new, LEASE)).epoch == 3


# --- end --------------------------------------------------------------------------------------------------------------


async def test_an_end_stores_all_that_hangs_on_it(store: Store, queue: Tasks) -> None:
    claim = await claimed(store, queue)
    end = ended_with(claim, "There.", usage=e.Usage(11, 2))
    assert (await queue.end(claim, end)).owed == end.ending
    task = await the_task(queue, claim)
    assert (task.status, task.usage, task.error_type) == ("succeeded", e.Usage(11, 2), None)
    assert (task.started_at, task.finished_at) == (claim.task.started_at, NOON)
    question, answer = await conversation(store, task.session_id)
    assert (question.id, question.role) == (task.input_id, "user")
    assert (answer.id, answer.role, answer.task_id) == (task.answer_id, "assistant", task.id)
    assert answer.parts == end.answer


async def test_a_failed_end_keeps_its_error_type_and_may_have_no_answer(store: Store, queue: Tasks) -> None:
    claim = await claimed(store, queue)
    ending = (finish(claim, "failed", "", e.Usage(0, 0)),)
    await queue.end(claim, End("failed", ending, e.Usage(0, 0), NOON, error_type="timeout"))
    task = await the_task(queue, claim)
    assert (task.status, task.error_type) == ("failed", "timeout")
    assert [message.role for message in await conversation(store, task.session_id)] == ["user"]


async def test_a_bounced_input_is_taken_back_and_nothing_else(store: Store, queue: Tasks) -> None:
    first = await claimed(store, queue)
    await queue.end(first, ended_with(first, "There."))
    await store.post(EVERYONES, first.task.session_id, NewMessage((e.TextPart("Again"),)))
    (claim,) = await queue.claim(1, LEASE)
    before = await conversation(store, claim.task.session_id)
    await queue.end(claim, bounced(claim))
    assert await conversation(store, claim.task.session_id) == before[:2]
    assert (await the_task(queue, claim)).status == "failed"
    await store.post(EVERYONES, claim.task.session_id, NewMessage((e.TextPart("Once more"),)))


async def test_pitfall_19_a_repeat_changes_nothing_and_answers_what_was_stored_first(
    store: Store, queue: Tasks, kept: Kept
) -> None:
    claim = await claimed(store, queue)
    end = ended_with(claim, "First.")
    await queue.end(claim, end)
    before = await kept.everything()
    assert (await queue.end(claim, end)).owed == end.ending
    assert (await queue.end(claim, ended_with(claim, "Second."))).owed == end.ending
    assert (await queue.end(claim, bounced(claim))).owed == end.ending
    await queue.close(claim)
    assert (await queue.end(claim, bounced(claim))).owed == end.ending
    assert (await kept.everything())[3] == before[3]


async def test_pitfall_70_who_lost_the_task_ends_nothing(store: Store, queue: Tasks, kept: Kept) -> None:
    loser = await claimed(store, queue, LAPSED)
    (winner,) = await queue.claim(1, LEASE)
    before = await kept.everything()
    for end in (ended_with(loser, "Mine."), bounced(loser)):
        with pytest.raises(TakenOver):
            await queue.end(loser, end)
    assert await kept.everything() == before

    await queue.end(winner, ended_with(winner, "Mine."))
    after = await kept.everything()
    for end in (ended_with(loser, "No, mine."), bounced(loser)):
        with pytest.raises(TakenOver):
            await queue.end(loser, end)
    assert await kept.everything() == after


async def test_pitfall_70_ends_of_all_epochs_at_once_make_one_message(dsn: str, store: Store, queue: Tasks) -> None:
    claims = [await claimed(store, queue, LAPSED)]
    claims += [(await queue.claim(1, LAPSED))[0] for _ in range(4)]
    async with postgres_pool(dsn) as pool:
        other = PostgresTasks(Database(pool))
        ends = [q.end(claim, ended_with(claim, f"By {claim.epoch}.")) for claim in claims for q in (queue, other)]
        results = await asyncio.gather(*ends, return_exceptions=True)
    assert [type(result) for result in results] == [TakenOver] * 8 + [Ended] * 2
    answers = [m.parts[1]["text"] for m in await conversation(store, claims[0].task.session_id) if m.role != "user"]
    assert answers == ["By 5."]


async def test_a_holder_whose_lease_lapsed_may_end_until_another_takes_over(store: Store, queue: Tasks) -> None:
    claim = await claimed(store, queue, LAPSED)
    await queue.end(claim, ended_with(claim, "There."))
    assert (await the_task(queue, claim)).status == "succeeded"


async def test_the_end_of_what_does_not_exist_is_taken_over(store: Store, queue: Tasks) -> None:
    claim = await claimed(store, queue)
    nobodys = Claim(Task(NOBODYS, *[getattr(claim.task, name) for name in Task.__slots__[1:]]), claim.epoch, None, 0)
    with pytest.raises(TakenOver):
        await queue.end(nobodys, ended_with(nobodys, "There."))


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
async def test_pitfall_59_an_answer_and_an_ending_come_back_as_they_went(store: Store, queue: Tasks, text: str) -> None:
    claim = await claimed(store, queue, LAPSED)
    end = ended_with(claim, text[:32_767])
    await queue.end(claim, end)
    (taken,) = await queue.claim(1, LEASE)
    assert taken.owed == end.ending
    _, answer = await conversation(store, claim.task.session_id)
    assert answer.parts == end.answer


# --- close ------------------------------------------------------------------------------------------------------------


async def test_a_closed_task_owes_nothing_and_is_nobodys(store: Store, queue: Tasks) -> None:
    claim = await claimed(store, queue)
    assert await queue.facts(claim.task.id) == TaskFacts(log_closed=False)
    await queue.end(claim, ended_with(claim, "There."))
    assert await queue.facts(claim.task.id) == TaskFacts(log_closed=False)
    await queue.close(claim)
    assert await queue.facts(claim.task.id) == TaskFacts(log_closed=True)
    assert await queue.renew([claim], LEASE) == []
    assert await queue.claim(1, LEASE) == []


async def test_closing_again_is_harmless(store: Store, queue: Tasks, kept: Kept) -> None:
    claim = await claimed(store, queue)
    await queue.end(claim, ended_with(claim, "There."))
    await queue.close(claim)
    before = await kept.everything()
    await queue.close(claim)
    assert await kept.everything() == before


async def test_pitfall_41_who_lost_the_task_closes_and_frees_nothing(store: Store, queue: Tasks) -> None:
    loser = await claimed(store, queue, LAPSED)
    await queue.end(loser, ended_with(loser, "There."))
    (winner,) = await queue.claim(1, LEASE)
    await queue.close(loser)
    assert await queue.facts(winner.task.id) == TaskFacts(log_closed=False)
    assert await queue.renew([winner], LEASE) == [still(winner)]


async def test_pitfall_20_a_task_that_has_not_ended_cannot_be_closed(store: Store, queue: Tasks) -> None:
    claim = await claimed(store, queue)
    await queue.close(claim)
    assert await queue.facts(claim.task.id) == TaskFacts(log_closed=False)
    assert (await the_task(queue, claim)).status == "running"


# --- facts, and a database that is away -------------------------------------------------------------------------------


async def test_nothing_is_known_of_what_does_not_exist(queue: Tasks) -> None:
    assert await queue.facts(NOBODYS) is None


async def test_what_is_away_is_told_as_that(dsn: str, store: Store) -> None:
    async with postgres_pool(dsn) as pool:
        queue = PostgresTasks(Database(pool))
        claim = await claimed(store, queue)
    for call in (
        queue.claim(1, LEASE),
        queue.renew([claim], LEASE),
        queue.retake(claim, LEASE),
        queue.end(claim, ended_with(claim, "There.")),
        queue.close(claim),
        queue.facts(claim.task.id),
        queue.newest(EVERYONES, TaskFilter(), 10, None),
        queue.of_session(EVERYONES, claim.task.session_id, 10, 0),
        queue.ownership(claim.task.id),
    ):
        with pytest.raises(DatabaseUnavailable):
            await call


# --- endings of other versions ----------------------------------------------------------------------------------------


async def of_another_version(store: Store, queue: Tasks, database: Database, tasks: int) -> set[TaskId]:
    """Tasks that have ended with a chunk that nobody here knows, and whose holder is gone."""
    held = [await claimed(store, queue) for _ in range(tasks)]
    for claim in held:
        await queue.end(claim, ended_with(claim, "There."))
    await database.fetch("UPDATE tasks SET ending = $1", [{"type": "from-the-future"}])
    await queue.renew(held, 0)
    return {claim.task.id for claim in held}


async def test_an_ending_of_another_version_is_left_to_it_and_holds_up_nobody(
    store: Store, queue: Tasks, database: Database
) -> None:
    """Others in the same claim are served; the next claims have their whole limit; whoever knows it has it at once."""
    odd = await of_another_version(store, queue, database, 3)
    waiting = [await queued(store) for _ in range(3)]
    served = [[claim.task.id for claim in await queue.claim(2, LEASE)] for _ in range(3)]
    assert served == [[task_id] for task_id in waiting]

    another = PostgresTasks(database)
    await database.fetch("UPDATE tasks SET ending = $1 WHERE ending IS NOT NULL", [plain(e.FinishStep())])
    assert {claim.task.id for claim in await another.claim(10, LEASE)} == odd


async def test_an_ending_of_another_version_is_not_claimed_over_and_over(
    store: Store, queue: Tasks, database: Database
) -> None:
    odd = await of_another_version(store, queue, database, 3)
    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            assert await queue.claim(10, LEASE) == []
    assert [set(entry["task_ids"]) for entry in logs] == [odd]
    assert [row["epoch"] for row in await database.fetch("SELECT epoch FROM leases")] == [2, 2, 2]
