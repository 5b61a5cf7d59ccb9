"""What a stream needs in order to begin: the hot store while that has the log, the database for what it has not."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from service.model.errors import DatabaseUnavailable, LogUnavailable, NotFound, StoreUnavailable
from service.model.ids import TaskId
from service.model.log import Page
from service.model.position import BEGINNING, Position
from service.registry import follow
from service.registry import hub as hub_module
from service.registry.follow import Begun, Ended, Gap, Heartbeat, Vanished
from tests.contracts.archives import now_ms, task_made_at
from tests.registry.readers import Library, Reader, library
from tests.registry.test_follow import FINISH, parts
from tests.registry.test_follow_archived import Away, archived, as_a_ghost, gone, positions_of

pytestmark = pytest.mark.timeout(20)


@pytest.fixture
async def house() -> AsyncIterator[Library]:
    """A library whose directory knows of no task but those of the archive."""
    async with library() as made:
        made.directory.facts = made.archive.facts  # type: ignore[method-assign,assignment]
        yield made


def without_database(house: Library) -> None:
    house.directory.facts = Away(house).facts  # type: ignore[method-assign]


def without_redis(house: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers nothing, and confirms no subscription."""

    async def away(*_: object) -> Page:
        raise LogUnavailable

    monkeypatch.setattr(hub_module, "CONFIRM_SECONDS", 0.02)
    (feed,) = house.hints.feeds
    monkeypatch.setattr(feed, "subscribe", feed.unsubscribe)
    monkeypatch.setattr(house.store, "read", away)
    monkeypatch.setattr(house.store, "head", away)


def without_pages_of_redis(house: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """It still sends hints."""

    async def away(*_: object) -> Page:
        raise LogUnavailable

    monkeypatch.setattr(house.store, "read", away)


async def test_a_log_that_is_hot_is_followed_while_the_database_is_away(house: Library) -> None:
    log = await house.open(task_made_at(now_ms()))
    positions = [await log.append(chunk) for chunk in parts(5)]
    without_database(house)
    readers = [Reader(house.follower, log.task_id, after) for after in (BEGINNING, *positions)]
    for reader in readers:
        assert await reader.begun() == Begun(None, None)
    await log.append(*parts(3, "q"), FINISH)
    whole = await house.log(log.task_id)
    for after, reader in zip((BEGINNING, *positions), readers, strict=True):
        await reader.until_ended()
        assert (reader.got.count(b"id: "), whole.endswith(reader.got)) == (9 - after.n, True)
    assert await Reader(house.follower, log.task_id, log.last).end() == Begun(None, Ended())


@pytest.mark.parametrize("after", [BEGINNING, Position(5, 5)])
@pytest.mark.parametrize("lose", [gone, as_a_ghost])
class TestOfWhichTheHotStoreHasNothing:
    async def test_a_task_that_nobody_knows_is_none(
        self, house: Library, after: Position, lose: Callable[[Library, TaskId], None]
    ) -> None:
        task_id = task_made_at(now_ms())
        lose(house, task_id)
        async with asyncio.timeout(follow.LOST_TAIL_PATIENCE_SECONDS / 2):
            with pytest.raises(NotFound):
                await anext(house.follower.follow(task_id, after))
        assert house.hub._channels == {}

    async def test_nothing_is_said_of_it_while_the_database_is_away(
        self, house: Library, after: Position, lose: Callable[[Library, TaskId], None]
    ) -> None:
        queued = task_made_at(now_ms())
        house.archive.know(queued, log_closed=False)
        kept, _ = await archived(house, 9)
        without_database(house)
        for task_id in (queued, kept):
            lose(house, task_id)
            with pytest.raises(DatabaseUnavailable):
                await anext(house.follower.follow(task_id, after))

    async def test_it_begins_where_the_task_is_known(
        self,
        house: Library,
        after: Position,
        lose: Callable[[Library, TaskId], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(follow, "LOST_TAIL_PATIENCE_SECONDS", 0.02)
        task_id = task_made_at(now_ms())
        house.archive.know(task_id, log_closed=False)
        lose(house, task_id)
        reader = Reader(house.follower, task_id, after)
        begun = await reader.begun()
        await reader.leave()
        assert (begun.gap is None, begun.end) == (after == BEGINNING, None)


async def test_a_task_that_is_known_no_more_is_told_of_to_who_reads_its_log(house: Library) -> None:
    task_id = task_made_at(now_ms())
    house.archive.know(task_id, log_closed=False)
    reader = Reader(house.follower, task_id)
    assert await reader.begun() == Begun(None, None)
    house.archive.tasks.clear()
    assert await reader.end() == Vanished()
    assert [type(item) for item in reader.items if not isinstance(item, Heartbeat)] == [Begun, Gap, Vanished]


@pytest.mark.parametrize("lose", [without_redis, without_pages_of_redis])
class TestWhileRedisIsAway:
    async def test_a_log_that_is_archived_is_read(
        self,
        house: Library,
        lose: Callable[[Library, pytest.MonkeyPatch], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        task_id, whole = await archived(house, 300)
        *positions, end = positions_of(whole)
        lose(house, monkeypatch)
        for after in (BEGINNING, positions[6], positions[-1]):
            reader = Reader(house.follower, task_id, after)
            await reader.until_ended()
            assert reader.gaps == []
            assert (reader.got.count(b"id: "), whole.endswith(reader.got)) == (300 - after.n, True)
        assert await Reader(house.follower, task_id, end).end() == Begun(None, Ended())
        beyond = Reader(house.follower, task_id, Position(end.ms, 999))
        await beyond.until_ended()
        assert (len(beyond.gaps), beyond.position) == (1, end)
        assert house.hub._channels == {}

    async def test_of_any_other_one_nothing_is_said(
        self,
        house: Library,
        lose: Callable[[Library, pytest.MonkeyPatch], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        running = task_made_at(now_ms())
        house.archive.know(running, log_closed=False)
        kept, _ = await archived(house, 9)
        lose(house, monkeypatch)
        with pytest.raises(LogUnavailable):
            await anext(house.follower.follow(running, BEGINNING))
        with pytest.raises(NotFound):
            await anext(house.follower.follow(task_made_at(now_ms()), BEGINNING))
        without_database(house)
        for task_id in (running, kept):
            with pytest.raises(StoreUnavailable):
                await anext(house.follower.follow(task_id, BEGINNING))
