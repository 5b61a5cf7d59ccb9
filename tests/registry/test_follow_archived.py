"""Hot and archive are one log: for readers that come before, during and after the hot copy goes, from any position."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from service.model.errors import DatabaseUnavailable
from service.model.events import GapData
from service.model.ids import Epoch, TaskId
from service.model.log import TaskFacts
from service.model.position import BEGINNING, Position
from service.registry import follow
from service.registry.follow import Begun, Ended, Frames, Gap, Vanished
from service.registry.pages import FIRST_PAGE_EVENTS, MAX_PAGE_EVENTS
from tests.contracts.archives import now_ms, task_made_at
from tests.registry.readers import Library, Reader, library
from tests.registry.test_follow import FINISH, parts

pytestmark = pytest.mark.timeout(20)


@pytest.fixture
async def house() -> AsyncIterator[Library]:
    async with library() as made:
        yield made


async def archived(house: Library, events: int) -> tuple[TaskId, bytes]:
    """A log that is archived and still hot, and its bytes."""
    log = await house.open(task_made_at(now_ms()))
    await log.append(*parts(events - 1), FINISH)
    whole = await house.log(log.task_id)
    house.archive.know(log.task_id)
    await house.archivist.archive_some()
    facts = await house.archive.facts(log.task_id)
    assert facts == TaskFacts(log_closed=True, log_archived=True)
    return log.task_id, whole


def positions_of(whole: bytes) -> list[Position]:
    return [Position.stored(line[4:]) for line in whole.split(b"\n") if line.startswith(b"id: ")]


def gone(house: Library, task_id: TaskId) -> None:
    house.store.forget(task_id)


def without_its_tail(house: Library, task_id: TaskId) -> None:
    house.store.lose(task_id, 4)


def without_its_events(house: Library, task_id: TaskId) -> None:
    """As where one of its two keys expires an instant before the other."""
    log = house.store._logs[task_id]
    log.positions.clear()
    log.events.clear()


def without_its_head(house: Library, task_id: TaskId) -> None:
    log = house.store._logs[task_id]
    log.last, log.closed = BEGINNING, False


def with_a_hole(house: Library, task_id: TaskId) -> None:
    log = house.store._logs[task_id]
    del log.positions[3:5], log.events[3:5]


def as_a_ghost(house: Library, task_id: TaskId) -> None:
    """A stale holder opened it once more."""
    house.store.forget(task_id)
    house.store._logs[task_id] = type(house.store._there(task_id))(epoch=Epoch(1))


LOSSES = [gone, without_its_tail, without_its_events, without_its_head, with_a_hole, as_a_ghost]


@pytest.mark.parametrize("lose", [lambda *_: None, *LOSSES])
async def test_a_reader_gets_the_same_bytes_from_every_position_whatever_the_hot_store_has_left(
    house: Library, lose: Callable[[Library, TaskId], None]
) -> None:
    task_id, whole = await archived(house, 9)
    lose(house, task_id)
    *positions, end = [BEGINNING, *positions_of(whole)]
    for after in positions:
        reader = Reader(house.follower, task_id, after)
        await reader.until_ended()
        assert reader.gaps == []
        assert reader.got.count(b"id: ") == 9 - after.n
        assert whole.endswith(reader.got)
    assert await Reader(house.follower, task_id, end).end() == Begun(None, Ended())


@pytest.mark.parametrize("lose", LOSSES)
async def test_the_hot_copy_goes_while_a_reader_stands_anywhere_in_it(
    house: Library, lose: Callable[[Library, TaskId], None]
) -> None:
    count = FIRST_PAGE_EVENTS + MAX_PAGE_EVENTS + 40
    pages = 0
    at = 0
    while at <= pages:
        task_id, whole = await archived(house, count)
        got, seen = b"", 0
        async for item in house.follower.follow(task_id, BEGINNING):
            assert not isinstance(item, Gap)
            if isinstance(item, Frames):
                got += item.frames
                seen += 1
            if seen == at:
                lose(house, task_id)
        assert got == whole, at
        pages, at = max(pages, seen), at + 1
    assert pages >= 3


async def test_readers_of_one_log_before_during_and_after_its_hot_copy_goes_get_the_same(house: Library) -> None:
    log = await house.open(task_made_at(now_ms()))
    live = Reader(house.follower, log.task_id)
    await live.reached(await log.append(*parts(20)))
    cut = live.position
    await log.append(*parts(20, "q"), FINISH)
    whole = await house.log(log.task_id)
    await live.end()
    house.archive.know(log.task_id)
    await house.archivist.archive_some()
    early = Reader(house.follower, log.task_id, cut)
    await early.end()
    house.store.forget(log.task_id)
    late = Reader(house.follower, log.task_id, cut)
    await late.end()
    assert live.got == whole
    assert early.got == late.got == whole[whole.index(early.got) :]
    assert live.gaps == early.gaps == late.gaps == []


async def test_a_reader_that_waits_where_the_store_was_cut_goes_on_in_the_archive(house: Library) -> None:
    """It had come to the end of what there was before anybody could know of more."""
    task_id, whole = await archived(house, 9)
    house.store.lose(task_id, 4)
    proof = house.archive.tasks.pop(task_id)
    reader = Reader(house.follower, task_id, positions_of(whole)[3])
    assert await reader.begun() == Begun(None, None)
    await reader.beats()
    house.archive.tasks[task_id] = proof
    assert isinstance(await reader.end(), Ended)
    assert (whole.endswith(reader.got), reader.got.count(b"id: "), reader.gaps) == (True, 5, [])


async def test_pitfall_64_a_position_that_names_nothing_is_told_of_as_the_hot_store_would(
    house: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LOST_TAIL_PATIENCE_SECONDS", 60.0)  # nobody is about to restore an archived log
    task_id, whole = await archived(house, 9)
    last = positions_of(whole)[-1]
    afters = [Position(0, 3), Position(last.ms - 1, 9), Position(last.ms + 5, 99), Position(10**15, 1)]
    said = []
    for lose in (lambda *_: None, gone):
        lose(house, task_id)
        readers = [Reader(house.follower, task_id, after) for after in afters]
        for reader in readers:
            await reader.end()
        said.append([(reader.gaps, reader.got, reader.position) for reader in readers])
    assert said[0] == said[1]
    assert all(len(gaps) == 1 for gaps, _, _ in said[0])


async def test_what_was_lost_before_it_was_archived_is_told_from_the_archive_too(house: Library) -> None:
    log = await house.open(task_made_at(now_ms()))
    last = await log.append(*parts(5), FINISH)
    stored = house.store._logs[log.task_id]
    del stored.positions[:3], stored.events[:3]
    house.archive.know(log.task_id)
    await house.archivist.archive_some()
    house.store.forget(log.task_id)
    reader = Reader(house.follower, log.task_id)
    await reader.end()
    (gap,) = reader.gaps
    assert gap.data == GapData("0-0", f"{last.ms}-4", str(last), 3)
    assert reader.got.count(b"id: ") == 3


async def test_pitfall_12_a_log_that_no_store_has_any_more_has_no_made_up_end(
    house: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LOST_TAIL_PATIENCE_SECONDS", 0.1)
    task_id, whole = await archived(house, 9)
    house.store.forget(task_id)

    async def facts(_: TaskId) -> TaskFacts:
        return TaskFacts(log_closed=True, log_archived=True)

    house.directory.facts = facts  # type: ignore[method-assign]
    house.archive.tasks.clear()
    for after in (BEGINNING, positions_of(whole)[-1]):
        reader = Reader(house.follower, task_id, after)
        begun = await reader.end()
        assert isinstance(begun, Begun)
        assert isinstance(begun.end, Vanished)
        assert begun.gap is not None


class Away:
    """A directory that is away as long as it is told so."""

    def __init__(self, house: Library) -> None:
        self._facts = house.directory.facts
        self.is_away = True

    async def facts(self, task_id: TaskId) -> TaskFacts | None:
        if self.is_away:
            raise DatabaseUnavailable
        return await self._facts(task_id)


async def test_nothing_is_said_to_be_lost_while_the_database_cannot_be_asked(house: Library) -> None:
    task_id, whole = await archived(house, 400)
    follower = house.follower.follow(task_id, BEGINNING)
    assert await anext(follower) == Begun(None, None)
    got = b""
    away = Away(house)
    house.directory.facts = away.facts  # type: ignore[method-assign]
    house.store.forget(task_id)
    beats = 0
    async with asyncio.timeout(10):
        async for item in follower:
            assert not isinstance(item, Gap)
            if isinstance(item, Frames):
                got += item.frames
            elif not isinstance(item, Ended):
                beats += 1
                away.is_away = beats < 2
    assert (got, beats) == (whole, 2)
    away.is_away = True
    with pytest.raises(DatabaseUnavailable):
        await anext(house.follower.follow(task_id, positions_of(whole)[3]))


async def test_a_running_log_asks_the_database_nothing(house: Library) -> None:
    """Nor does a finished one that is hot: a crowd of readers is no crowd of queries."""
    log = await house.open(task_made_at(now_ms()))
    await log.append(*parts(2 * FIRST_PAGE_EVENTS))
    readers = [Reader(house.follower, log.task_id) for _ in range(3)]
    for i in range(10):
        last = await log.append(*parts(2, f"{i}-"))
        for reader in readers:
            await reader.reached(last)
    await log.append(FINISH)
    for reader in [*readers, Reader(house.follower, log.task_id), Reader(house.follower, log.task_id, last)]:
        await reader.end()
    assert house.directory.asked == 0


async def test_each_look_at_a_log_that_is_not_begun_asks_once(house: Library) -> None:
    reader = Reader(house.follower, task_made_at(now_ms()))
    await reader.begun()
    assert house.directory.asked == 1
    await reader.beats(2)
    assert house.directory.asked <= 4
    await reader.leave()
