"""Whose is what: lists, changes, deletion, and that what is foreign looks like what does not exist."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.adapters.postgres import Database, statements
from service.model.caller import EVERYONES, Own, Reach
from service.model.errors import NotFound, SessionOwned
from service.model.events import TextPart
from service.model.ids import MessageId, OperationId, OwnerId, SessionId, TaskId
from service.model.operation import (
    Accepted,
    Completion,
    Delivery,
    NewOperation,
    Noted,
    Operation,
    OperationFilter,
    Progress,
    Succeeded,
    Unknown,
)
from service.model.session import IdempotencyKey, NewMessage, SessionChange, SessionEntry, SessionSettings
from service.model.task import Ownership, TaskFilter
from tests.contracts.conversations import Kept, Store
from tests.sessions.endings import ended_with

ANN, BOB = OwnerId("ann"), OwnerId("bob")
HI = NewMessage((TextPart("Hi"),))
UNKNOWN_SESSION = SessionId("nobody's")
UNKNOWN_TASK = TaskId("01890000-0000-7000-8000-000000000000")
SET = SessionSettings("Title", "model-1", "Be brief.", 7, 30.5)

FOREIGN: dict[str, tuple[OwnerId | None, Reach]] = {
    "another owner's": (ANN, Own(BOB)),
    "pitfall 51: an owner's, for nobody": (ANN, Own(None)),
    "pitfall 51: nobody's, for an owner": (None, Own(ANN)),
}
REACHED: dict[str, tuple[OwnerId | None, Reach]] = {
    "one's own": (ANN, Own(ANN)),
    "nobody's, for nobody": (None, Own(None)),
    "an owner's, for everyone": (ANN, EVERYONES),
    "nobody's, for everyone": (None, EVERYONES),
}


@pytest.fixture
def store(kept: Kept) -> Store:
    return kept.store


async def refused(call: Awaitable[Any]) -> object:
    """What a caller gets: an answer, or that there is no such thing."""
    try:
        return await call
    except NotFound:
        return NotFound


Call = Callable[[Kept, Reach, SessionId, TaskId], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "read": lambda kept, reach, session, task: kept.store.read(reach, session),
    "read before": lambda kept, reach, session, task: kept.store.read(reach, session, MessageId("m")),
    "change": lambda kept, reach, session, task: kept.store.change(reach, session, SessionChange(SET)),
    "take": lambda kept, reach, session, task: kept.store.change(reach, session, SessionChange(owner=BOB)),
    "delete": lambda kept, reach, session, task: kept.store.delete(reach, session),
    "post": lambda kept, reach, session, task: kept.store.post(reach, session, HI),
    "answer again": lambda kept, reach, session, task: kept.store.answer_again(reach, session, None),
    "current": lambda kept, reach, session, task: kept.store.current(reach, session),
    "read task": lambda kept, reach, session, task: kept.queue.read(reach, task),
    "cancel": lambda kept, reach, session, task: kept.queue.cancel(reach, task),
    "tasks": lambda kept, reach, session, task: kept.queue.of_session(reach, session, 10, 0),
    "list of tasks": lambda kept, reach, session, task: kept.queue.newest(
        reach, TaskFilter(session_id=session), 10, None
    ),
}


@pytest.mark.parametrize(("owner", "reach"), FOREIGN.values(), ids=FOREIGN.keys())
async def test_pitfall_52_what_is_foreign_is_answered_as_what_does_not_exist(
    kept: Kept, store: Store, owner: OwnerId | None, reach: Reach
) -> None:
    session = await store.create(owner)
    posted = await store.post(EVERYONES, session.id, HI)
    before = await kept.everything()
    for name, call in CALLS.items():
        foreign = await refused(call(kept, reach, session.id, posted.task_id))
        assert foreign == await refused(call(kept, reach, UNKNOWN_SESSION, UNKNOWN_TASK)), name
        assert foreign in (None, False, NotFound, []), name
    assert await kept.everything() == before


@pytest.mark.parametrize(("owner", "reach"), REACHED.values(), ids=REACHED.keys())
async def test_what_is_within_reach_is_answered(kept: Kept, store: Store, owner: OwnerId | None, reach: Reach) -> None:
    for name, call in CALLS.items():
        session = await store.create(owner)
        posted = await store.post(reach, session.id, NewMessage((TextPart("Hi"),), MessageId("m")))
        (claim,) = await kept.queue.claim(1, 60)
        if name not in ("current", "cancel"):
            await kept.queue.end(claim, ended_with(claim, "There."))
        if name == "take" and owner is not None:
            with pytest.raises(SessionOwned):
                await call(kept, reach, session.id, posted.task_id)
        else:
            assert await refused(call(kept, reach, session.id, posted.task_id)) not in (None, False, NotFound), name
        for due in await kept.queue.claim(9, 60):
            await kept.queue.end(due, ended_with(due, "."))


async def test_what_is_deleted_is_answered_as_what_does_not_exist(kept: Kept, store: Store) -> None:
    session = await store.create(ANN)
    posted = await store.post(EVERYONES, session.id, HI)
    assert await store.delete(Own(ANN), session.id) == [posted.task_id]
    for name, call in CALLS.items():
        for reach in (EVERYONES, Own(ANN)):
            deleted = await refused(call(kept, reach, session.id, posted.task_id))
            assert deleted == await refused(call(kept, reach, UNKNOWN_SESSION, UNKNOWN_TASK)), name
    assert await kept.queue.ownership(posted.task_id) is None


async def test_a_task_is_its_sessions_owners(kept: Kept, store: Store) -> None:
    anns, nobodys = await store.create(ANN), await store.create(None)
    tasks = [(await store.post(EVERYONES, session.id, HI)).task_id for session in (anns, nobodys)]
    assert [await kept.queue.ownership(task_id) for task_id in tasks] == [Ownership(ANN), Ownership(None)]
    assert await kept.queue.ownership(UNKNOWN_TASK) is None


# --- operations -------------------------------------------------------------------------------------------------------

BY_BOB = Delivery("http", "key b", "name")
OPERATION_CALLS: dict[str, Callable[[Kept, Reach, OperationId, SessionId], Awaitable[Any]]] = {
    "read": lambda kept, reach, operation, session: kept.operations.read(reach, operation),
    "list": lambda kept, reach, operation, session: kept.operations.newest(
        reach, OperationFilter(session_id=session), 10, None
    ),
    "report": lambda kept, reach, operation, session: kept.operations.report(
        Progress(operation, 40, BY_BOB, reach=reach)
    ),
    "report with its task": lambda kept, reach, operation, session: kept.operations.report(
        Progress(operation, 40, BY_BOB, UNKNOWN_TASK, reach)
    ),
    "complete with its task": lambda kept, reach, operation, session: kept.operations.complete(
        Completion(operation, Succeeded(None), BY_BOB, UNKNOWN_TASK, reach)
    ),
    "complete": lambda kept, reach, operation, session: kept.operations.complete(
        Completion(operation, Succeeded(None), BY_BOB, reach=reach)
    ),
}
UNKNOWN_OPERATION = OperationId("01890000-0000-7000-8000-000000000000")


async def operation_of(kept: Kept, owner: OwnerId | None, tool: str = "render") -> Operation:
    """A pending one."""
    session = await kept.store.create(owner)
    await kept.store.post(EVERYONES, session.id, HI)
    (claim,) = await kept.queue.claim(1, 60)
    return (await kept.operations.begin(claim, NewOperation("call", tool, "remote", {}, 3600))).operation


@pytest.mark.parametrize(("owner", "reach"), FOREIGN.values(), ids=FOREIGN.keys())
async def test_pitfall_52_a_foreign_operation_is_answered_as_what_does_not_exist(
    kept: Kept, owner: OwnerId | None, reach: Reach
) -> None:
    operation = await operation_of(kept, owner)
    before = await kept.everything()
    for name, call in OPERATION_CALLS.items():
        foreign = await call(kept, reach, operation.id, operation.session_id)
        assert foreign == await call(kept, reach, UNKNOWN_OPERATION, UNKNOWN_SESSION), name
        assert foreign in (None, [], Unknown()), name
    assert await kept.everything() == before
    assert await kept.operations.read(EVERYONES, operation.id) == operation
    assert await kept.operations.deliveries(operation.id) == []


@pytest.mark.parametrize(("owner", "reach"), REACHED.values(), ids=REACHED.keys())
async def test_an_operation_within_reach_is_answered(kept: Kept, owner: OwnerId | None, reach: Reach) -> None:
    operation = await operation_of(kept, owner)
    for name, call in OPERATION_CALLS.items():
        assert await call(kept, reach, operation.id, operation.session_id) not in (None, [], Unknown()), name
    (kept_one,) = await kept.operations.deliveries(operation.id)
    assert (kept_one.delivery, kept_one.disposition) == (BY_BOB, "accepted")


async def test_pitfall_52_another_tool_s_operation_is_answered_as_what_does_not_exist(kept: Kept) -> None:
    operation = await operation_of(kept, ANN)
    for tool, answer in (("search", Unknown()), ("", Unknown()), ("render", Noted(operation.id))):
        assert await kept.operations.report(Progress(operation.id, 1, BY_BOB, tool=tool)) == answer
    assert await kept.operations.complete(Completion(operation.id, Succeeded(1), BY_BOB, tool="search")) == Unknown()
    assert isinstance(
        await kept.operations.complete(Completion(operation.id, Succeeded(1), BY_BOB, tool="render")), Accepted
    )


async def test_an_operation_goes_with_its_session_to_its_owner(kept: Kept, store: Store) -> None:
    operation = await operation_of(kept, None)
    assert await kept.operations.read(Own(ANN), operation.id) is None
    assert await store.change(Own(None), operation.session_id, SessionChange(owner=ANN))
    assert await kept.operations.complete(Completion(operation.id, Succeeded(1), BY_BOB, reach=Own(None))) == Unknown()
    given = await kept.operations.read(Own(ANN), operation.id)
    assert given is not None
    assert given.owner == ANN
    assert [each.id for each in await kept.operations.newest(Own(ANN), OperationFilter(), 10, None)] == [operation.id]
    done = await kept.operations.complete(Completion(operation.id, Succeeded(1), BY_BOB, reach=Own(ANN)))
    assert isinstance(done, Accepted)


# --- settings and owners ----------------------------------------------------------------------------------------------


async def entry_of(store: Store, session: SessionEntry) -> SessionEntry:
    now = await store.read(EVERYONES, session.id)
    assert now is not None
    return now.entry


async def test_settings_are_kept_changed_and_unset(store: Store) -> None:
    session = await store.create(ANN, SET)
    assert (session.owner, session.settings) == (ANN, SET)
    change = SessionChange(SessionSettings(title="Other"), frozenset({"model", "max_seconds"}))
    assert await store.change(Own(ANN), session.id, change)
    changed = (await entry_of(store, session)).settings
    assert changed == SessionSettings("Other", None, "Be brief.", 7, None)
    assert (await store.history(session.id)).settings == changed


async def test_a_session_gets_its_owner_once_and_its_tasks_with_it(kept: Kept, store: Store) -> None:
    session = await store.create(None)
    posted = await store.post(Own(None), session.id, HI)
    assert await store.change(Own(None), session.id, SessionChange(owner=ANN))
    assert (await entry_of(store, session)).owner == ANN
    assert await kept.queue.ownership(posted.task_id) == Ownership(ANN)
    assert [task.id for task in await kept.queue.newest(Own(ANN), TaskFilter(), 10, None)] == [posted.task_id]
    before = await kept.everything()
    for owner in (ANN, BOB):
        with pytest.raises(SessionOwned):
            await store.change(EVERYONES, session.id, SessionChange(SET, owner=owner))
    assert not await store.change(Own(None), session.id, SessionChange(owner=BOB))
    assert await kept.everything() == before


async def test_a_session_that_was_given_away_is_not_shown_to_who_repeats_its_creation(store: Store) -> None:
    key = IdempotencyKey("k", b"b")
    session = await store.create(None, key=key)
    assert await store.change(Own(None), session.id, SessionChange(SET, owner=ANN))
    with pytest.raises(NotFound):
        await store.create(None, key=key)


@pytest.mark.parametrize("is_taken", [True, False], ids=["taken", "free"])
async def test_a_chat_that_is_given_away_keeps_its_name_where_that_is_free(store: Store, is_taken: bool) -> None:
    anns = await store.open(ANN, "chat") if is_taken else None
    given = await store.open(None, "chat")
    assert await store.change(Own(None), given, SessionChange(owner=ANN))
    assert await store.find(ANN, "chat") == (anns or given)
    assert await store.find(ANN, given) == given
    assert await store.find(None, "chat") is None


# --- lists ------------------------------------------------------------------------------------------------------------


async def test_sessions_are_listed_newest_first_in_pages(store: Store) -> None:
    made = [(await store.create(owner)).id for owner in (ANN, BOB, ANN, None, ANN, BOB)]
    await store.delete(EVERYONES, made.pop())
    wanted = {Own(ANN): [made[4], made[2], made[0]], Own(BOB): [made[1]], Own(None): [made[3]], EVERYONES: made[::-1]}
    for reach, ids in wanted.items():
        seen: list[SessionId] = []
        before = None
        while page := await store.newest(reach, 2, before):
            seen += [entry.id for entry in page]
            before = page[-1].number
        assert seen == ids


async def test_tasks_are_listed_by_what_is_asked(kept: Kept, store: Store) -> None:
    sessions = [await store.create(owner) for owner in (ANN, BOB, ANN, None)]
    posted = [(await store.post(EVERYONES, session.id, HI)).task_id for session in sessions]
    (claim,) = await kept.queue.claim(1, 60)
    wanted = {
        (EVERYONES, TaskFilter()): posted[::-1],
        (Own(ANN), TaskFilter()): [posted[2], posted[0]],
        (Own(None), TaskFilter()): [posted[3]],
        (Own(BOB), TaskFilter(owner=ANN)): [],
        (Own(None), TaskFilter(owner=ANN)): [],
        (EVERYONES, TaskFilter(owner=ANN)): [posted[2], posted[0]],
        (EVERYONES, TaskFilter(status="running")): [claim.task.id],
        (EVERYONES, TaskFilter("queued", "turn", sessions[2].id, ANN)): [posted[2]],
        (Own(ANN), TaskFilter("queued")): [posted[2]],
        (Own(ANN), TaskFilter(session_id=sessions[1].id)): [],
    }
    for (reach, asked), ids in wanted.items():
        seen: list[TaskId] = []
        before = None
        while page := await kept.queue.newest(reach, asked, 1, before):
            seen += [task.id for task in page]
            before = page[-1].number
        assert seen == ids, (reach, asked)


async def test_pitfall_52_another_owners_tasks_are_not_even_looked_at(store: Store, database: Database) -> None:
    """How long an answer takes would say how many there are."""
    for _ in range(20):
        await store.post(EVERYONES, (await store.create(BOB)).id, HI)
    looked = "EXPLAIN (ANALYZE, FORMAT JSON) " + statements("tasks")["newest_of_owner"]
    async with database.connection() as connection:
        await connection.execute("SET enable_seqscan = off")
        (plan,) = await connection.fetchval(looked, 10, None, False, ANN, None, None, None, BOB)
        await connection.execute("RESET enable_seqscan")
    assert _rows_read(plan["Plan"], "tasks") == 0


def _rows_read(plan: dict[str, Any], table: str) -> int:
    here = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) if plan.get("Relation Name") == table else 0
    return here + sum(_rows_read(each, table) for each in plan.get("Plans", []))


async def test_a_sessions_tasks_come_in_their_order(kept: Kept, store: Store) -> None:
    session, other = await store.create(None), await store.create(None)
    made = []
    for _ in range(3):
        made.append((await store.post(EVERYONES, session.id, HI)).task_id)
        await store.post(EVERYONES, other.id, HI)
        for claim in await kept.queue.claim(9, 60):
            await kept.queue.end(claim, ended_with(claim, "."))
    seen, after = [], 0
    while page := await kept.queue.of_session(EVERYONES, session.id, 2, after):
        seen += [task.id for task in page]
        after = page[-1].number
    assert seen == made
    assert page == []  # of a session that is there


# --- deletion ---------------------------------------------------------------------------------------------------------


async def test_a_deleted_session_has_its_open_tasks_cancelled_and_its_mailbox_emptied(kept: Kept, store: Store) -> None:
    session = await store.create(None)
    await store.post(EVERYONES, session.id, HI)
    (claim,) = await kept.queue.claim(1, 60)
    await store.post(EVERYONES, session.id, HI)
    assert await store.delete(EVERYONES, session.id) == [claim.task.id]
    (held,) = await kept.queue.renew([claim], 60)
    assert held.cancel_requested
    assert not (await kept.queue.end(claim, ended_with(claim, "."))).next_is_due
    assert await store.delete(EVERYONES, session.id) is None


async def test_a_deleted_session_goes_when_its_logs_are_closed(kept: Kept, store: Store) -> None:
    kept_session, session = await store.create(None), await store.create(None)
    await store.post(EVERYONES, session.id, HI)
    (claim,) = await kept.queue.claim(1, 60)
    assert await store.due(10, 0) == []
    await store.delete(EVERYONES, session.id)
    assert await store.due(10, 0) == []
    await store.remove(session.id)  # which is too early
    await kept.queue.end(claim, ended_with(claim, "."))
    assert await store.due(10, 0) == []
    await kept.queue.close(claim)
    assert await store.due(10, 3600) == []
    assert await store.due(10, 0) == [(session.id, [claim.task.id])]
    for _ in range(2):
        await store.remove(session.id)
    assert await store.due(10, 0) == []
    assert await kept.counts() == {"sessions": 1, "tasks": 0, "leases": 0, "messages": 0, "pending_messages": 0}
    assert await store.read(EVERYONES, kept_session.id) is not None


async def test_what_is_archived_of_a_deleted_session_goes_too(kept: Kept, store: Store, database: Database) -> None:
    session, other = await store.create(None), await store.create(None)
    for each in (session, other):
        await store.post(EVERYONES, each.id, HI)
    claims = await kept.queue.claim(2, 60)
    for claim in claims:
        await kept.queue.end(claim, ended_with(claim, "."))
        await kept.queue.close(claim)
        await database.fetch("SELECT playhead_log_partition($1)", claim.task.id)
        await database.fetch("INSERT INTO log_events (task_id, n, ms, data) VALUES ($1, 1, 1, '')", claim.task.id)
        archived = "INSERT INTO log_archives (task_id, events, last_n, last_ms, sha256) VALUES ($1, 1, 1, 1, $2)"
        await database.fetch(archived, claim.task.id, bytes(32))
    await store.delete(EVERYONES, session.id)
    await store.remove(session.id)
    left = [claim.task.id for claim in claims if claim.task.session_id == other.id]
    for table in ("log_events", "log_archives"):
        assert [row["id"] for row in await database.fetch(f"SELECT task_id::text AS id FROM {table}")] == left


async def test_old_keys_are_forgotten(kept: Kept, store: Store, database: Database) -> None:
    session = await store.create(None)
    old, young = (IdempotencyKey(name, b"") for name in ("old", "young"))
    first = [await store.post(EVERYONES, session.id, HI, each) for each in (old, young)]
    await database.fetch("UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = 'old'")
    again = [await store.post(EVERYONES, session.id, HI, each) for each in (old, young)]
    assert again[1] == first[1]
    assert again[0].message_id != first[0].message_id
    await database.fetch("UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = 'old'")
    assert await store.forget_keys(1)  # there may be more
    assert not await store.forget_keys(1)
    assert [row["key"] for row in await database.fetch("SELECT key FROM idempotency_keys")] == ["young"]
