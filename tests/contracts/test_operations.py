"""The ports `OperationDesk`, `OperationInbox` and `OperationStore`, wherever all that is kept.

What becomes of a message about an operation is one table, for every moment at which it may come.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Literal

import asyncpg
import pytest

from service.adapters.postgres import Database, postgres_pool
from service.adapters.postgres_operations import PostgresOperations
from service.model.caller import EVERYONES, Own
from service.model.errors import NotFound, TakenOver, TooManyOperations
from service.model.events import Json, TextPart
from service.model.ids import OperationId, OwnerId, SessionId, TaskId
from service.model.operation import (
    EVERY_OPERATION,
    MAX_DELIVERIES,
    MAX_PENDING,
    NOT_THE_PERSON,
    Accepted,
    Cancelled,
    Completion,
    Conflicting,
    Delivery,
    Disposition,
    Duplicate,
    Failed,
    NewOperation,
    Noted,
    Operation,
    OperationFilter,
    Outcome,
    Progress,
    Refused,
    Succeeded,
    Unknown,
)
from service.model.session import NewMessage, SessionChange
from service.model.task import EVERY_TASK, Claim, Postponed, Told
from tests.contracts.conversations import InPostgres, Kept
from tests.sessions.endings import ended_with

LEASE = 60.0
LAPSED = 0.0
NOBODYS = OperationId("00000000-0000-7000-8000-000000000000")
OTHER = TaskId("00000000-0000-7000-8000-000000000001")
RENDER = NewOperation("c1", "render", "remote", {"scene": 1}, 3600)
DONE = Succeeded({"frames": 3})
BY = Delivery("amqp", "render")


async def turn(kept: Kept, session_id: SessionId | None = None, owner: str | None = None) -> Claim:
    """A turn that runs."""
    session_id = session_id or (await kept.store.create(None if owner is None else OwnerId(owner))).id
    await kept.store.post(EVERYONES, session_id, NewMessage((TextPart("Hi"),)))
    (claim,) = [each for each in await kept.queue.claim(10, LEASE) if each.task.kind == "turn"]
    return claim


async def pending(kept: Kept, new: NewOperation = RENDER, claim: Claim | None = None) -> Operation:
    """An operation that a running turn has begun."""
    return (await kept.operations.begin(claim or await turn(kept), new)).operation


async def ended(kept: Kept, claim: Claim) -> None:
    await kept.queue.end(claim, ended_with(claim, "There."))


def said(operation: Operation, outcome: Outcome = DONE, *, task_id: TaskId | None = None, name: str | None = None,
         reach: Own | None = None, tool: str | None = None, follow_up: bool = True) -> Completion:  # fmt: skip
    delivery = replace(BY, id=name)
    return Completion(operation.id, outcome, delivery, task_id, reach or EVERYONES, tool, follow_up)


async def now(kept: Kept, operation: Operation) -> Operation:
    found = await kept.operations.read(EVERYONES, operation.id)
    assert found is not None
    return found


# --- the beginning ----------------------------------------------------------------------------------------------------


async def test_an_operation_and_its_task_are_there_when_it_is_begun(kept: Kept) -> None:
    claim = await turn(kept, owner="ann")
    begun = await kept.operations.begin(claim, RENDER)
    operation = begun.operation
    assert begun.is_new
    assert operation == await now(kept, operation)
    assert (operation.status, operation.outcome, operation.owner) == ("pending", None, "ann")
    assert (operation.turn_id, operation.call_id, operation.tool) == (claim.task.id, "c1", "render")
    assert (operation.executor, operation.arguments, operation.has_follow_up) == ("remote", {"scene": 1}, False)
    assert operation.deadline is not None
    assert 3599 < (operation.deadline - operation.created_at).total_seconds() < 3601
    task = await kept.queue.read(EVERYONES, operation.task_id)
    assert task is not None
    assert (task.kind, task.status, task.operation_id, task.input_id) == ("operation", "waiting", operation.id, None)
    assert await kept.queue.begin_call(claim, "c1")  # noted already, by this holder
    assert await kept.operations.of_task(operation.task_id) == operation
    assert await kept.operations.of_task(claim.task.id) is None


async def test_a_second_start_of_the_same_call_or_the_same_work_is_the_first(kept: Kept) -> None:
    claim = await turn(kept)
    keyed = replace(RENDER, key="scene 1")
    first = await kept.operations.begin(claim, keyed)
    again = await kept.operations.begin(claim, replace(keyed, arguments={"scene": 2}))
    work = await kept.operations.begin(claim, replace(keyed, call_id="c2"))
    assert (first.is_new, again.is_new, work.is_new) == (True, False, False)
    assert first.operation == again.operation == work.operation
    other_tool = await kept.operations.begin(claim, replace(keyed, call_id="c3", tool="print"))
    other_session = await kept.operations.begin(await turn(kept), keyed)
    assert other_tool.is_new
    assert other_session.is_new


async def test_only_the_holder_of_a_turn_that_runs_begins(kept: Kept) -> None:
    claim = await turn(kept)
    with pytest.raises(TakenOver):
        await kept.operations.begin(replace(claim, epoch=claim.epoch + 1), RENDER)  # type: ignore[arg-type]
    await ended(kept, claim)
    with pytest.raises(TakenOver):
        await kept.operations.begin(claim, RENDER)
    deleted = await turn(kept)
    await kept.store.delete(EVERYONES, deleted.task.session_id)
    with pytest.raises(TakenOver):
        await kept.operations.begin(deleted, RENDER)
    assert await kept.operations.newest(EVERYONES, EVERY_OPERATION, 10, None) == []


async def test_a_session_has_so_many_pending_at_most(kept: Kept) -> None:
    claim = await turn(kept)
    operations = [await pending(kept, replace(RENDER, call_id=f"c{n}"), claim) for n in range(MAX_PENDING)]
    with pytest.raises(TooManyOperations):
        await kept.operations.begin(claim, replace(RENDER, call_id="more"))
    assert not (await kept.operations.begin(claim, replace(RENDER, call_id="c7"))).is_new
    await kept.operations.complete(said(operations[0]))
    assert (await kept.operations.begin(claim, replace(RENDER, call_id="more"))).is_new


# --- the inbox, as one table ------------------------------------------------------------------------------------------

Moment = Literal["pending", "same before", "other before", "past its deadline", "cancelled", "turn cancelled",
                 "session deleted", "session gone", "unknown"]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """What is said when, and what becomes of it: and whether there is a follow-up in the end."""

    moment: Moment
    outcome: Outcome
    became: type[Disposition]
    follows: bool = True


TABLE = [
    Row("pending", DONE, Accepted),
    Row("pending", Failed("llm_timeout", "Too slow.", {"after": 60}), Accepted),
    Row("pending", Cancelled("Not needed."), Accepted),
    *(Row("pending", Succeeded(result), Accepted) for result in ({}, "", None, 0, False, [], "a\0b", {"b": [2]})),
    Row("same before", DONE, Duplicate),
    Row("same before", Succeeded({"frames": 3}), Duplicate),
    Row("other before", DONE, Conflicting),
    Row("past its deadline", DONE, Accepted),  # nobody has ended it yet
    Row("cancelled", DONE, Conflicting),
    Row("cancelled", Cancelled("cancelled by owner"), Duplicate),
    Row("turn cancelled", DONE, Conflicting, follows=False),
    Row("session deleted", DONE, Conflicting, follows=False),
    Row("session gone", DONE, Conflicting, follows=False),
    Row("unknown", DONE, Unknown, follows=False),
]  # fmt: skip


async def at(kept: Kept, moment: Moment) -> Operation:
    """An operation at this moment of its life."""
    claim = await turn(kept)
    new = replace(RENDER, deadline_seconds=-1) if moment == "past its deadline" else RENDER
    operation = await pending(kept, new, claim)
    match moment:
        case "same before":
            await kept.operations.complete(said(operation))
        case "other before":
            await kept.operations.complete(said(operation, Succeeded({"frames": 4})))
        case "cancelled":
            await kept.operations.complete(said(operation, Cancelled("cancelled by owner")))
        case "turn cancelled":
            await kept.queue.end(claim, replace(ended_with(claim, "There."), status="cancelled"))
        case "session deleted" | "session gone":
            await kept.store.delete(EVERYONES, claim.task.session_id)
            if moment == "session gone":
                await close_all(kept)
                await kept.store.remove(claim.task.session_id)
        case "unknown":
            return replace(operation, id=NOBODYS)
        case _:
            pass
    return operation


async def close_all(kept: Kept) -> None:
    """End every task that is open, with its log."""
    while claims := [*await kept.queue.claim(10, LAPSED)]:
        for claim in claims:
            await kept.queue.end(claim, replace(ended_with(claim, "."), status="cancelled"))
            await kept.queue.close(claim)
    running = [each for each in await kept.queue.newest(EVERYONES, EVERY_TASK, 100, None) if not each.has_ended]
    assert running == []


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.moment}, {row.outcome}"[:60])
async def test_what_becomes_of_a_message(kept: Kept, row: Row) -> None:
    operation = await at(kept, row.moment)
    before = await kept.operations.read(EVERYONES, operation.id)
    became = await kept.operations.complete(said(operation, row.outcome))
    assert isinstance(became, row.became)
    after = await kept.operations.read(EVERYONES, operation.id)
    if isinstance(became, Accepted):
        assert after is not None
        assert after.outcome == row.outcome
        assert type(after.outcome) is type(row.outcome)
        assert after.ended_at is not None
    elif before is not None:
        assert after is not None
        assert (after.status, after.outcome) == (before.status, before.outcome)
    if isinstance(became, Accepted | Duplicate):
        assert (became.receipt.operation_id, became.receipt.task_id) == (operation.id, operation.task_id)
        assert after is not None
        assert became.receipt.status == after.status
    task = await kept.queue.read(EVERYONES, operation.task_id)
    follows = task is not None and task.status == "queued"
    assert follows is row.follows if row.moment not in ("session deleted", "session gone") else not follows


async def test_every_delivery_is_kept_with_what_became_of_it_and_a_named_one_once(kept: Kept) -> None:
    operation = await pending(kept)
    other = Succeeded(None)
    for outcome, name in ((DONE, "m1"), (DONE, "m1"), (other, "m2"), (DONE, None), (other, "m1")):
        await kept.operations.complete(said(operation, outcome, name=name))
    kept_ones = [
        (k.disposition, k.delivery.id, k.outcome, k.times) for k in await kept.operations.deliveries(operation.id)
    ]
    assert kept_ones == [
        ("accepted", "m1", {"result": {"frames": 3}}, 3),
        ("conflicting", "m2", {"result": None}, 1),
        ("duplicate", None, {"result": {"frames": 3}}, 1),
    ]
    assert (await now(kept, operation)).deliveries == 5


async def test_many_messages_in_one_transaction_are_each_as_if_it_were_alone(kept: Kept) -> None:
    claim = await turn(kept)
    one, two, person = [
        await pending(kept, NewOperation(f"c{n}", "render", executor, {}, 3600), claim)
        for n, executor in enumerate(("remote", "remote", "person"))
    ]
    unknown = replace(said(one), operation_id=NOBODYS)
    told_at_once = replace(said(two, name="b", follow_up=False), asked_by=claim)
    messages = [
        *(said(one, name="a"), said(one, Failed("timeout", "Too late."), name="b"), said(one, name="a"), unknown),
        *(said(two, task_id=OTHER), said(two, reach=Own(OwnerId("bob"))), said(two, tool="print"), told_at_once),
        said(person),
    ]
    became = await kept.operations.complete_all(messages)
    accepted, conflicting, duplicate, nobodys, other_task, foreign, other_tool, told, persons = became
    assert isinstance(accepted, Accepted)
    assert isinstance(conflicting, Conflicting)
    assert duplicate == Duplicate(accepted.receipt)
    assert nobodys in (None, Unknown())
    assert isinstance(other_task, Refused)
    assert (foreign, other_tool) == (Unknown(), Unknown())
    assert isinstance(told, Accepted)
    assert persons == Refused(NOT_THE_PERSON)
    states = [(each.status, each.has_follow_up) for each in [await now(kept, each) for each in (one, two, person)]]
    assert states == [("succeeded", True), ("succeeded", False), ("pending", False)]
    deliveries = await kept.operations.deliveries(one.id)
    assert [(each.delivery.id, each.disposition, each.times) for each in deliveries] == [
        ("a", "accepted", 2),
        ("b", "conflicting", 1),
    ]


async def test_deliveries_are_in_the_order_in_which_they_came_however_close(kept: Kept) -> None:
    operation = await pending(kept)
    await kept.operations.report(Progress(operation.id, 0.5, replace(BY, id="m9")))
    names = [f"m{n}" for n in range(20)]
    await kept.operations.complete_all([said(operation, Succeeded(name), name=name) for name in names])
    assert [each.delivery.id for each in await kept.operations.deliveries(operation.id)] == names


async def test_of_many_messages_nobody_waits_for_a_session_that_somebody_has_locked(dsn: str) -> None:
    async with postgres_pool(dsn, connections=2) as pool:
        kept = InPostgres(Database(pool))
        locked, free = [await pending(kept) for _ in range(2)]
        async with pool.acquire() as connection, connection.transaction():
            await connection.fetch("SELECT FROM sessions WHERE id = $1 FOR UPDATE", locked.session_id)
            became = await kept.operations.complete_all([said(locked), said(free)])
        assert became[0] is None
        assert isinstance(became[1], Accepted)
        assert (await now(kept, locked)).status == "pending"


async def test_where_one_of_many_messages_cannot_be_stored_none_is(dsn: str) -> None:
    async with postgres_pool(dsn, connections=2) as pool:
        kept = InPostgres(Database(pool))
        operations = [await pending(kept) for _ in range(3)]
        poison = f"ALTER TABLE completions ADD CONSTRAINT poison CHECK (operation_id <> '{operations[1].id}') NOT VALID"
        await kept.database.fetch(poison)
        try:
            with pytest.raises(asyncpg.CheckViolationError):
                await kept.operations.complete_all([said(each) for each in operations])
        finally:
            await kept.database.fetch("ALTER TABLE completions DROP CONSTRAINT poison")
        assert {(await now(kept, each)).status for each in operations} == {"pending"}


async def test_so_many_deliveries_are_kept_and_the_others_are_counted(kept: Kept) -> None:
    operation = await pending(kept)
    receipts = set()
    for _ in range(MAX_DELIVERIES + 5):
        became = await kept.operations.complete(said(operation))
        assert isinstance(became, Accepted | Duplicate)
        receipts.add(became.receipt)
    assert len(receipts) == 1
    assert len(await kept.operations.deliveries(operation.id)) == MAX_DELIVERIES
    assert (await now(kept, operation)).deliveries == MAX_DELIVERIES + 5


async def test_pitfall_35_a_named_task_is_checked_and_finds_nothing(kept: Kept) -> None:
    operation = await pending(kept)
    other = await pending(kept)
    for wrong in (OTHER, other.task_id, operation.turn_id, TaskId("no id")):
        assert isinstance(await kept.operations.complete(said(operation, task_id=wrong)), Refused)
        progress = Progress(operation.id, 0.5, BY, wrong)
        assert isinstance(await kept.operations.report(progress), Refused)
    assert (await now(kept, operation)).deliveries == 0
    assert (await now(kept, other)).status == "pending"
    assert isinstance(await kept.operations.complete(said(operation, task_id=operation.task_id)), Accepted)


async def test_who_may_complete(kept: Kept) -> None:
    operation = await pending(kept, claim=await turn(kept, owner="ann"))
    for completion in (
        said(operation, reach=Own(OwnerId("bob"))),
        said(operation, reach=Own(None)),
        said(operation, tool="print"),
    ):
        assert isinstance(await kept.operations.complete(completion), Unknown)
        progress = Progress(operation.id, 1, BY, None, completion.reach, completion.tool)
        assert isinstance(await kept.operations.report(progress), Unknown)
    allowed = said(operation, reach=Own(OwnerId("ann")), tool="render")
    assert isinstance(await kept.operations.complete(allowed), Accepted)


async def test_what_is_foreign_is_waited_for_as_little_as_what_does_not_exist(dsn: str) -> None:
    async with postgres_pool(dsn, connections=2) as pool:
        kept = InPostgres(Database(pool, call_seconds=1))
        operation, nobodys = await pending(kept), Own(OwnerId("bob"))
        progress = Progress(operation.id, 0.5, BY, tool="print")
        async with pool.acquire() as connection, connection.transaction():
            await connection.fetch("SELECT FROM sessions WHERE id = $1 FOR UPDATE", operation.session_id)
            assert await kept.operations.complete(said(operation, reach=nobodys)) == Unknown()
            assert await kept.operations.report(progress) == Unknown()
            with pytest.raises(NotFound):
                await kept.operations.redrive(nobodys, operation.id, BY)


async def test_an_owner_that_is_given_later_may_complete(kept: Kept) -> None:
    operation = await pending(kept)
    await kept.store.change(EVERYONES, operation.session_id, SessionChange(owner=OwnerId("ann")))
    assert (await now(kept, operation)).owner == "ann"
    assert isinstance(await kept.operations.complete(said(operation, reach=Own(None))), Unknown)
    assert isinstance(await kept.operations.complete(said(operation, reach=Own(OwnerId("ann")))), Accepted)


async def test_pitfall_33_many_at_once_are_one_outcome(dsn: str) -> None:
    """Over databases: what comes over two doors at the same moment."""
    async with AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(postgres_pool(dsn)) for _ in range(2)]
        kept = InPostgres(Database(pools[0]))
        doors = [PostgresOperations(Database(pool)) for pool in pools]
        for _ in range(10):
            operation = await pending(kept)
            outcomes = [Succeeded(n % 2) for n in range(8)]
            became = await asyncio.gather(
                *(doors[n % 2].complete(said(operation, each)) for n, each in enumerate(outcomes))
            )
            accepted = [n for n, each in enumerate(became) if isinstance(each, Accepted)]
            assert len(accepted) == 1
            assert (await now(kept, operation)).outcome == outcomes[accepted[0]]
            for n, each in enumerate(became):
                same = outcomes[n] == outcomes[accepted[0]]
                assert isinstance(each, Accepted if n == accepted[0] else Duplicate if same else Conflicting)


# --- progress ---------------------------------------------------------------------------------------------------------


async def test_the_latest_progress_counts_and_a_named_delivery_once(kept: Kept) -> None:
    operation = await pending(kept)
    for value, name in ((0.1, "p1"), (0.5, None), (0.1, "p1"), ({"page": 7}, "p2")):
        report = Progress(operation.id, value, replace(BY, id=name))
        assert isinstance(await kept.operations.report(report), Noted)
    known = await now(kept, operation)
    assert (known.progress, known.progress_number) == ({"page": 7}, 3)
    assert await kept.operations.deliveries(operation.id) == []
    assert isinstance(await kept.operations.complete(said(operation, name="p2")), Accepted)
    assert isinstance(await kept.operations.report(Progress(operation.id, 1, BY)), Conflicting)
    assert isinstance(await kept.operations.report(Progress(NOBODYS, 1, BY)), Unknown)
    assert [each.disposition for each in await kept.operations.deliveries(operation.id)] == ["accepted"]


async def test_a_log_is_told_at_once_and_then_once_a_second(kept: Kept) -> None:
    operation = await pending(kept)

    async def told(number: int) -> bool:
        claims = [each for each in await kept.queue.claim(10, LEASE) if each.task.id == operation.task_id]
        for claim in claims:
            assert claim.task.status == "waiting"
            await kept.operations.told(claim, Told(number))
            await kept.operations.told(claim, Told(number))
        return bool(claims)

    assert await told(0)
    assert not await told(0)
    await kept.operations.report(Progress(operation.id, 0.5, BY))
    assert not await told(1)  # a second has not passed


async def test_whoever_tells_a_log_loses_it_to_the_completion(kept: Kept) -> None:
    claim = await turn(kept)
    operation = await pending(kept, claim=claim)
    (telling,) = await kept.queue.claim(10, LEASE)
    assert telling.task.id == operation.task_id
    await kept.operations.complete(said(operation))
    assert await kept.queue.renew([telling], LEASE) == []
    await kept.operations.told(telling, Told(0))
    assert await kept.queue.claim(10, LEASE) == []  # its session has a turn that runs
    await ended(kept, claim)
    (follow_up,) = await kept.queue.claim(10, LEASE)
    assert (follow_up.task.id, follow_up.task.status) == (operation.task_id, "running")
    assert follow_up.epoch > telling.epoch


# --- the follow-up ----------------------------------------------------------------------------------------------------


async def test_pitfall_47_follow_ups_wait_for_their_session_and_come_one_by_one(kept: Kept) -> None:
    claim = await turn(kept)
    operations = [await pending(kept, replace(RENDER, call_id=f"c{n}"), claim) for n in range(3)]
    for operation in (operations[1], operations[2], operations[0]):
        await kept.operations.complete(said(operation))
    assert await kept.queue.claim(10, LEASE) == []
    await ended(kept, claim)
    order = []
    while claims := [each for each in await kept.queue.claim(10, LEASE) if each.task.status == "running"]:
        (follow_up,) = claims
        order.append(follow_up.task.id)
        await ended(kept, follow_up)
        await kept.queue.close(follow_up)
    assert order == [operations[n].task_id for n in (1, 2, 0)]


async def test_a_message_beside_a_running_follow_up_waits_and_is_answered_behind_it(kept: Kept) -> None:
    claim = await turn(kept)
    operation = await pending(kept, claim=claim)
    await ended(kept, claim)
    await kept.operations.complete(said(operation))
    (follow_up, *_) = [each for each in await kept.queue.claim(10, LEASE) if each.task.kind == "operation"]
    posted = await kept.store.post(EVERYONES, operation.session_id, NewMessage((TextPart("Well?"),)))
    assert (posted.status, posted.task_id) == ("pending", operation.task_id)
    assert (await kept.queue.end(follow_up, ended_with(follow_up, "It is done."))).next_is_due
    (answering,) = [each for each in await kept.queue.claim(10, LEASE) if each.task.kind == "turn"]
    assert answering.task.input_id == posted.message_id


async def test_a_postponed_follow_up_leaves_its_session_free(kept: Kept) -> None:
    claim = await turn(kept)
    operation = await pending(kept, claim=claim)
    await ended(kept, claim)
    await kept.queue.close(claim)
    await kept.operations.complete(said(operation))
    (follow_up,) = await kept.queue.claim(10, LEASE)
    waiting = await kept.store.post(EVERYONES, operation.session_id, NewMessage((TextPart("Well?"),)))
    assert waiting.status == "pending"
    assert await kept.operations.postpone(follow_up, Postponed(3600, "timeout"))
    with pytest.raises(TakenOver):
        await kept.operations.postpone(follow_up, Postponed(3600, "timeout"))
    (answering,) = await kept.queue.claim(10, LEASE)
    assert (answering.task.kind, answering.task.input_id) == ("turn", waiting.message_id)
    await ended(kept, answering)
    posted = await kept.store.post(EVERYONES, operation.session_id, NewMessage((TextPart("And now?"),)))
    assert posted.status == "accepted"  # nothing works on the session
    stuck = await kept.operations.newest(EVERYONES, OperationFilter(is_stuck=True), 10, None)
    assert [each.id for each in stuck] == [operation.id]


async def test_a_follow_up_that_is_due_again_knows_how_often_it_failed(kept: Kept) -> None:
    claim = await turn(kept)
    operation = await pending(kept, claim=claim)
    await ended(kept, claim)
    await kept.queue.close(claim)
    await kept.operations.complete(said(operation))
    for failed in range(3):
        (follow_up,) = await kept.queue.claim(10, LEASE)
        assert (follow_up.failed_tries, follow_up.task.status) == (failed, "running")
        assert not await kept.operations.postpone(follow_up, Postponed(0, "timeout"))


# --- the end without one ----------------------------------------------------------------------------------------------

Ending = Callable[[Kept, Claim, Operation], Awaitable[object]]

WITHOUT: dict[str, Ending] = {
    "answered at once": lambda kept, claim, operation: kept.operations.complete(said(operation, follow_up=False)),
    "its task cancelled": lambda kept, claim, operation: kept.queue.cancel(EVERYONES, operation.task_id),
    "its turn cancelled": lambda kept, claim, operation: kept.queue.end(
        claim, replace(ended_with(claim, "."), status="cancelled")
    ),
    "its session deleted": lambda kept, claim, operation: kept.store.delete(EVERYONES, claim.task.session_id),
}


@pytest.mark.parametrize("how", WITHOUT)
async def test_what_ends_without_a_follow_up_is_given_out_to_be_ended(kept: Kept, how: str) -> None:
    claim = await turn(kept)
    operation = await pending(kept, claim=claim)
    (telling,) = await kept.queue.claim(10, LEASE)
    await kept.operations.told(telling, Told(0))
    await WITHOUT[how](kept, claim, operation)
    due = [each for each in await kept.queue.claim(10, LEASE) if each.task.id == operation.task_id]
    assert [each.task.status for each in due] == ["waiting"]
    known = await kept.operations.of_task(operation.task_id)
    assert known is not None
    assert known.status == ("succeeded" if how == "answered at once" else "cancelled")
    assert not known.has_follow_up
    assert len(await kept.operations.deliveries(operation.id)) == 1
    await kept.queue.end(due[0], replace(ended_with(due[0], "."), answer=None))
    await kept.queue.close(due[0])
    task = await kept.queue.row(operation.task_id) if hasattr(kept.queue, "row") else None
    assert task is None or task.has_ended


async def test_a_cancelled_operation_has_a_follow_up_and_a_cancelled_turn_takes_only_its_own_along(kept: Kept) -> None:
    claim = await turn(kept)
    mine = await pending(kept, claim=claim)
    others = await pending(kept)
    await kept.queue.end(claim, replace(ended_with(claim, "."), status="cancelled"))
    assert ((await now(kept, mine)).status, (await now(kept, others)).status) == ("cancelled", "pending")


# --- lists ------------------------------------------------------------------------------------------------------------


async def test_operations_are_listed_newest_first_by_what_is_asked(kept: Kept) -> None:
    ann = await turn(kept, owner="ann")
    first = await pending(kept, claim=ann)
    late = await pending(kept, replace(RENDER, call_id="c2", deadline_seconds=-1), ann)
    question = await pending(kept, NewOperation("c1", "ask", "person", {"question": "?"}, None))
    await kept.operations.complete(said(first))

    async def ids(reach: Own | None = None, **wanted: object) -> list[OperationId]:
        found = await kept.operations.newest(reach or EVERYONES, OperationFilter(**wanted), 10, None)  # type: ignore[arg-type]
        return [each.id for each in found]

    assert await ids() == [question.id, late.id, first.id]
    assert await ids(Own(OwnerId("ann"))) == [late.id, first.id]
    assert await ids(Own(None)) == [question.id]
    assert await ids(status="pending") == [question.id, late.id]
    assert await ids(executor="person") == [question.id]
    assert await ids(tool="render") == [late.id, first.id]
    assert await ids(session_id=ann.task.session_id) == [late.id, first.id]
    assert await ids(is_stuck=True) == [late.id]
    assert await kept.operations.overdue(10) == [(late.id, "remote")]
    newest = await kept.operations.newest(EVERYONES, EVERY_OPERATION, 1, None)
    assert [each.id for each in await kept.operations.newest(EVERYONES, EVERY_OPERATION, 1, newest[0].number)] == [
        late.id
    ]
    assert await kept.operations.read(Own(OwnerId("bob")), first.id) is None


NULLS: list[Json] = [{}, "", None, 0, False]


@pytest.mark.parametrize("result", NULLS, ids=repr)
async def test_pitfall_36_a_result_is_kept_as_it_came(kept: Kept, result: Json) -> None:
    operation = await pending(kept)
    await kept.operations.complete(said(operation, Succeeded(result)))
    outcome = (await now(kept, operation)).outcome
    assert isinstance(outcome, Succeeded)
    assert outcome.result == result
    assert type(outcome.result) is type(result)


# --- background jobs --------------------------------------------------------------------------------------------------

BUILD = NewOperation("c1", "start_job", "job", {"command": "make"}, 3600)


async def claimed(kept: Kept, lease_seconds: float = LEASE) -> Claim:
    """The one task that waits and is due."""
    (claim,) = [each for each in await kept.queue.claim(10, lease_seconds) if each.task.status == "waiting"]
    return claim


async def test_a_job_is_begun_by_its_first_holder_alone_however_often_it_says_so(kept: Kept) -> None:
    operation = await pending(kept, BUILD)
    assert operation.begun_by is None
    first = await claimed(kept, LAPSED)
    assert await kept.operations.begin_job(first)
    assert await kept.operations.begin_job(first)
    assert (await now(kept, operation)).begun_by == first.epoch
    second = await claimed(kept)  # though nobody has reported anything
    assert not await kept.operations.begin_job(second)
    assert (await now(kept, operation)).begun_by == first.epoch
    with pytest.raises(TakenOver):
        await kept.operations.begin_job(first)


async def test_a_job_that_has_ended_is_not_begun(kept: Kept) -> None:
    operation = await pending(kept, BUILD)
    holder = await claimed(kept)
    await kept.operations.complete(said(operation, Cancelled("killed"), follow_up=False))
    with pytest.raises(TakenOver):
        await kept.operations.begin_job(holder)
    ending = await claimed(kept)
    with pytest.raises(TakenOver):
        await kept.operations.begin_job(ending)
    assert (await now(kept, operation)).begun_by is None


async def test_who_works_on_a_job_is_followed_by_another_when_the_lease_lapses(kept: Kept) -> None:
    operation = await pending(kept, BUILD)
    holder = await claimed(kept)
    await kept.operations.begin_job(holder)
    await kept.operations.report(Progress(operation.id, {"output": "so far"}, BY))
    assert [each for each in await kept.queue.claim(10, LEASE) if each.task.status == "waiting"] == []
    assert await kept.queue.renew([holder], 0) != []
    assert (await claimed(kept)).epoch > holder.epoch


async def test_another_look_may_be_wanted_after_some_time(kept: Kept) -> None:
    await pending(kept, BUILD)
    holder = await claimed(kept)
    await kept.operations.told(holder, Told(0, again_seconds=3600))
    assert [each for each in await kept.queue.claim(10, LEASE) if each.task.status == "waiting"] == []
    await kept.operations.told(holder, Told(0, again_seconds=0))
    holder = await claimed(kept)
    await kept.operations.told(holder, Told(0))
    assert [each for each in await kept.queue.claim(10, LEASE) if each.task.status == "waiting"] == []


async def test_a_job_that_begins_as_it_ends_is_one_or_the_other(dsn: str) -> None:
    """Over databases: whoever comes second sees what the first one did, and neither is given up for the other."""
    async with AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(postgres_pool(dsn)) for _ in range(2)]
        kept = InPostgres(Database(pools[0]))
        other = PostgresOperations(Database(pools[1]))
        for _ in range(20):
            operation = await pending(kept, BUILD)
            holder = await claimed(kept)
            began, became = await asyncio.gather(
                kept.operations.begin_job(holder), other.complete(said(operation)), return_exceptions=True
            )
            assert isinstance(became, Accepted)
            assert began is True or isinstance(began, TakenOver)
            assert ((await now(kept, operation)).begun_by == holder.epoch) == (began is True)
