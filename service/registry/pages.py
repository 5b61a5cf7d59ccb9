"""Reading what is stored, once for all readers of this process that want the same.

Readers of one log soon ask for the same pages, since every page after a reader's first begins at a multiple of the
log's page size: a power of two that makes a page about PAGE_BYTES long. A page that is being read is waited for; a full
one is kept for a moment. While a reader sends one, the next is read ahead, if it will be full.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from service.model.encoding import frames
from service.model.errors import StoreUnavailable
from service.model.ids import TaskId
from service.model.log import Head
from service.model.position import BEGINNING, Position
from service.model.trace import TraceParent
from service.registry.flights import Flights
from service.registry.ports import LogSource

PAGE_BYTES: Final = 256 * 1024
MAX_PAGE_EVENTS: Final = 1024
FIRST_PAGE_EVENTS: Final = 128
"""As long as nothing is known of how long this log's events are."""

KNOWN_LOGS: Final = 10_000
"""Of so many logs the page size is remembered."""

KEPT_BYTES: Final = 32 * 1024 * 1024
"""Pages kept in a process of each store; the oldest ones go first."""

KEPT_SECONDS: Final = 2.0
"""A page is read again after this, however often it was asked for."""


@dataclass(frozen=True, slots=True)
class FramePage:
    """Stored events that stand after a position, dense among themselves, as SSE bytes."""

    known: bool
    """Whether that position is the beginning or names an event of this log."""
    count: int
    first: Position
    last: Position
    frames: bytes
    head: Head
    trace: TraceParent | None = None
    """In which span the newest of them was written."""


class Pages:
    """One process's readings of one store. `log_pages` makes one."""

    def __init__(self, store: LogSource, clock: Callable[[], float], tasks: asyncio.TaskGroup) -> None:
        self._store = store
        self._tasks = tasks
        self._clock = clock
        self._flights: Flights[tuple[TaskId, Position, int], FramePage] = Flights()
        self._kept: OrderedDict[tuple[TaskId, Position], tuple[float, FramePage]] = OrderedDict()
        self._kept_bytes = 0
        self._ahead: dict[tuple[TaskId, Position], asyncio.Task[None]] = {}
        self._sizes: OrderedDict[TaskId, int] = OrderedDict()

    async def read(self, task_id: TaskId, after: Position, generation: int) -> FramePage:
        """The next page after a position. Raises StoreUnavailable.

        Readings are shared only within a `generation`, so that no reader gets what was read before its subscription.
        """
        page = await self._page(task_id, after, generation)
        if page.count:
            self._look_ahead(task_id, page, generation)
        return page

    async def _page(self, task_id: TaskId, after: Position, generation: int) -> FramePage:
        kept = self._kept_page(task_id, after)
        if kept is not None:
            return kept
        return await self._flights.share((task_id, after, generation), lambda: self._fetch(task_id, after))

    def _look_ahead(self, task_id: TaskId, page: FramePage, generation: int) -> None:
        """Have the next page read, if it will be one that is kept; one that is read here has none read behind it."""
        size, next_key = self._size(task_id), (task_id, page.last)
        is_full = page.last.n - page.last.n % size + size < page.head.last.n
        if is_full and next_key not in self._ahead and self._kept_page(*next_key) is None:
            reading = self._read_ahead(*next_key, generation)
            self._ahead[next_key] = self._tasks.create_task(reading, name="read-ahead")

    async def _read_ahead(self, task_id: TaskId, after: Position, generation: int) -> None:
        try:
            with suppress(StoreUnavailable):  # whoever wants the page finds out
                await self._page(task_id, after, generation)
        finally:
            del self._ahead[task_id, after]

    def stop_reading_ahead(self) -> None:
        """Nobody will want what is being read ahead."""
        for reading in self._ahead.values():
            reading.cancel()

    async def _fetch(self, task_id: TaskId, after: Position) -> FramePage:
        size = self._size(task_id)
        page = await self._store.read(task_id, after, size - after.n % size)
        events = page.events
        if not events:
            return FramePage(page.known, 0, after, after, b"", page.head)
        first, last = Position.stored(events[0][0]), Position.stored(events[-1][0])
        if last.n - first.n + 1 != len(events):  # something inside is missing: end before it, where it will be noticed
            dense = next(i for i, (position, _) in enumerate(events) if Position.stored(position).n != first.n + i)
            events, last = events[:dense], Position.stored(events[dense - 1][0])
        result = FramePage(page.known, len(events), first, last, frames(events), page.head, page.trace)
        if last.n % size == 0 and last.n < page.head.last.n:
            self._keep(task_id, after, result)
        self._learn(task_id, len(result.frames) // result.count)
        return result

    def _size(self, task_id: TaskId) -> int:
        return self._sizes.get(task_id, FIRST_PAGE_EVENTS)

    def _learn(self, task_id: TaskId, event_bytes: int) -> None:
        """Choose the size of this log's pages by the events that were just seen."""
        fitting = max(1, min(MAX_PAGE_EVENTS, PAGE_BYTES // max(1, event_bytes)))
        self._sizes[task_id] = 1 << (fitting.bit_length() - 1)
        self._sizes.move_to_end(task_id)
        if len(self._sizes) > KNOWN_LOGS:
            self._sizes.popitem(last=False)

    def _kept_page(self, task_id: TaskId, after: Position) -> FramePage | None:
        kept = self._kept.get((task_id, after))
        if kept is None:
            return None
        until, page = kept
        if self._clock() < until:
            return page
        self._drop((task_id, after))
        return None

    def _keep(self, task_id: TaskId, after: Position, page: FramePage) -> None:
        self._drop((task_id, after))
        self._kept[task_id, after] = (self._clock() + KEPT_SECONDS, page)
        self._kept_bytes += len(page.frames)
        while self._kept_bytes > KEPT_BYTES:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[TaskId, Position]) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._kept_bytes -= len(kept[1].frames)

    async def oldest(self, task_id: TaskId) -> Position:
        """The first event that there is; the beginning where there is none."""
        page = await self._store.read(task_id, BEGINNING, 1)
        return Position.stored(page.events[0][0]) if page.events else BEGINNING

    async def head(self, task_id: TaskId) -> Head:
        """How far the log reaches now."""
        return await self._store.head(task_id)


@asynccontextmanager
async def log_pages(store: LogSource, clock: Callable[[], float]) -> AsyncGenerator[Pages]:
    """Pages that are read while the block runs. `clock` gives seconds and never goes back."""
    async with asyncio.TaskGroup() as tasks:
        made = Pages(store, clock, tasks)
        try:
            yield made
        finally:
            made.stop_reading_ahead()
