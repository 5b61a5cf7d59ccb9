"""Pages of a log for who polls: the same events as a stream has, hot and archived, and gaps are told."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.model.encoding import frames
from service.model.errors import LogUnavailable, NotFound
from service.model.events import GapData, TextDelta, TextStart
from service.model.ids import PartId, TaskId
from service.model.log import Head, Page, TaskFacts
from service.model.position import BEGINNING, Position
from service.registry import follow
from service.registry.event_page import MAX_PAGE_BYTES, EventPage, LogGone, event_page
from tests.contracts.archives import now_ms, task_made_at
from tests.registry.readers import Library, library
from tests.registry.test_follow import FINISH, parts
from tests.registry.test_follow_archived import LOSSES, archived, gone, positions_of

pytestmark = pytest.mark.timeout(20)


@pytest.fixture
async def house() -> AsyncIterator[Library]:
    async with library() as made:
        yield made


async def polled(house: Library, task_id: TaskId, limit: int, after: Position = BEGINNING) -> list[EventPage]:
    """Pages until one says that nothing follows."""
    pages: list[EventPage] = []
    async with asyncio.timeout(10):
        while not pages or not pages[-1].closed:
            pages.append(await event_page(house.follower, task_id, after, limit))
            after = pages[-1].last
    return pages


def bytes_of(pages: list[EventPage]) -> bytes:
    return frames([event for page in pages for event in page.events])


@pytest.mark.parametrize("limit", [1, 3, 8, 9, 1000])
@pytest.mark.parametrize("lose", [lambda *_: None, *LOSSES])
async def test_pages_are_the_log_whatever_the_hot_store_has_left(house: Library, lose: object, limit: int) -> None:
    task_id, whole = await archived(house, 9)
    assert callable(lose)
    lose(house, task_id)
    pages = await polled(house, task_id, limit)
    assert bytes_of(pages) == whole
    assert all(len(page.events) <= limit and page.gap is None for page in pages)
    for after in positions_of(whole):
        assert whole.endswith(bytes_of(await polled(house, task_id, limit, after)))


async def test_the_hot_copy_goes_between_two_pages(house: Library) -> None:
    task_id, whole = await archived(house, 400)
    first = await event_page(house.follower, task_id, BEGINNING, 150)
    gone(house, task_id)
    assert bytes_of([first, *await polled(house, task_id, 150, first.last)]) == whole


async def test_a_page_does_not_wait_for_what_is_not_written(house: Library) -> None:
    log = await house.open(task_made_at(now_ms()))
    house.directory.closed.clear()
    assert await event_page(house.follower, log.task_id, BEGINNING, 9) == EventPage([], BEGINNING, False, None)
    last = await log.append(*parts(3))
    async with asyncio.timeout(follow.RETRY_SECONDS):
        page = await event_page(house.follower, log.task_id, BEGINNING, 9)
        after_it = await event_page(house.follower, log.task_id, page.last, 9)
    assert (len(page.events), page.last, page.closed) == (3, last, False)
    assert after_it == EventPage([], last, closed=False, gap=None)
    end = await log.append(FINISH)
    rest = await event_page(house.follower, log.task_id, last, 9)
    assert (len(rest.events), rest.last, rest.closed) == (1, end, True)
    assert await event_page(house.follower, log.task_id, end, 9) == EventPage([], end, closed=True, gap=None)


async def test_a_page_is_bounded_in_bytes(house: Library) -> None:
    log = await house.open(task_made_at(now_ms()))
    for i in range(12):
        await log.append(TextStart(PartId(f"p{i}")), TextDelta(PartId(f"p{i}"), "x" * (200 * 1024)))
    await log.append(FINISH)
    pages = await polled(house, log.task_id, 1000)
    assert bytes_of(pages) == await house.log(log.task_id)
    assert len(pages) == 3
    assert all(sum(len(data) for _, data in page.events) <= MAX_PAGE_BYTES for page in pages)


async def test_a_gap_is_told_in_front_of_what_follows_it(house: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LOST_TAIL_PATIENCE_SECONDS", 0.1)
    log = await house.open(task_made_at(now_ms()))
    last = await log.append(*parts(5), FINISH)
    stored = house.store._logs[log.task_id]
    del stored.positions[2:4], stored.events[2:4]
    first = await event_page(house.follower, log.task_id, BEGINNING, 9)
    assert ([int(p.partition(b"-")[2]) for p, _ in first.events], first.closed, first.gap) == ([1, 2], False, None)
    second = await event_page(house.follower, log.task_id, first.last, 9)
    assert [int(p.partition(b"-")[2]) for p, _ in second.events] == [5, 6]
    assert second.gap == GapData(str(first.last), f"{first.last.ms}-1", str(last), 2)
    nowhere = await event_page(house.follower, log.task_id, Position(1, 2), 9)
    assert nowhere.gap == GapData("1-2", f"{first.last.ms}-1", str(last), 0)
    assert len(nowhere.events) == 2


async def test_a_log_that_is_gone_has_no_page(house: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LOST_TAIL_PATIENCE_SECONDS", 0.1)
    task_id, whole = await archived(house, 9)
    gone(house, task_id)

    async def facts(_: TaskId) -> TaskFacts:
        return TaskFacts(log_closed=True, log_archived=True)

    house.directory.facts = facts  # type: ignore[method-assign]
    house.archive.tasks.clear()
    for after in (BEGINNING, positions_of(whole)[-1]):
        with pytest.raises(LogGone):
            await event_page(house.follower, task_id, after, 9)


async def test_there_is_no_page_of_what_there_is_not(house: Library) -> None:
    async def facts(_: TaskId) -> None:
        return None

    house.directory.facts = facts  # type: ignore[method-assign, assignment]
    with pytest.raises(NotFound):
        await event_page(house.follower, task_made_at(now_ms()), BEGINNING, 9)


async def test_a_store_that_goes_away_costs_the_rest_of_a_page_and_no_more(house: Library) -> None:
    """What was read until then is given; who comes next is told that it is away."""
    log = await house.open(task_made_at(now_ms()))
    await log.append(*parts(400))
    read, reads = house.store.read, 0

    async def once(task_id: TaskId, after: Position, count: int) -> Page:
        nonlocal reads
        reads += 1
        if reads > 1:
            raise LogUnavailable
        return await read(task_id, after, count)

    async def head(_: TaskId) -> Head:
        raise LogUnavailable

    house.store.read, house.store.head = once, head  # type: ignore[method-assign]
    page = await event_page(house.follower, log.task_id, BEGINNING, 1000)
    assert (0 < len(page.events) < 400, page.closed) == (True, False)
    with pytest.raises(LogUnavailable):
        await event_page(house.follower, log.task_id, page.last, 1000)
