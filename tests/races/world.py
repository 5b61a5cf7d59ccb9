"""A registry whose store and hints take time, fail and forget, on a loop whose time is ours."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from contextvars import Context

from service.adapters.memory_archive import MemoryArchive
from service.adapters.memory_doorbell import MemoryDoorbell
from service.adapters.memory_log import MemoryHintFeed, MemoryHints, MemoryLogStore
from service.model.encoding import unframed
from service.model.errors import LogUnavailable
from service.model.ids import Epoch, TaskId
from service.model.log import (
    AppendResult,
    Batch,
    Fenced,
    Head,
    Hint,
    Interrupted,
    Listening,
    Opened,
    Page,
    Stored,
    StoredEvent,
    TaskFacts,
)
from service.model.position import Position
from service.model.task import Rung
from service.registry.follow import Follower
from service.registry.hub import Hub, hub
from service.registry.pages import log_pages
from service.registry.writer import LogWriter, log_writer
from tests.races.loop import ShuffledLoop
from tests.races.wire import at_once

HEARTBEAT_SECONDS = 15.0
SOON_SECONDS = 3.0
"""Far below a heartbeat, far above all that anything takes here."""


class SlowFeed(MemoryHintFeed):
    """Asking takes a while. While a broken connection is on its way back, what is hinted at is lost."""

    def __init__(self, loop: ShuffledLoop) -> None:
        super().__init__()
        self._loop = loop
        self._coming_back: asyncio.TimerHandle | None = None

    async def subscribe(self, task_id: TaskId) -> None:
        await asyncio.sleep(self._loop.random.uniform(0, 0.01))
        self._wanted.add(task_id)
        if self._coming_back is None:
            self._items.put_nowait(Listening(task_id))

    def deliver(self, hint: Hint) -> None:
        if self._coming_back is None:
            super().deliver(hint)

    def interrupt(self, *, said: bool = True) -> None:
        """Break the connection; not `said`, it comes back as by some libraries: confirmed again, that is all."""
        if said:
            self._items.put_nowait(Interrupted())
        if self._coming_back is not None:
            self._coming_back.cancel()
        self._coming_back = self._loop.call_later(self._loop.random.uniform(0, 0.05), self._come_back)

    def _come_back(self) -> None:
        self._coming_back = None
        for task_id in sorted(self._wanted):
            self._items.put_nowait(Listening(task_id))


class SlowHints(MemoryHints):
    """Each hint arrives a while after it was sent, in order, or never; some come again, late."""

    feeds: list[SlowFeed]  # type: ignore[assignment]

    def __init__(self, loop: ShuffledLoop) -> None:
        super().__init__()
        self.lose_next = 0
        self.echoing = False
        self._loop = loop
        self._free_at = 0.0

    def new_feed(self) -> SlowFeed:
        return SlowFeed(self._loop)

    def publish(self, hint: Hint) -> None:
        if self.lose_next:
            self.lose_next -= 1
            return
        self._free_at = max(self._free_at, self._loop.now + self._loop.random.uniform(0, 0.01))
        self._loop.call_at(self._free_at, super().publish, hint)
        if self.echoing:
            self._loop.call_later(self._loop.random.uniform(0.01, 0.3), super().publish, hint)


class SlowBell(MemoryDoorbell):
    """A ring takes a while, or is lost."""

    def __init__(self, loop: ShuffledLoop) -> None:
        super().__init__()
        self.losing = 0.0
        self._loop = loop

    async def ring(self, rung: Rung) -> None:
        if self._loop.random.random() >= self.losing:
            self._loop.call_later(self._loop.random.uniform(0, 0.02), self._arrive, rung, context=Context())

    def _arrive(self, rung: Rung) -> None:
        at_once(super().ring(rung))


class SlowStore(MemoryLogStore):
    """Each call takes a while before and after it takes effect, or fails; of an append, the reply alone may be lost."""

    def __init__(self, hints: SlowHints, loop: ShuffledLoop) -> None:
        super().__init__(hints)
        self.failing_appends = self.failing_reads = 0.0
        """How likely it is that a request, or a reply, is lost."""
        self.reply_seconds = 0.0
        """So long the answer to a reading may take more than usual: what it says is old when it arrives."""
        self.ever_stored: set[StoredEvent] = set()
        self._loop = loop

    async def _travel(self, longer: float = 0) -> None:
        await asyncio.sleep(self._loop.random.uniform(0, 0.01 + longer))

    async def _travel_back(self) -> None:
        """Now and then an answer takes long, as over a connection that others use too."""
        await self._travel(max(self.reply_seconds, 0.2 if self._loop.random.random() < 0.1 else 0.0))

    def _fail(self, how_likely: float) -> None:
        if self._loop.random.random() < how_likely:
            raise LogUnavailable

    async def open(self, task_id: TaskId, epoch: Epoch, floor: Position) -> Opened | Fenced:
        await self._travel()
        result = await super().open(task_id, epoch, floor)
        await self._travel()
        return result

    async def append(self, batches: Sequence[Batch]) -> Sequence[AppendResult]:
        for batch in batches:
            is_finish = [data.startswith(b'{"type":"finish",') for _, data in unframed(batch.frames)]
            assert batch.terminal == is_finish[-1], "a batch closes the log with its last event, and with a finish only"
            assert not any(is_finish[:-1]), "something stands behind the finish"
        await self._travel()
        self._fail(self.failing_appends)
        results = await super().append(batches)
        for batch, result in zip(batches, results, strict=True):
            if isinstance(result, Stored):
                self.ever_stored.update(unframed(batch.frames))
        await self._travel()
        self._fail(self.failing_appends)
        return results

    async def read(self, task_id: TaskId, after: Position, count: int) -> Page:
        await self._travel()
        self._fail(self.failing_reads)
        page = await super().read(task_id, after, count)
        await self._travel_back()
        self._fail(self.failing_reads)
        return page

    async def head(self, task_id: TaskId) -> Head:
        await self._travel()
        self._fail(self.failing_reads)
        head = await super().head(task_id)
        await self._travel_back()
        return head


class Directory:
    """No log is closed for good here, so that every reader waits for its end."""

    async def facts(self, task_id: TaskId) -> TaskFacts | None:
        return TaskFacts(log_closed=False)


class World:
    """All of it, running until it is left."""

    def __init__(
        self, seed: int, follower: type[Follower] = Follower, *, heartbeat_seconds: float = HEARTBEAT_SECONDS
    ) -> None:
        self.loop = ShuffledLoop(seed)
        self._heartbeat_seconds = heartbeat_seconds
        self.hints = SlowHints(self.loop)
        self.store = SlowStore(self.hints, self.loop)
        self._follower = follower
        self._stop = asyncio.Event()
        self._ready = asyncio.Event()
        self._main = self.loop.create_task(self._run())
        self.loop.run(self._ready.wait())

    writer: LogWriter
    hub: Hub
    follower: Follower
    context = None

    async def _run(self) -> None:
        async with AsyncExitStack() as stack:
            self.writer = await stack.enter_async_context(log_writer(self.store, lambda: int(self.loop.now * 1000)))
            self.hub = await stack.enter_async_context(hub(self.hints))
            pages = await stack.enter_async_context(log_pages(self.store, self.loop.time))
            archived = await stack.enter_async_context(log_pages(MemoryArchive(), self.loop.time))
            self.follower = self._follower(
                pages, archived, self.hub, Directory(), heartbeat_seconds=self._heartbeat_seconds
            )
            self._ready.set()
            await self._stop.wait()

    def calm(self) -> None:
        """From here on nothing fails and nothing is lost; what is under way goes on as it is."""
        self.hints.lose_next, self.hints.echoing = 0, False
        self.store.failing_appends = self.store.failing_reads = self.store.reply_seconds = 0.0

    def pass_time(self, seconds: float) -> None:
        """Let everything run for so long."""
        self.loop.run(asyncio.sleep(seconds))
        if self._main.done():
            self._main.result()

    def leave(self) -> None:
        """Stop everything; nothing may be left over."""
        self._stop.set()
        self.loop.run(asyncio.wait_for(self._main, 60))
        left = asyncio.all_tasks(self.loop)
        assert not left, left
        self.loop.close()
