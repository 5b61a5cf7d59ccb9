"""Logs and hints in memory: the same promises within one process, for embedding and for tests."""

import asyncio
import time
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from service.model.encoding import unframed
from service.model.ids import Epoch, TaskId
from service.model.log import (
    AppendResult,
    Batch,
    Closed,
    Fenced,
    Head,
    Hint,
    Interrupted,
    Listening,
    Lost,
    Opened,
    Page,
    Scanned,
    Stored,
    StoredEvent,
    Unopened,
)
from service.model.position import BEGINNING, Position
from service.model.trace import TraceParent

_NOBODY: Final = Epoch(0)
_MAX_WAITING: Final = 10_000


@dataclass(slots=True)
class _Log:
    epoch: Epoch = _NOBODY
    last: Position = BEGINNING
    closed: bool = False
    positions: list[Position] = field(default_factory=list)
    events: list[StoredEvent] = field(default_factory=list)
    traces: dict[Position, TraceParent] = field(default_factory=dict)
    expires_at: float | None = None

    @property
    def head(self) -> Head:
        return Head(self.last, self.closed, self.epoch)


class MemoryHintFeed:
    """The port `HintFeed` within one process."""

    def __init__(self) -> None:
        self._wanted: set[TaskId] = set()
        self._items: asyncio.Queue[Hint | Listening | Interrupted] = asyncio.Queue()

    async def subscribe(self, task_id: TaskId) -> None:
        self._wanted.add(task_id)
        self._items.put_nowait(Listening(task_id))

    async def unsubscribe(self, task_id: TaskId) -> None:
        self._wanted.discard(task_id)

    async def items(self) -> AsyncGenerator[Hint | Listening | Interrupted]:
        while True:
            yield await self._items.get()

    def deliver(self, hint: Hint) -> None:
        """Hand a hint to this feed if it is wanted there. A feed that nobody reads forgets what waits, and says so."""
        if hint.task_id not in self._wanted:
            return
        if self._items.qsize() >= _MAX_WAITING:
            while not self._items.empty():
                self._items.get_nowait()
            self.interrupt()
        else:
            self._items.put_nowait(hint)

    def interrupt(self) -> None:
        """Behave as after a lost connection: say so, and listen again to all that is wanted."""
        self._items.put_nowait(Interrupted())
        for task_id in self._wanted:
            self._items.put_nowait(Listening(task_id))


class MemoryHints:
    """The port `Hints` within one process."""

    def __init__(self) -> None:
        self.feeds: list[MemoryHintFeed] = []

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[MemoryHintFeed]:
        feed = self.new_feed()
        self.feeds.append(feed)
        try:
            yield feed
        finally:
            self.feeds.remove(feed)

    def new_feed(self) -> MemoryHintFeed:
        """A feed for one connection."""
        return MemoryHintFeed()

    def publish(self, hint: Hint) -> None:
        """Carry a hint to every feed."""
        for feed in self.feeds:
            feed.deliver(hint)


class MemoryLogStore:
    """The ports `LogStore` and `HotLogs` within one process. Every call is atomic, since nothing in it waits."""

    def __init__(self, hints: MemoryHints, clock: Callable[[], float] = time.monotonic) -> None:
        self._hints = hints
        self._clock = clock
        self._logs: dict[TaskId, _Log] = {}
        self._database: str | None = None

    async def open(self, task_id: TaskId, epoch: Epoch, floor: Position) -> Opened | Fenced:
        log = self._there(task_id)
        if log.epoch > epoch:
            return Fenced(log.epoch)
        self._logs[task_id] = log
        log.epoch, log.expires_at = epoch, None
        if log.last.n < floor.n:
            log.positions.clear()
            log.events.clear()
            log.last = floor
        return Opened(log.last, log.closed)

    async def append(self, batches: Sequence[Batch]) -> Sequence[AppendResult]:
        return [self._append(batch) for batch in batches]

    def _append(self, batch: Batch) -> AppendResult:
        log = self._there(batch.task_id)
        if log.epoch > batch.epoch:
            return Fenced(log.epoch)
        if log.epoch < batch.epoch:
            return Unopened()
        if log.last.n >= batch.last.n:
            return Stored()
        if log.closed:
            return Closed()
        if log.last.n < batch.before.n:
            return Lost(log.last)
        before = log.last
        for event in unframed(batch.frames)[before.n - batch.before.n :]:
            log.positions.append(Position.parse(event[0].decode()))
            log.events.append(event)
        log.last, log.closed = log.positions[-1], batch.terminal
        if batch.trace is not None:
            log.traces[log.last] = batch.trace
        frames = batch.hinted_frames if before == batch.before else b""
        trace = batch.trace if frames else None
        self._hints.publish(Hint(batch.task_id, batch.epoch, before, log.last, batch.terminal, frames, trace))
        return Stored()

    async def read(self, task_id: TaskId, after: Position, count: int) -> Page:
        log = self._there(task_id)
        index = bisect_right(log.positions, after)
        known = after == BEGINNING or (index > 0 and log.positions[index - 1] == after)
        traces = [log.traces[place] for place in log.positions[index : index + count] if place in log.traces]
        return Page(known, log.events[index : index + count], log.head, traces[-1] if traces else None)

    async def head(self, task_id: TaskId) -> Head:
        return self._there(task_id).head

    async def begin(self, task_ids: Sequence[TaskId], count: int) -> Sequence[Page]:
        return [await self.read(task_id, BEGINNING, count) for task_id in task_ids]

    async def retire(self, task_ids: Sequence[TaskId], seconds: int) -> None:
        for task_id in task_ids:
            log = self._there(task_id)
            if not log.closed:
                self._logs.pop(task_id, None)
            elif log.expires_at is None:
                log.expires_at = self._clock() + seconds

    async def is_of(self, database: str) -> bool:
        self._database = self._database or database
        return self._database == database

    async def remove(self, task_ids: Sequence[TaskId]) -> None:
        for task_id in task_ids:
            self.forget(task_id)

    async def scan(self, cursor: int) -> Scanned:
        for task_id in list(self._logs):
            self._there(task_id)
        return Scanned(list(self._logs), 0)

    def _there(self, task_id: TaskId) -> _Log:
        """The log, unless it has expired; one that is not there is an empty one."""
        log = self._logs.get(task_id)
        if log is not None and log.expires_at is not None and log.expires_at <= self._clock():
            del self._logs[task_id]
            log = None
        return log or _Log()

    def lose(self, task_id: TaskId, keep: int) -> None:
        """Forget all but the first `keep` events, as a store that comes back without its tail."""
        log = self._logs[task_id]
        del log.positions[keep:], log.events[keep:]
        log.last = log.positions[-1] if log.positions else BEGINNING
        log.closed = False

    def forget(self, task_id: TaskId) -> None:
        """Lose a log whole, as a store that comes back empty."""
        self._logs.pop(task_id, None)
