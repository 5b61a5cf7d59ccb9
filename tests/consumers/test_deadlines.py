"""The consumer of deadlines: what is overdue ends by the one path, whoever else ends it at the same moment."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from consumers.deadlines import Deadlines
from service.adapters.memory_doorbell import MemoryDoorbell
from service.model.caller import EVERYONES
from service.model.errors import DatabaseUnavailable
from service.model.ids import OperationId
from service.model.operation import (
    Accepted,
    Completion,
    Delivery,
    Executor,
    Failed,
    NewOperation,
    Operation,
    Outcome,
    Succeeded,
)
from service.model.task import Claim
from service.operations.operations import Operations
from service.operations.ports import OperationInbox
from tests.agent.house import MemoryHouse, until

BY = Delivery("amqp", "render")


@dataclass
class Place:
    """Operations in memory."""

    house: MemoryHouse
    claim: Claim

    def __post_init__(self) -> None:
        self.operations = Operations(self.house.inbox, self.house.operations, MemoryDoorbell())

    async def begin(self, call_id: str, new: NewOperation) -> Operation:
        return (await self.house.desk.begin(self.claim, new)).operation

    async def outcome(self, operation: Operation) -> Outcome | None:
        return (await self.operations.read(EVERYONES, operation.id)).outcome


@pytest.fixture
async def place() -> Place:
    house = MemoryHouse()
    await house.post("Hi")
    return Place(house, await house.claim())


async def test_what_is_overdue_has_failed_and_a_timer_has_come(place: Place) -> None:
    late = await place.begin("c1", NewOperation("c1", "render", "remote", {}, -1))
    timer = await place.begin("c2", NewOperation("c2", "timer", "timer", {}, -1))
    early = await place.begin("c3", NewOperation("c3", "render", "remote", {}, 3600))
    asked = await place.begin("c4", NewOperation("c4", "ask", "person", {}, None))
    assert await place.operations.end_overdue(10) == 2
    outcome = await place.outcome(late)
    assert isinstance(outcome, Failed)
    assert outcome.error_type == "timeout"
    assert await place.outcome(timer) == Succeeded(None)
    assert (await place.outcome(early), await place.outcome(asked)) == (None, None)
    assert (await place.operations.read(EVERYONES, late.id)).has_follow_up
    assert await place.operations.end_overdue(10) == 0


async def test_whoever_was_faster_has_ended_it(place: Place) -> None:
    late = await place.begin("c1", NewOperation("c1", "render", "remote", {}, -1))
    assert isinstance(await place.operations.take(Completion(late.id, Succeeded(1), BY)), Accepted)
    assert await place.operations.end_overdue(10) == 0
    assert await place.outcome(late) == Succeeded(1)


class Away:
    """A port whose database is away for the first two looks for what is overdue."""

    def __init__(self, inbox: OperationInbox) -> None:
        self.complete, self.report, self._overdue = inbox.complete, inbox.report, inbox.overdue
        self._looks = 0

    async def overdue(self, limit: int) -> Sequence[tuple[OperationId, Executor]]:
        self._looks += 1
        if self._looks <= 2:
            raise DatabaseUnavailable
        return await self._overdue(limit)


async def test_the_consumer_waits_for_its_database_and_stops_when_it_is_told(
    place: Place,
) -> None:
    late = await place.begin("c1", NewOperation("c1", "render", "remote", {}, -1))
    operations = Operations(Away(place.house.inbox), place.house.operations, MemoryDoorbell())
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(Deadlines(operations, poll_seconds=0.001).run(stop))
        await until(
            place.house.all_operations,
            lambda found: found[0].outcome is not None,
        )
        stop.set()
        await running
    assert isinstance(await place.outcome(late), Failed)
