"""What the database knows is asked for once, however many readers want it."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from service.model.errors import DatabaseUnavailable
from service.model.ids import TaskId
from service.model.log import TaskFacts
from service.registry.facts import SharedFacts
from tests.contracts.logs import new_task

OPEN, CLOSED = TaskFacts(log_closed=False), TaskFacts(log_closed=True)


@dataclass
class Database:
    """A directory that answers when it is told to."""

    known: dict[TaskId, TaskFacts] = field(default_factory=dict)
    asked: Counter[TaskId] = field(default_factory=Counter)
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    is_away: bool = False

    async def facts(self, task_id: TaskId) -> TaskFacts | None:
        self.asked[task_id] += 1
        known = self.known.get(task_id)
        await self.answers.wait()
        if self.is_away:
            raise DatabaseUnavailable
        return known


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def known(database: Database) -> SharedFacts:
    return SharedFacts(database)


async def crowd(known: SharedFacts, task_id: TaskId, size: int) -> list[asyncio.Task[TaskFacts | None]]:
    asking = [asyncio.create_task(known.facts(task_id)) for _ in range(size)]
    await asyncio.sleep(0)
    return asking


async def test_pitfall_18_a_crowd_asks_once(database: Database, known: SharedFacts) -> None:
    task_id = new_task()
    database.known[task_id] = CLOSED
    asking = await crowd(known, task_id, 1000)
    database.answers.set()
    assert await asyncio.gather(*asking) == [CLOSED] * 1000
    assert database.asked[task_id] == 1


async def test_an_answer_is_not_kept(database: Database, known: SharedFacts) -> None:
    """A log that is open now may be closed, and gone, in a moment; a task that is not known may be made."""
    task_id = new_task()
    database.answers.set()
    said = []
    for facts in (None, OPEN, CLOSED):
        if facts is not None:
            database.known[task_id] = facts
        said.append(await known.facts(task_id))
    assert said == [None, OPEN, CLOSED]


async def test_whoever_asked_for_the_others_may_leave(database: Database, known: SharedFacts) -> None:
    task_id = new_task()
    database.known[task_id] = OPEN
    asking = await crowd(known, task_id, 3)
    asking[0].cancel()
    await asyncio.wait(asking[:1])
    database.answers.set()
    assert await asyncio.gather(*asking[1:]) == [OPEN, OPEN]
    assert database.asked[task_id] == 2


async def test_whoever_waits_for_another_may_leave(database: Database, known: SharedFacts) -> None:
    task_id = new_task()
    database.known[task_id] = OPEN
    asking = await crowd(known, task_id, 3)
    asking[1].cancel()
    await asyncio.wait(asking[1:2])
    database.answers.set()
    assert [await asking[0], await asking[2]] == [OPEN, OPEN]
    assert database.asked[task_id] == 1


async def test_a_database_that_is_away_is_away_for_all_who_ask_and_is_asked_again(
    database: Database, known: SharedFacts
) -> None:
    task_id = new_task()
    database.known[task_id], database.is_away = OPEN, True
    asking = await crowd(known, task_id, 3)
    database.answers.set()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailable] * 3
    database.is_away = False
    assert await known.facts(task_id) == OPEN
    assert database.asked[task_id] == 2
