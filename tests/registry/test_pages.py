"""Pages are shared, kept while nothing can be wrong with them, and read ahead of who sends them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from service.model.errors import LogUnavailable
from service.model.ids import TaskId
from service.model.log import Page
from service.model.position import BEGINNING, Position
from service.registry import pages
from service.registry.pages import FIRST_PAGE_EVENTS, FramePage
from service.registry.task_log import TaskLog
from tests.contracts.logs import new_task
from tests.registry.readers import Library, library
from tests.registry.test_follow import parts

GENERATION = 1


@dataclass
class Shelf:
    """A log of three full pages and a short one, and which of its pages are fetched from the store."""

    house: Library
    log: TaskLog
    fetched: list[int]
    is_away: bool = False

    @property
    def task_id(self) -> TaskId:
        return self.log.task_id

    async def read(self, after: Position, generation: int = GENERATION) -> FramePage:
        return await self.house.pages.read(self.task_id, after, generation)

    async def fetches(self, after: Position) -> bool:
        """Whether this page has to be fetched when it is read now."""
        await self.quiet()
        before = len(self.fetched)
        await self.read(after)
        return self.fetched[before : before + 1] == [after.n]

    async def grow(self, count: int, name: str) -> None:
        """Append events of the same length as all the others."""
        await self.log.append(*parts(count, name.ljust(1900, "x")))

    async def quiet(self) -> None:
        """Until nothing is being read any more."""
        if reading := reading_ahead():
            await asyncio.wait(reading)


def reading_ahead() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "read-ahead"]


@pytest.fixture
async def shelf() -> AsyncIterator[Shelf]:
    async with library() as house:
        log = await house.open(new_task())
        await log.append(*parts(3 * FIRST_PAGE_EVENTS + 10, "x" * 1900))
        made = Shelf(house, log, [])
        read = house.store.read

        async def counted(task_id: TaskId, after: Position, count: int) -> Page:
            made.fetched.append(after.n)
            await asyncio.sleep(0)
            if made.is_away:
                raise LogUnavailable
            return await read(task_id, after, count)

        house.store.read = counted  # type: ignore[method-assign]
        yield made


async def test_what_is_under_way_is_not_shared_with_who_subscribed_later(shelf: Shelf) -> None:
    last = shelf.log.last
    await asyncio.gather(shelf.read(last, GENERATION), shelf.read(last, GENERATION))
    assert shelf.fetched == [last.n]
    await asyncio.gather(shelf.read(last, GENERATION), shelf.read(last, GENERATION + 1))
    assert shelf.fetched == [last.n] * 3


async def test_a_full_page_is_kept_for_a_moment(shelf: Shelf) -> None:
    assert await shelf.fetches(BEGINNING)
    assert not await shelf.fetches(BEGINNING)


async def test_the_last_page_is_never_kept_not_even_a_full_one(shelf: Shelf) -> None:
    """What is appended behind it must be seen."""
    page = await shelf.read(BEGINNING)
    while page.last.n + FIRST_PAGE_EVENTS <= shelf.log.last.n:
        page = await shelf.read(page.last)
    assert await shelf.fetches(page.last)
    assert await shelf.fetches(page.last)
    await shelf.grow(FIRST_PAGE_EVENTS - 10, "full")
    assert (await shelf.read(page.last)).count == FIRST_PAGE_EVENTS
    assert await shelf.fetches(page.last)


async def test_a_page_that_ends_at_a_hole_is_not_kept(shelf: Shelf) -> None:
    """The hole may be filled: by a writer that restores what its store lost."""
    stored = shelf.house.store._logs[shelf.task_id]
    positions, events = stored.positions[:], stored.events[:]
    del stored.positions[50:60], stored.events[50:60]
    assert (await shelf.read(BEGINNING)).count == 50
    stored.positions[:], stored.events[:] = positions, events
    assert (await shelf.read(BEGINNING)).count == FIRST_PAGE_EVENTS


async def test_beyond_the_bound_the_oldest_pages_are_given_up(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await shelf.read(BEGINNING)
    await shelf.quiet()
    monkeypatch.setattr(pages, "KEPT_BYTES", 2 * len(first.frames) + 1000)
    second = await shelf.read(first.last)
    await shelf.quiet()
    assert shelf.fetched == [0, first.last.n, second.last.n]
    assert (await shelf.fetches(first.last), await shelf.fetches(second.last)) == (False, False)
    assert await shelf.fetches(BEGINNING)
    kept = shelf.house.pages._kept.values()
    assert shelf.house.pages._kept_bytes == sum(len(page.frames) for _, page in kept) <= pages.KEPT_BYTES


async def test_the_next_page_is_read_while_one_is_sent_but_no_further(shelf: Shelf) -> None:
    first = await shelf.read(BEGINNING)
    await shelf.quiet()
    assert shelf.fetched == [0, FIRST_PAGE_EVENTS]
    second = await shelf.read(first.last)
    assert shelf.fetched == [0, FIRST_PAGE_EVENTS]
    assert second.first.n == first.last.n + 1


async def test_what_may_still_grow_is_not_read_ahead(shelf: Shelf) -> None:
    page = await shelf.read(BEGINNING)
    for _ in range(2):
        page = await shelf.read(page.last)
    await shelf.quiet()
    assert shelf.fetched == [0, FIRST_PAGE_EVENTS, 2 * FIRST_PAGE_EVENTS]
    assert (await shelf.read(page.last)).count == 10


async def test_a_crowd_has_it_read_once(shelf: Shelf) -> None:
    read = await asyncio.gather(*(shelf.read(BEGINNING) for _ in range(100)))
    await asyncio.gather(*(shelf.read(page.last) for page in read))
    await shelf.quiet()
    assert shelf.fetched == [0, FIRST_PAGE_EVENTS, 2 * FIRST_PAGE_EVENTS]


async def test_a_store_that_is_away_meanwhile_is_asked_again_by_who_wants_the_page(shelf: Shelf) -> None:
    page = await shelf.read(BEGINNING)
    shelf.is_away = True
    await shelf.quiet()
    with pytest.raises(LogUnavailable):
        await shelf.read(page.last)
    shelf.is_away = False
    assert (await shelf.read(page.last)).count == FIRST_PAGE_EVENTS


async def test_what_is_read_ahead_at_a_stop_is_given_up(shelf: Shelf) -> None:
    """Else the library would not close behind the test."""
    never = asyncio.Event()
    read = shelf.house.store.read

    async def stuck(task_id: TaskId, after: Position, count: int) -> Page:
        if after != BEGINNING:
            await never.wait()
        return await read(task_id, after, count)

    shelf.house.store.read = stuck  # type: ignore[method-assign]
    await shelf.read(BEGINNING)
    assert len(reading_ahead()) == 1
