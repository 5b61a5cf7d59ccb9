"""Pages are read ahead of who sends them, one at a time, and only those that are kept."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from service.model.errors import LogUnavailable
from service.model.ids import TaskId
from service.model.log import Page
from service.model.position import BEGINNING, Position
from service.registry.pages import FIRST_PAGE_EVENTS, FramePage
from tests.contracts.logs import new_task
from tests.registry.readers import Library, library
from tests.registry.test_follow import parts

GENERATION = 1


@dataclass
class Shelf:
    """A log of three full pages and a short one, and which of its pages are fetched from the store."""

    house: Library
    task_id: TaskId
    fetched: list[int]
    is_away: bool = False

    async def read(self, after: Position) -> FramePage:
        return await self.house.pages.read(self.task_id, after, GENERATION)

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
        made = Shelf(house, log.task_id, [])
        read = house.store.read

        async def counted(task_id: TaskId, after: Position, count: int) -> Page:
            made.fetched.append(after.n)
            await asyncio.sleep(0)
            if made.is_away:
                raise LogUnavailable
            return await read(task_id, after, count)

        house.store.read = counted  # type: ignore[method-assign]
        yield made


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
    pages = await asyncio.gather(*(shelf.read(BEGINNING) for _ in range(100)))
    await asyncio.gather(*(shelf.read(page.last) for page in pages))
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
