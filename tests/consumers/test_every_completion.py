"""What becomes of every completion, whenever it comes, over either door and over both at once: one table."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio

from consumers.completions import PARK_SECONDS
from service.adapters.memory_database import shown_of
from service.adapters.postgres import postgres_pool
from service.model.caller import EVERYONES
from service.model.completion import MAX_COMPLETION_BYTES, MAX_COMPLETION_VALUES
from service.model.events import Json
from service.model.operation import Delivery, Operation, plain_outcome
from service.model.task import Claim
from service.operations.gathering import Gathering
from service.settings import Settings
from service.wiring import StoreUrls, make_operations
from tests.adapters.rabbits import SOON, rabbit_at
from tests.consumers.both_doors import RENDER, BothDoors, Message
from tests.consumers.ledger import door, new_id
from tests.http.conftest import running, settings_for
from tests.http.memory import opened
from tests.http.test_operations import Service, postgres_service

pytestmark = pytest.mark.asyncio(loop_scope="module")

# --- what is said -----------------------------------------------------------------------------------------------------


def done(result: Json, name: str = "end") -> Message:
    return Message(name, {"success": True, "result": result})


DONE = done({"frames": 3, "url": "u"})
OTHER = done({"frames": 4, "url": "u"}, "another")
SHUFFLED = [
    Message("end", {"result": {"url": "u", "frames": 3}, "success": True}),
    Message("end", {"task_id": "TASK", "success": True, "result": {"frames": 3, "url": "u"}}),
    Message("end", {"success": True, "result": {"url": "u", "frames": 3}, "task_id": "TASK"}),
]
NOBODYS = Message("nobodys", {"operation_id": new_id(), "success": True, "task_id": "TASK"})
CUT = Message("cut", {"success": True}, is_cut=True)
UNCLEAR = Message("unclear", {"success": "yes"})
WRONG = Message("wrong", {"success": True, "task_id": "TURN"})
LARGEST = Message("largest", {"success": True}, size=MAX_COMPLETION_BYTES)
MANY = done([0] * MAX_COMPLETION_VALUES, "many")
LARGER = Message("larger", {"success": True}, size=MAX_COMPLETION_BYTES + 1)

# --- the table --------------------------------------------------------------------------------------------------------

EARLY, LATE, CANCELLED = "before its registration", "after its deadline", "after its cancellation"
UNKNOWN = "of no operation"


@dataclass(frozen=True, slots=True)
class Row:
    """What is said, each of it over each door; and what becomes of all that together."""

    what: str
    says: Sequence[Message]
    over_one: str
    over_both: str
    if_deleted: str
    """What becomes of each where the session is deleted by then: and there is no follow-up."""
    follow_ups: int

    def became(self, doors: int, *, is_deleted: bool) -> Counter[str]:
        """How many become what."""
        if is_deleted:
            return Counter({self.if_deleted: len(self.says) * doors})
        numbered = [each.rpartition(" ") for each in (self.over_one, self.over_both)[doors - 1].split(", ")]
        return Counter({word: int(number or 1) for number, _, word in numbered})


TABLE = [
    #   what is said             in words       over one door            over both at once        if deleted     follows
    Row("in time",               [DONE],        "accepted",              "accepted, duplicate",   "conflicting", 1),
    Row(EARLY,                   [DONE],        "accepted",              "accepted, duplicate",   "conflicting", 1),
    Row("twice",                 [DONE, DONE],  "accepted, duplicate",   "accepted, 3 duplicate", "conflicting", 1),
    Row("three times, shuffled", SHUFFLED,      "accepted, 2 duplicate", "accepted, 5 duplicate", "conflicting", 1),
    Row("one and another",       [DONE, OTHER], "accepted, conflicting", "accepted, duplicate, 2 conflicting",
                                                                                                  "conflicting", 1),
    Row(LATE,                    [DONE],        "conflicting",           "2 conflicting",         "conflicting", 1),
    Row(CANCELLED,               [DONE],        "conflicting",           "2 conflicting",         "conflicting", 1),
    Row(UNKNOWN,                 [NOBODYS],     "unknown",               "2 unknown",             "unknown",     0),
    Row("no JSON",               [CUT],         "unreadable",            "2 unreadable",          "unreadable",  0),
    Row("no completion",         [UNCLEAR],     "unreadable",            "2 unreadable",          "unreadable",  0),
    Row("too many values",       [MANY],        "unreadable",            "2 unreadable",          "unreadable",  0),
    Row("of another task",       [WRONG],       "refused",               "2 refused",             "refused",     0),
    Row("{}",                    [done({})],    "accepted",              "accepted, duplicate",   "conflicting", 1),
    Row('""',                    [done("")],    "accepted",              "accepted, duplicate",   "conflicting", 1),
    Row("null",                  [done(None)],  "accepted",              "accepted, duplicate",   "conflicting", 1),
    Row("0",                     [done(0)],     "accepted",              "accepted, duplicate",   "conflicting", 1),
    Row("false",                 [done(False)], "accepted",              "accepted, duplicate",   "conflicting", 1),
    Row("the largest",           [LARGEST],     "accepted",              "accepted, duplicate",   "conflicting", 1),
    Row("one byte more",         [LARGER],      "too_large",             "2 too_large",           "too_large",   0),
]  # fmt: skip

KEPT = {"accepted", "duplicate", "conflicting"}
"""What is kept with its operation. All else changes nothing."""

# --- the doors --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["memory", "postgres"])
def stored_in(request: pytest.FixtureRequest) -> Settings | None:
    """Where the stores are; None: in memory."""
    if request.param == "memory":
        return None
    stores: StoreUrls = request.getfixturevalue("stores")
    return settings_for(stores.redis, request.getfixturevalue("dsn"), api_keys="on")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def doors(stored_in: Settings | None, amqp_url: str) -> AsyncIterator[BothDoors]:
    async with AsyncExitStack() as stack:
        if stored_in is None:
            in_memory = await stack.enter_async_context(opened(api_keys="on"))
            service, pool = Service(in_memory.url, in_memory.house), None
        else:
            service = await postgres_service(stack, stored_in)
            pool = await stack.enter_async_context(postgres_pool(stored_in.postgres_url))
        rabbit = await stack.enter_async_context(rabbit_at(amqp_url))
        intake = rabbit.intake(patience=replace(SOON, call=10.0))
        consumer = await stack.enter_async_context(door(intake, Gathering(make_operations(service.house))))
        yield BothDoors(service, pool, rabbit, consumer, await service.key("complete", owner=None))


async def begun(doors: BothDoors, claim: Claim, what: str, *, is_deleted: bool) -> Operation:
    """An operation of this turn, at this moment of its life."""
    house = doors.service.house
    operations, new = make_operations(house), replace(RENDER, deadline_seconds=-1) if what == LATE else RENDER
    operation = (await house.desk.begin(claim, new)).operation
    if what == LATE:
        await operations.end_overdue(100)
    if what == CANCELLED:
        await operations.cancel(EVERYONES, operation.id, Delivery("http", "ann"))
    if is_deleted:
        await house.sessions.delete(EVERYONES, operation.session_id)
    return await doors.now(operation)


async def sent(doors: BothDoors, row: Row, operation: Operation, over: Sequence[str]) -> list[str]:
    """All of it at once, in whatever order; answers what became of what was posted."""
    ways = {"webhook": doors.post, "broker": doors.publish}
    told: list[Any] = [ways[each](message, operation) for message in row.says for each in over]
    random.Random(row.what).shuffle(told)
    return [word for word in await asyncio.gather(*told) if word is not None]


def as_json(value: Json) -> str:
    """In which 0 is not False."""
    return json.dumps(value, sort_keys=True)


# --- what becomes of it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("session", ["idle", "in a turn", "deleted"])
@pytest.mark.parametrize("over", ["broker", "webhook", "broker webhook"])
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.what)
async def test_what_becomes_of_it(doors: BothDoors, row: Row, over: str, session: str) -> None:
    house, both, is_deleted = doors.service.house, over.split(), session == "deleted"
    claim = await running(house, "ann")
    if row.what == EARLY:
        async with doors.unseen(claim, is_deleted=is_deleted) as operation:
            assert set(await sent(doors, row, operation, both)) <= {"unknown"}
            if "broker" in both:
                await doors.parked()
        before = await doors.now(operation)
        if session == "idle":
            await doors.end(claim)
        posted = await sent(doors, row, operation, [each for each in both if each == "webhook"])
    else:
        before = operation = await begun(doors, claim, row.what, is_deleted=is_deleted)
        if session == "idle":
            await doors.end(claim)
        posted = await sent(doors, row, operation, both)
        if row.what == UNKNOWN and "broker" in both:
            await doors.parked()
            doors.consumer.clock.at += PARK_SECONDS
    became = Counter(posted + await doors.settled(len(row.says) if "broker" in both else 0))
    assert became == row.became(len(both), is_deleted=is_deleted)

    after = await doors.now(operation)
    if became["accepted"]:
        results = [as_json({"result": json.loads(message.body(operation))["result"]}) for message in row.says]
        assert after.outcome is not None
        assert as_json(plain_outcome(after.outcome)) in results
    else:
        assert (after.status, after.outcome) == (before.status, before.outcome)
    inbox = await house.operations.deliveries(operation.id)
    names = {message.name for message in row.says}
    assert sum(each.times for each in inbox if each.delivery.id in names) == sum(became[word] for word in KEPT)
    assert sum(each.times for each in inbox) == after.deliveries
    assert [each.outcome for each in inbox if each.disposition == "accepted"] == [
        shown_of(plain_outcome(outcome))[0] for outcome in [after.outcome] if outcome is not None
    ]

    if session == "in a turn":
        assert not [each for each in await doors.due(operation.session_id) if each.task.status == "running"]
    if session != "idle":
        await doors.end(claim)
    assert await doors.follow_ups(operation.session_id) == (0 if is_deleted else row.follow_ups)
