"""A registry whose store and hints take time, fail and forget, on a loop whose time is ours."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from service.adapters.memory_log import MemoryHintFeed, MemoryHints, MemoryLogStore
from service.model.errors import LogUnavailable
from service.model.ids import Epoch, TaskId
from service.model.log import AppendResult, Batch, Fenced, Head, Hint, Opened, Page, TaskFacts
from service.model.position import Position
from service.registry.follow import Follower
from service.registry.hub import Hub, hub
from service.registry.pages import log_pages
from service.registry.writer import LogWriter, log_writer
from tests.races.loop import ShuffledLoop

HEARTBEAT_SECONDS = 15.0


class SlowFeed(MemoryHintFeed):
    """Asking takes a while."""

    def __init__(self, loop: ShuffledLoop) -> None:
        super().__init__()
        self._loop = loop

    async def subscribe(self, task_id: TaskId) -> None:
        await asyncio.sleep(self._loop.random.uniform(0, 0.01))
        await super().subscribe(task_id)


class SlowHints(MemoryHints):
    """Each hint arrives a while after it was sent, in order, or never."""

    def __init__(self, loop: ShuffledLoop) -> None:
        super().__init__()
        self.lose_next = 0
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


class SlowStore(MemoryLogStore):
    """Each call takes a while before and after it takes effect; of an append, the request or the reply may be lost."""

    def __init__(self, hints: SlowHints, loop: ShuffledLoop) -> None:
        super().__init__(hints)
        self.failing = 0.0
        self._loop = loop

    async def _travel(self) -> None:
        await asyncio.sleep(self._loop.random.uniform(0, 0.01))

    async def _fail(self) -> None:
        if self._loop.random.random() < self.failing:
            raise LogUnavailable

    async def open(self, task_id: TaskId, epoch: Epoch, floor: Position) -> Opened | Fenced:
        await self._travel()
        result = await super().open(task_id, epoch, floor)
        await self._travel()
        return result

    async def append(self, batches: Sequence[Batch]) -> Sequence[AppendResult]:
        await self._travel()
        await self._fail()
        results = await super().append(batches)
        await self._travel()
        await self._fail()
        return results

    async def read(self, task_id: TaskId, after: Position, count: int) -> Page:
        await self._travel()
        page = await super().read(task_id, after, count)
        await self._travel()
        return page

    async def head(self, task_id: TaskId) -> Head:
        await self._travel()
        return await super().head(task_id)


class Directory:
    """No log is closed for good here, so that every reader waits for its end."""

    async def facts(self, task_id: TaskId) -> TaskFacts | None:
        return TaskFacts(log_closed=False)


class World:
    """All of it, running until it is left."""

    def __init__(self, seed: int, follower: type[Follower] = Follower) -> None:
        self.loop = ShuffledLoop(seed)
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

    async def _run(self) -> None:
        async with AsyncExitStack() as stack:
            self.writer = await stack.enter_async_context(log_writer(self.store, lambda: int(self.loop.now * 1000)))
            self.hub = await stack.enter_async_context(hub(self.hints))
            pages = await stack.enter_async_context(log_pages(self.store, self.loop.time))
            self.follower = self._follower(pages, self.hub, Directory(), heartbeat_seconds=HEARTBEAT_SECONDS)
            self._ready.set()
            await self._stop.wait()

    def pass_time(self, seconds: float) -> None:
        """Let everything run for so long."""
        self.loop.run(asyncio.sleep(seconds))

    def leave(self) -> None:
        """Stop everything; nothing may be left over."""
        self._stop.set()
        self.loop.run(asyncio.wait_for(self._main, 60))
        left = asyncio.all_tasks(self.loop)
        assert not left, left
        self.loop.close()
