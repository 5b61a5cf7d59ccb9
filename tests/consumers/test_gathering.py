"""Completions that come at once, taken together; and what one of them does to the others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from service.adapters.memory_database import MemoryDatabase
from service.adapters.memory_doorbell import MemoryDoorbell
from service.adapters.memory_messages import MemoryMessages
from service.adapters.memory_operations import MemoryOperations
from service.adapters.memory_sessions import MemorySessions
from service.adapters.memory_tasks import MemoryTasks
from service.model.caller import EVERYONES
from service.model.errors import DatabaseUnavailable
from service.model.events import TextPart
from service.model.operation import (
    Accepted,
    Completion,
    Delivery,
    Disposition,
    Duplicate,
    NewOperation,
    Noted,
    Operation,
    Progress,
    Succeeded,
)
from service.model.session import NewMessage
from service.operations.gathering import AT_ONCE, MAX_GATHERED, Gathering
from service.operations.operations import Operations

BY = Delivery("amqp", "render")


class Mistake(Exception):
    """Of ours."""


@dataclass
class Inbox(MemoryOperations):
    """Holds what is stored together until it is let go; refuses what it is told to."""

    database: MemoryDatabase
    together: list[int] = field(default_factory=list)
    """How many each transaction had."""
    began: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    poison: Operation | None = None
    is_away: bool = False

    def __post_init__(self) -> None:
        super().__init__(self.database)

    async def complete(self, completion: Completion) -> Disposition:
        if self.is_away:
            raise DatabaseUnavailable
        if self.poison is not None and completion.operation_id == self.poison.id:
            raise Mistake
        return await super().complete(completion)

    async def complete_all(self, completions: Sequence[Completion]) -> Sequence[Disposition | None]:
        self.together.append(len(completions))
        self.began.release()
        await self.let_go.wait()
        return await super().complete_all(completions)


@dataclass
class Place:
    inbox: Inbox
    doorbell: MemoryDoorbell
    gathering: Gathering
    operations: list[Operation]

    async def busy(self) -> list[asyncio.Task[Disposition | Noted]]:
        """As many transactions are under way as may be, of the first operations."""
        taking = []
        for operation in self.operations[:AT_ONCE]:
            taking.append(self.take(operation))
            async with asyncio.timeout(5):
                await self.inbox.began.acquire()
        return taking

    def take(self, operation: Operation) -> asyncio.Task[Disposition | Noted]:
        return asyncio.create_task(self.gathering.take(Completion(operation.id, Succeeded(1), BY)))


@pytest_asyncio.fixture
async def place() -> AsyncIterator[Place]:
    database, doorbell = MemoryDatabase(), MemoryDoorbell()
    inbox = Inbox(database)
    session = await MemorySessions(database).create(None)
    await MemoryMessages(database).post(EVERYONES, session.id, NewMessage((TextPart("Hi"),)))
    (claim,) = await MemoryTasks(database).claim(1, 60)
    begun = [
        (await inbox.begin(claim, NewOperation(f"c{n}", "render", "remote", {}, None))).operation for n in range(200)
    ]
    gathering = Gathering(Operations(inbox, inbox, doorbell))
    yield Place(inbox, doorbell, gathering, begun)
    await gathering.close()


async def test_what_comes_while_transactions_are_under_way_is_the_next_ones(place: Place) -> None:
    first = await place.busy()
    rest = [place.take(each) for each in place.operations[AT_ONCE:]]
    await asyncio.sleep(0)  # they have come, and nothing is stored of them
    assert place.inbox.together == [1] * AT_ONCE
    place.inbox.let_go.set()
    became = await asyncio.gather(*first, *rest)
    assert [each.receipt.operation_id for each in became if isinstance(each, Accepted)] == [
        each.id for each in place.operations
    ]
    assert sum(place.inbox.together) == len(place.operations)
    assert max(place.inbox.together) == MAX_GATHERED
    assert len(place.inbox.together) <= AT_ONCE + 4


async def test_what_comes_as_the_last_transactions_end_is_taken(place: Place) -> None:
    first = await place.busy()
    place.inbox.let_go.set()
    latest = place.take(place.operations[AT_ONCE])  # comes in the very turn of the loop in which both of them end
    async with asyncio.timeout(5):
        became = await asyncio.gather(*first, latest)
    assert all(isinstance(each, Accepted) for each in became)


async def test_one_that_cannot_be_taken_takes_no_other_along(place: Place) -> None:
    place.inbox.let_go.set()
    place.inbox.poison = place.operations[7]
    became = await asyncio.gather(*map(place.take, place.operations[:50]), return_exceptions=True)
    assert isinstance(became.pop(7), Mistake)
    assert all(isinstance(each, Accepted | Duplicate) for each in became)


async def test_while_the_database_is_away_each_is_told_so(place: Place) -> None:
    place.inbox.let_go.set()
    place.inbox.is_away = True
    became = await asyncio.gather(*map(place.take, place.operations[:10]), return_exceptions=True)
    assert [type(each) for each in became] == [DatabaseUnavailable] * 10
    place.inbox.is_away = False
    assert isinstance(await place.take(place.operations[0]), Accepted)


async def test_who_waits_no_more_is_not_missed(place: Place) -> None:
    first = await place.busy()
    first[0].cancel()
    later = place.take(place.operations[AT_ONCE])
    place.inbox.let_go.set()
    assert isinstance(await later, Accepted)
    with pytest.raises(asyncio.CancelledError):
        await first[0]
    assert isinstance(await place.take(place.operations[0]), Duplicate)  # it was under way


async def test_progress_is_taken_as_ever(place: Place) -> None:
    said = Progress(place.operations[0].id, 0.5, BY)
    assert isinstance(await place.gathering.take(said), Noted)
    assert place.inbox.together == []


async def test_what_is_closed_leaves_nothing_under_way(place: Place) -> None:
    for each in await place.busy():
        each.cancel()
    await place.gathering.close()
    assert [task.get_name() for task in asyncio.all_tasks() if "gathered" in task.get_name()] == []
