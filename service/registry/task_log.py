"""One open log in its holder's hands: what waits to be stored, what is under way, what may have to be sent again."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, assert_never

import structlog

from service.model.encoding import encode, frames, joined
from service.model.errors import LogClosed, LogTailLost, PlayheadError, TakenOver
from service.model.events import Chunk, Finish
from service.model.ids import Epoch, TaskId
from service.model.log import (
    AppendResult,
    Batch,
    Closed,
    Fenced,
    Lost,
    Opened,
    Refused,
    Stored,
    StoredEvent,
    Unopened,
)
from service.model.position import Position

log = structlog.get_logger()

MAX_BATCH_BYTES: Final = 256 * 1024
"""A batch takes no further event beyond this."""

MAX_FRAMES_BYTES: Final = 64 * 1024
"""Longer frames do not travel with the hint; readers read the log instead."""

MAX_BUFFERED_BYTES: Final = 1024 * 1024
"""What may wait in one log; beyond it `put` and `append` wait until the store has taken some."""

MAX_KEPT_BYTES: Final = 1024 * 1024
"""How much of a log's newest part its writer keeps, to send it again to a store that lost it."""

RETRY_WAITS: Final = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds before a batch is sent again; the last one from then on."""


@dataclass(slots=True)
class _Item:
    """An event that waits to be numbered, and who waits for it to be stored."""

    data: bytes
    waiters: list[asyncio.Future[Position]] = field(default_factory=list)


@dataclass(slots=True)
class _Kept:
    """The newest stored events of a log, at most MAX_KEPT_BYTES of them."""

    before: Position
    events: deque[StoredEvent] = field(default_factory=deque)
    size: int = 0

    def add(self, events: list[StoredEvent]) -> None:
        self.events.extend(events)
        self.size += sum(len(data) for _, data in events)
        while self.size > MAX_KEPT_BYTES:
            position, data = self.events.popleft()
            self.size -= len(data)
            self.before = Position.stored(position)

    def after(self, last: Position) -> list[StoredEvent] | None:
        """What stands after `last`; None where that is not kept, or `last` is of another history."""
        index = last.n - self.before.n
        if index < 0 or index > len(self.events):
            return None
        own = self.before if index == 0 else Position.stored(self.events[index - 1][0])
        return list(self.events)[index:] if own == last else None


class TaskLog:
    """One open log in its holder's hands.

    The holder alone appends. When it is no longer the holder, every call raises what happened: TakenOver, LogClosed, or
    LogTailLost, after which a new epoch may go on. While the store is away the calls wait: for as long as the caller
    does, who knows when its lease ends.
    """

    def __init__(
        self,
        task_id: TaskId,
        epoch: Epoch,
        opened: Opened,
        *,
        min_ms: int,
        clock_ms: Callable[[], int],
        wake: Callable[["TaskLog"], None],
    ) -> None:
        self.task_id = task_id
        self.epoch = epoch
        self.was_closed = opened.closed
        self._clock_ms = clock_ms
        self._wake = wake
        self._last = opened.last
        self._min_ms = max(opened.last.ms, min_ms)
        self._kept = _Kept(opened.last)
        self._pending: deque[_Item] = deque()
        self._pending_bytes = 0
        self._in_flight: tuple[Batch, list[_Item]] | None = None
        self._repairs: deque[Batch] = deque()
        self._has_finish = opened.closed
        self._failure: PlayheadError | None = None
        self._room = asyncio.Event()
        self._refusals = 0

    @property
    def last(self) -> Position:
        """The highest position that was handed out."""
        return self._last

    async def append(self, *chunks: Chunk) -> Position:
        """Store these events, in this order, and say where the last one stands. They are stored when this returns."""
        for chunk in chunks:
            await self._add(chunk)
        return await self.flush()

    async def put(self, chunk: Chunk) -> None:
        """Hand an event in, to be stored soon: returns at once unless too much is waiting already.

        Neighbouring deltas of one part that wait together may become one event.
        """
        await self._add(chunk)

    async def flush(self) -> Position:
        """Wait until everything that was handed in is stored."""
        self._raise_failure()
        if self._pending:
            waiters = self._pending[-1].waiters
        elif self._in_flight is not None:
            waiters = self._in_flight[1][-1].waiters
        else:
            return self._last
        stored: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        waiters.append(stored)
        return await stored

    async def _add(self, chunk: Chunk) -> None:
        data = encode(chunk)
        while self._pending_bytes >= MAX_BUFFERED_BYTES and self._failure is None:
            self._room.clear()
            await self._room.wait()
        self._raise_failure()
        if self._has_finish:
            raise LogClosed
        self._has_finish = isinstance(chunk, Finish)
        merged = joined(self._pending[-1].data, data) if self._pending else None
        if merged is not None:
            self._pending_bytes += len(merged) - len(self._pending[-1].data)
            self._pending[-1].data = merged
        else:
            self._pending_bytes += len(data)
            self._pending.append(_Item(data))
        self._wake(self)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise type(self._failure)()

    # What follows is for the writer that sends.

    def next_batch(self) -> Batch | None:
        """What to send now: a repair, the batch that is under way, or what has gathered; the first two unchanged."""
        if self._failure is not None:
            return None
        if self._repairs:
            return self._repairs[0]
        if self._in_flight is None and self._pending:
            self._in_flight = self._freeze()
        return None if self._in_flight is None else self._in_flight[0]

    def _freeze(self) -> tuple[Batch, list[_Item]]:
        """Number what has gathered. From here on these bytes are what the log says at these positions."""
        items: list[_Item] = []
        size = 0
        while self._pending and (not items or size + len(self._pending[0].data) <= MAX_BATCH_BYTES):
            items.append(self._pending.popleft())
            size += len(items[-1].data)
        self._pending_bytes -= size
        self._room.set()
        before = self._last
        ms = max(self._clock_ms(), self._min_ms)
        events = [(b"%d-%d" % (ms, n), item.data) for n, item in enumerate(items, before.n + 1)]
        self._last = Position(ms, before.n + len(events))
        self._min_ms = ms
        terminal = self._has_finish and not self._pending
        return _batch(self, before, self._last, events, terminal=terminal), items

    def settle(self, result: AppendResult) -> float:
        """Take in how the last batch went; answers the seconds to wait before this log is sent again."""
        match result:
            case Stored() if self._repairs:
                self._repairs.popleft()
            case Stored():
                self._stored()
            case Lost(last):
                self._repair(last)
            case Refused(reason):
                self._refusals += 1
                log.warning("append_refused", task_id=self.task_id, reason=reason, tries=self._refusals)
                return RETRY_WAITS[min(self._refusals, len(RETRY_WAITS)) - 1]
            case Fenced():
                self.fail(TakenOver())
            case Closed():
                self.fail(LogClosed())
            case Unopened():
                self.fail(LogTailLost())
            case _:
                assert_never(result)
        self._refusals = 0
        return 0

    def _stored(self) -> None:
        if self._in_flight is None:
            return
        batch, items = self._in_flight
        self._in_flight = None
        self._kept.add(list(batch.events))
        for n, item in enumerate(items, batch.before.n + 1):
            for waiter in item.waiters:
                if not waiter.done():
                    waiter.set_result(Position(batch.last.ms, n))

    def _repair(self, last: Position) -> None:
        """The store is back without what stands after `last`: send that again, or give up on this epoch."""
        missing = self._kept.after(last)
        if missing is None:
            log.error("log_tail_lost", task_id=self.task_id, epoch=self.epoch, kept_after=str(self._kept.before))
            self.fail(LogTailLost())
            return
        log.warning("log_tail_repaired", task_id=self.task_id, after=str(last), events=len(missing))
        self._repairs = _batches(self, last, missing)

    def fail(self, failure: PlayheadError) -> None:
        """Nothing more goes into this log by this holder; whoever waits is told."""
        self._failure = failure
        items = [*(self._in_flight[1] if self._in_flight else ()), *self._pending]
        for waiter in (waiter for item in items for waiter in item.waiters):
            if not waiter.done():
                waiter.set_exception(type(failure)())
        self._in_flight = None
        self._pending.clear()
        self._repairs.clear()
        self._room.set()


def _batch(task_log: TaskLog, before: Position, last: Position, events: list[StoredEvent], *, terminal: bool) -> Batch:
    joint = frames(events)
    if len(joint) > MAX_FRAMES_BYTES:
        joint = b""
    return Batch(task_log.task_id, task_log.epoch, before, last, events, joint, terminal)


def _batches(task_log: TaskLog, before: Position, events: list[StoredEvent]) -> deque[Batch]:
    """Stored events as batches again, each within MAX_BATCH_BYTES."""
    batches: deque[Batch] = deque()
    run: list[StoredEvent] = []
    size = 0
    for event in events:
        if run and size + len(event[1]) > MAX_BATCH_BYTES:
            last = Position.stored(run[-1][0])
            batches.append(_batch(task_log, before, last, run, terminal=False))
            before, run, size = last, [], 0
        run.append(event)
        size += len(event[1])
    if run:
        batches.append(_batch(task_log, before, Position.stored(run[-1][0]), run, terminal=False))
    return batches
