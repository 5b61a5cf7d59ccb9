"""What the database knows is asked for once, however many readers want it."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from service.model.errors import DatabaseUnavailable
from service.model.ids import TaskId
from service.model.log import TaskFacts
from service.registry import facts
from service.registry.facts import KNOWN_SECONDS, KnownFacts
from tests.contracts.logs import new_task

OPEN, CLOSED = TaskFacts(log_closed=False), TaskFacts(log_closed=True)


@dataclass
class Database:
    """A directory that answers when it is told to, and a clock that stands still."""

    known: dict[TaskId, TaskFacts] = field(default_factory=dict)
    asked: Counter[TaskId] = field(default_factory=Counter)
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    is_away: bool = False
    now: float = 1000.0

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
def known(database: Database) -> KnownFacts:
    return KnownFacts(database, lambda: database.now)


async def crowd(known: KnownFacts, task_id: TaskId, size: int) -> list[asyncio.Task[TaskFacts | None]]:
    asking = [asyncio.create_task(known.facts(task_id)) for _ in range(size)]
    await asyncio.sleep(0)
    return asking


async def test_pitfall_18_a_crowd_asks_once(database: Database, known: KnownFacts) -> None:
    task_id = new_task()
    database.known[task_id] = CLOSED
    asking = await crowd(known, task_id, 1000)
    database.answers.set()
    assert await asyncio.gather(*asking) == [CLOSED] * 1000
    assert await known.facts(task_id) == CLOSED
    assert database.asked[task_id] == 1


async def test_an_answer_is_as_old_as_its_question_and_no_older_than_a_second(
    database: Database, known: KnownFacts
) -> None:
    task_id = new_task()
    database.known[task_id] = OPEN
    asking = await crowd(known, task_id, 1)
    database.known[task_id] = CLOSED
    database.now += KNOWN_SECONDS / 2
    database.answers.set()
    assert await asking[0] == OPEN
    assert await known.facts(task_id) == OPEN
    database.now += KNOWN_SECONDS / 2
    assert await known.facts(task_id) == CLOSED


async def test_a_task_that_is_not_known_may_be_made_at_any_time(database: Database, known: KnownFacts) -> None:
    task_id = new_task()
    database.answers.set()
    assert await known.facts(task_id) is None
    database.known[task_id] = OPEN
    assert await known.facts(task_id) == OPEN


async def test_whoever_asked_for_the_others_may_leave(database: Database, known: KnownFacts) -> None:
    task_id = new_task()
    database.known[task_id] = OPEN
    asking = await crowd(known, task_id, 3)
    asking[0].cancel()
    await asyncio.wait(asking[:1])
    database.answers.set()
    assert await asyncio.gather(*asking[1:]) == [OPEN, OPEN]
    assert database.asked[task_id] == 2


async def test_whoever_waits_for_another_may_leave(database: Database, known: KnownFacts) -> None:
    task_id = new_task()
    database.known[task_id] = OPEN
    asking = await crowd(known, task_id, 3)
    asking[1].cancel()
    await asyncio.wait(asking[1:2])
    database.answers.set()
    assert [await asking[0], await asking[2]] == [OPEN, OPEN]
    assert database.asked[task_id] == 1


async def test_a_database_that_is_away_is_away_for_all_who_ask_and_is_asked_again(
    database: Database, known: KnownFacts
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


async def test_what_is_kept_is_bounded(database: Database, known: KnownFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "KNOWN_TASKS", 2)
    tasks = [new_task() for _ in range(3)]
    database.known = dict.fromkeys(tasks, OPEN)
    database.answers.set()
    for task_id in (*tasks, *tasks[1:], tasks[0]):
        await known.facts(task_id)
    assert [database.asked[task_id] for task_id in tasks] == [2, 1, 1]
