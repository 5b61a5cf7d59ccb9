"""Whose log may be followed: what is asked of the database, what is remembered, and for how long."""

import pytest

from service.adapters.memory_database import MemoryDatabase
from service.adapters.memory_doorbell import MemoryDoorbell
from service.adapters.memory_messages import MemoryMessages
from service.adapters.memory_sessions import MemorySessions
from service.adapters.memory_tasks import MemoryTasks
from service.model.caller import EVERYONES, Own
from service.model.errors import DatabaseUnavailable, NotFound
from service.model.events import TextPart
from service.model.ids import OwnerId, TaskId
from service.model.session import NewMessage, SessionChange
from service.model.task import Ownership
from service.sessions import tasks
from service.sessions.tasks import REMEMBERED_SECONDS, Tasks

ANN, BOB = OwnerId("ann"), OwnerId("bob")
NOBODYS = TaskId("01890000-0000-7000-8000-000000000000")


class Asked(MemoryTasks):
    """Counts how often it is asked whose a task is; may be away."""

    asked = 0
    is_away = False

    async def ownership(self, task_id: TaskId) -> Ownership | None:
        self.asked += 1
        if self.is_away:
            raise DatabaseUnavailable
        return await super().ownership(task_id)


class Place:
    """Tasks over a database in memory, and a clock that stands."""

    def __init__(self) -> None:
        self.database = MemoryDatabase()
        self.store, self.now = Asked(self.database), 0.0
        self.sessions = MemorySessions(self.database)
        self.tasks = Tasks(self.store, MemoryDoorbell(), lambda: self.now)

    async def task_of(self, owner: OwnerId | None) -> TaskId:
        session = await self.sessions.create(owner)
        message = NewMessage((TextPart("Hi"),))
        return (await MemoryMessages(self.database).post(EVERYONES, session.id, message)).task_id


@pytest.fixture
def place() -> Place:
    return Place()


async def test_an_owner_who_comes_back_is_no_query_for_a_while(place: Place) -> None:
    task_id = await place.task_of(ANN)
    for now, asked in ((0.0, 1), (REMEMBERED_SECONDS - 1, 1), (REMEMBERED_SECONDS + 1, 2)):
        place.now = now
        await place.tasks.check_reach(Own(ANN), task_id)
        assert place.store.asked == asked


async def test_pitfall_52_of_others_it_is_asked_each_time_as_of_what_does_not_exist(place: Place) -> None:
    task_id = await place.task_of(ANN)
    await place.tasks.check_reach(Own(ANN), task_id)
    for stranger in (Own(BOB), Own(None)):
        for other in (task_id, NOBODYS):
            before = place.store.asked
            with pytest.raises(NotFound):
                await place.tasks.check_reach(stranger, other)
            assert place.store.asked == before + 1


async def test_everyones_reach_is_never_asked_for(place: Place) -> None:
    await place.tasks.check_reach(EVERYONES, NOBODYS)
    assert place.store.asked == 0


async def test_where_the_database_is_away_the_known_owner_goes_on_and_nobody_else(place: Place) -> None:
    task_id = await place.task_of(ANN)
    await place.tasks.check_reach(Own(ANN), task_id)
    place.store.is_away, place.now = True, 3600.0
    await place.tasks.check_reach(Own(ANN), task_id)
    for reach, other in ((Own(BOB), task_id), (Own(ANN), NOBODYS)):
        with pytest.raises(DatabaseUnavailable):
            await place.tasks.check_reach(reach, other)


async def test_what_is_nobodys_is_not_remembered_as_that(place: Place) -> None:
    task_id = await place.task_of(None)
    await place.tasks.check_reach(Own(None), task_id)
    (session_id,) = place.database.sessions
    await place.sessions.change(EVERYONES, session_id, SessionChange(owner=ANN))
    with pytest.raises(NotFound):
        await place.tasks.check_reach(Own(None), task_id)
    await place.tasks.check_reach(Own(ANN), task_id)


async def test_what_is_remembered_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "MAX_REMEMBERED", 2)
    ids = [await place.task_of(ANN) for _ in range(3)]
    for task_id in (*ids, ids[2], ids[0]):
        await place.tasks.check_reach(Own(ANN), task_id)
    assert place.store.asked == 4
