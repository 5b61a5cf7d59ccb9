"""One open log in its holder's hands: what waits to be stored, what is under way, what may have to be sent again."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, assert_never

import structlog

from service.model.encoding import encode, framed, joined
from service.model.errors import InvalidBatch, LogClosed, LogTailLost, PlayheadError, TakenOver
from service.model.events import Chunk, Finish
from service.model.ids import Epoch, TaskId
from service.model.log import (
    AppendResult,
    Batch,
    Closed,
    Fenced,
    Invalid,
    Lost,
    Opened,
    Refused,
    Stored,
    Unopened,
)
from service.model.position import Position
from service.model.trace import TraceParent

log = structlog.get_logger()

MAX_BATCH_BYTES: Final = 256 * 1024
"""A batch takes no further event beyond this."""

MAX_BUFFERED_BYTES: Final = 1024 * 1024
"""What may wait in one log; beyond it `put` and `append` wait until the store has taken some."""

MAX_KEPT_BYTES: Final = 1024 * 1024
"""How much of a log's newest part its writer keeps, to send it again to a store that lost it."""

RETRY_WAITS: Final = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds before a batch is sent again; the last one from then on."""


@dataclass(slots=True)
class _Kept:
    """The newest stored batches of a log, at most MAX_KEPT_BYTES of them."""

    batches: deque[Batch] = field(default_factory=deque)
    size: int = 0

    def add(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.size += len(batch.frames)
        while self.size > MAX_KEPT_BYTES:
            self.size -= len(self.batches.popleft().frames)

    def after(self, last: Position) -> deque[Batch]:
        """The batches that hold what stands after `last`; none where that is not kept, or of another history."""
        missing = deque(batch for batch in self.batches if batch.last.n > last.n)
        if not missing:
            return missing
        before, end = missing[0].before, missing[0].last
        joins = last == before or (last.n > before.n and last.ms == end.ms)
        return missing if joins else deque()


class TaskLog:
    """One open log in its holder's hands.

    The holder alone appends. When it is no longer the holder, every call raises what happened: TakenOver, LogClosed, or
    LogTailLost, after which a new epoch may go on; InvalidBatch is a mistake in the house. While the store is away the
    calls wait: for as long as the caller does, who knows when its lease ends.
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
        trace: TraceParent | None = None,
    ) -> None:
        self.task_id = task_id
        self.epoch = epoch
        self.was_closed = opened.closed
        self._clock_ms = clock_ms
        self._wake = wake
        self._trace = trace
        self._last = opened.last
        self._min_ms = max(opened.last.ms, min_ms)
        self._kept = _Kept()
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._in_flight: Batch | None = None
        self._repairs: deque[Batch] = deque()
        self._waiters: deque[tuple[int, asyncio.Future[Position]]] = deque()
        """Who waits for which number to be stored, in their order."""
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
            await self.put(chunk)
        return await self.flush()

    async def put(self, chunk: Chunk) -> None:
        """Hand an event in, to be stored soon: returns at once unless too much is waiting already.

        Neighbouring deltas of one part that wait together may become one event.
        """
        data = encode(chunk)
        await self.room()
        if self._has_finish:
            raise LogClosed
        self._has_finish = isinstance(chunk, Finish)
        self._pending_bytes += len(data)
        merged = joined(self._pending[-1], data) if self._pending else None
        if merged is None:
            self._pending.append(data)
        else:
            self._pending_bytes += len(merged) - len(self._pending[-1]) - len(data)
            self._pending[-1] = merged
        self._wake(self)

    async def room(self) -> None:
        """Wait until an event can be handed in without waiting."""
        while self._pending_bytes >= MAX_BUFFERED_BYTES and self._failure is None:
            self._room.clear()
            await self._room.wait()
        self._raise_failure()

    async def flush(self) -> Position:
        """Wait until everything that was handed in is stored."""
        self._raise_failure()
        if self._in_flight is None and not self._pending:
            return self._last
        stored: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self._waiters.append((self._last.n + len(self._pending), stored))
        return await stored

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
        return self._in_flight

    def _freeze(self) -> Batch:
        """Number what has gathered. From here on these bytes are what the log says at these positions."""
        data = [self._pending.popleft()]
        size = len(data[0])
        while self._pending and size + len(self._pending[0]) <= MAX_BATCH_BYTES:
            data.append(self._pending.popleft())
            size += len(data[-1])
        self._pending_bytes -= size
        self._room.set()
        before = self._last
        ms = self._min_ms = max(self._clock_ms(), self._min_ms)
        self._last = Position(ms, before.n + len(data))
        terminal = self._has_finish and not self._pending
        frames = framed(ms, before.n + 1, data)
        return Batch(self.task_id, self.epoch, before, self._last, frames, terminal, self._trace)

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
                if self._refusals == 1:
                    log.warning("append_refused", task_id=self.task_id, reason=reason)
                return RETRY_WAITS[min(self._refusals, len(RETRY_WAITS)) - 1]
            case Fenced():
                self.fail(TakenOver())
            case Closed():
                self.fail(LogClosed())
            case Unopened():
                self.fail(LogTailLost())
            case Invalid():
                self.fail(InvalidBatch())
            case _:
                assert_never(result)
        self._refusals = 0
        return 0

    def _stored(self) -> None:
        batch, self._in_flight = self._in_flight, None
        if batch is None:
            return
        self._kept.add(batch)
        while self._waiters and self._waiters[0][0] <= batch.last.n:
            n, waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(Position(batch.last.ms, n))

    def _repair(self, last: Position) -> None:
        """The store is back without what stands after `last`: send that again, or give up on this epoch."""
        self._repairs = self._kept.after(last)
        if self._repairs:
            log.warning("log_tail_repaired", task_id=self.task_id, after=str(last), batches=len(self._repairs))
        else:
            log.error("log_tail_lost", task_id=self.task_id, epoch=self.epoch, after=str(last))
            self.fail(LogTailLost())

    def fail(self, failure: PlayheadError) -> None:
        """Nothing more goes into this log by this holder; whoever waits is told."""
        self._failure = failure
        for _, waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(type(failure)())
        self._waiters.clear()
        self._in_flight = None
        self._pending.clear()
        self._repairs.clear()
        self._room.set()
