"""One subscription a process and log, shared by all local readers: a short memory of what was hinted at.

Within a *generation* the channel knows a chain of batches, each beginning exactly where the one before it ended. As
soon as anything casts doubt on the chain (a confirmation that came again, another holder, a batch that does not join,
one without its frames) a new generation begins, and every reader looks into the store before it trusts it again.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from service.model.errors import LogUnavailable
from service.model.ids import Epoch, TaskId
from service.model.log import Hint, Interrupted, Listening
from service.model.position import Position
from service.model.trace import TraceParent
from service.registry.ports import HintFeed, Hints

TAIL_BYTES: Final = 256 * 1024
"""Frames kept a channel for readers that are a little behind; whoever is further behind reads the store."""

JOINED_POSITIONS: Final = 8
"""For so many positions the joined frames are kept, until the next hint: most readers stand at the same few."""

CONFIRM_SECONDS: Final = 5.0
"""How long a reader waits for its subscription."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """Frames that follow a position, up to `last`."""

    frames: bytes
    last: Position
    terminal: bool
    trace: TraceParent | None = None


@dataclass(frozen=True, slots=True)
class Nothing:
    """The chain does not reach beyond the position."""


@dataclass(frozen=True, slots=True)
class Unconnected:
    """The chain goes on beyond the position but does not join it: the store knows."""


@dataclass(slots=True, eq=False)
class Channel:
    """What this process hears of one log."""

    task_id: TaskId
    generation: int
    listening: bool = False
    readers: int = 0
    _epoch: Epoch | None = None
    _chain: list[Hint] = field(default_factory=list)
    _ends: list[Position] = field(default_factory=list)
    _bytes: int = 0
    _joined: dict[Position, Fresh] = field(default_factory=dict)
    _waiters: dict[asyncio.Future[bool], float] = field(default_factory=dict)

    def after(self, position: Position) -> Fresh | Nothing | Unconnected:
        """What the chain says beyond a position; the same bytes for every reader that stands there."""
        if not self._chain or position >= self._ends[-1]:
            return Nothing()
        fresh = self._joined.get(position)
        if fresh is None:
            first = bisect_right(self._ends, position)
            if self._chain[first].before != position:
                return Unconnected()
            hints = self._chain[first:]
            newest = hints[-1]
            fresh = Fresh(b"".join([hint.frames for hint in hints]), newest.last, newest.terminal, newest.trace)
            if len(self._joined) >= JOINED_POSITIONS:
                self._joined.clear()
            self._joined[position] = fresh
        return fresh

    async def confirmed(self) -> None:
        """Wait until the log is listened to. Raises LogUnavailable when that takes longer than CONFIRM_SECONDS."""
        deadline = asyncio.get_running_loop().time() + CONFIRM_SECONDS
        while not self.listening:
            if not await self.changed(deadline) and not self.listening:
                raise LogUnavailable

    async def changed(self, deadline: float) -> bool:
        """Wait for news; False where there was none until `deadline`, in the loop's time and kept coarsely."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = deadline
        try:
            return await waiter
        finally:
            self._waiters.pop(waiter, None)

    def take(self, hint: Hint, new_generation: Callable[[], int]) -> None:
        """A batch was appended."""
        if self._epoch is not None and hint.epoch < self._epoch:
            return  # a holder that has been fenced since: nothing of it is news
        joins = self._epoch in (None, hint.epoch) and (not self._ends or self._ends[-1] == hint.before)
        if not joins or not hint.frames:
            self.doubt(new_generation())
        self._epoch = hint.epoch
        if hint.frames:
            self._chain.append(hint)
            self._ends.append(hint.last)
            self._bytes += len(hint.frames)
            while self._bytes > TAIL_BYTES and len(self._chain) > 1:
                self._bytes -= len(self._chain[0].frames)
                del self._chain[0], self._ends[0]
        self._joined.clear()
        self.wake()

    def doubt(self, generation: int) -> None:
        """Begin anew: nothing that was heard before counts."""
        self.generation = generation
        self._chain.clear()
        self._ends.clear()
        self._joined.clear()
        self._bytes = 0
        self.wake()

    def wake(self, *, overdue_at: float | None = None) -> None:
        """Let the readers look again; with `overdue_at` only those whose deadline has passed."""
        for waiter, deadline in list(self._waiters.items()):
            if overdue_at is None or deadline <= overdue_at:
                del self._waiters[waiter]
                if not waiter.done():
                    waiter.set_result(overdue_at is None)


class Hub:
    """One process's ear. `hub` makes one."""

    def __init__(self, feed: HintFeed) -> None:
        self._feed = feed
        self._channels: dict[TaskId, Channel] = {}
        self._to_tell: dict[TaskId, None] = {}
        self._something_to_tell = asyncio.Event()
        self._generations = count(1)

    @asynccontextmanager
    async def attach(self, task_id: TaskId) -> AsyncGenerator[Channel]:
        """Listen to a log while the block runs, from when the channel is confirmed."""
        channel = self._channels.get(task_id)
        if channel is None:
            channel = self._channels[task_id] = Channel(task_id, self._next_generation())
            self._tell(task_id)
        channel.readers += 1
        try:
            yield channel
        finally:
            channel.readers -= 1
            if channel.readers == 0:
                del self._channels[task_id]
                self._tell(task_id)

    def _tell(self, task_id: TaskId) -> None:
        self._to_tell[task_id] = None
        self._something_to_tell.set()

    async def tell_for_ever(self) -> None:
        """Say to the feed what is wanted and what no more; no reader does, since it may be cut while it waits."""
        while True:
            await self._something_to_tell.wait()
            self._something_to_tell.clear()
            while self._to_tell:
                task_id = next(iter(self._to_tell))
                del self._to_tell[task_id]
                if task_id in self._channels:
                    await self._feed.subscribe(task_id)
                else:
                    await self._feed.unsubscribe(task_id)

    async def listen_for_ever(self) -> None:
        """Take in what the feed brings."""
        async with aclosing(self._feed.items()) as items:
            async for item in items:
                match item:
                    case Hint():
                        if (channel := self._channels.get(item.task_id)) is not None:
                            channel.take(item, self._next_generation)
                    case Listening():
                        if (channel := self._channels.get(item.task_id)) is not None:
                            channel.listening = True
                            channel.doubt(self._next_generation())
                    case Interrupted():
                        for channel in self._channels.values():
                            channel.listening = False

    async def tick_for_ever(self, seconds: float) -> None:
        """Wake the readers whose wait is over, in one sweep: a timer for each wait would cost more than the wait."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(seconds)
            for channel in list(self._channels.values()):
                channel.wake(overdue_at=loop.time())

    def _next_generation(self) -> int:
        return next(self._generations)


@asynccontextmanager
async def hub(hints: Hints, *, tick_seconds: float = 0.5) -> AsyncGenerator[Hub]:
    """A hub that listens while the block runs. Waits end at most `tick_seconds` late."""
    async with hints.connect() as feed, asyncio.TaskGroup() as tasks:
        made = Hub(feed)
        running = [
            tasks.create_task(made.listen_for_ever(), name="hub"),
            tasks.create_task(made.tell_for_ever(), name="hub-tell"),
            tasks.create_task(made.tick_for_ever(tick_seconds), name="hub-tick"),
        ]
        try:
            yield made
        finally:
            for task in running:
                task.cancel()
