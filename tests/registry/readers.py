"""A reader over memory: what is needed to follow, and faults for what is hinted at."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from service.adapters.memory_archive import MemoryArchive
from service.adapters.memory_log import MemoryHints, MemoryLogStore
from service.model.encoding import frames
from service.model.ids import Epoch, TaskId
from service.model.log import Hint, TaskFacts
from service.model.position import BEGINNING, Position
from service.registry.archive import Archivist
from service.registry.follow import Begun, Ended, Followed, Follower, Frames, Gap, Heartbeat, Vanished
from service.registry.hub import Hub, hub
from service.registry.pages import Pages, log_pages
from service.registry.task_log import TaskLog
from service.registry.writer import LogWriter, log_writer

HEARTBEAT_SECONDS = 0.2
HOT_TTL_SECONDS = 3600


class Swallowing(MemoryHints):
    """Hints of which some never arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.swallow: Callable[[Hint], bool] = lambda _: False
        self.published: list[Hint] = []

    def publish(self, hint: Hint) -> None:
        self.published.append(hint)
        if not self.swallow(hint):
            super().publish(hint)


@dataclass
class Directory:
    """What the database would know, and how often it was asked."""

    archive: MemoryArchive = field(default_factory=MemoryArchive)
    closed: set[TaskId] = field(default_factory=set)
    asked: int = 0

    async def facts(self, task_id: TaskId) -> TaskFacts | None:
        self.asked += 1
        return await self.archive.facts(task_id) or TaskFacts(task_id in self.closed)


@dataclass(slots=True)
class Library:
    """A whole registry in memory."""

    hints: Swallowing
    store: MemoryLogStore
    writer: LogWriter
    hub: Hub
    pages: Pages
    directory: Directory
    follower: Follower
    archive: MemoryArchive
    archivist: Archivist

    async def open(self, task_id: TaskId, epoch: int = 1) -> TaskLog:
        return await self.writer.open(task_id, Epoch(epoch))

    async def log(self, task_id: TaskId) -> bytes:
        """The whole log as the frames that a reader must get."""
        return frames((await self.store.read(task_id, BEGINNING, 100_000)).events)


@asynccontextmanager
async def library() -> AsyncIterator[Library]:
    hints = Swallowing()
    clock = asyncio.get_running_loop().time
    store, archive = MemoryLogStore(hints, clock), MemoryArchive()
    async with (
        log_writer(store, lambda: int(clock() * 1000) + 1_763_700_000_000) as writer,
        hub(hints, tick_seconds=HEARTBEAT_SECONDS / 8) as ear,
        log_pages(store, clock) as pages,
        log_pages(archive, clock) as archived,
    ):
        directory = Directory(archive)
        follower = Follower(pages, archived, ear, directory, heartbeat_seconds=HEARTBEAT_SECONDS)
        archivist = Archivist(store, store, archive, hot_ttl_seconds=HOT_TTL_SECONDS)
        yield Library(hints, store, writer, ear, pages, directory, follower, archive, archivist)


class Reader:
    """Follows in a task of its own, and keeps what it got."""

    def __init__(self, follower: Follower, task_id: TaskId, after: Position = BEGINNING) -> None:
        self.items: list[Followed] = []
        self.got = b""
        self.position = after
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._run(follower.follow(task_id, after)))

    @property
    def gaps(self) -> list[Gap]:
        begun = [item.gap for item in self.items if isinstance(item, Begun) and item.gap is not None]
        return begun + [item for item in self.items if isinstance(item, Gap)]

    async def _run(self, items: AsyncGenerator[Followed]) -> None:
        try:
            async for item in items:
                self.items.append(item)
                if isinstance(item, Frames):
                    self.got += item.frames
                    self.position = item.last
                self._news.set()
        finally:
            await items.aclose()
            self._news.set()

    async def until(self, holds: Callable[["Reader"], bool]) -> None:
        """Wait until something holds of what was got; at most five seconds."""
        async with asyncio.timeout(5):
            while not holds(self):
                assert not self._task.done() or self._task.exception() is None, self._task.exception()
                assert not self._task.done(), f"the stream ended: {self.items[-3:]}"
                self._news.clear()
                await self._news.wait()

    async def begun(self) -> Begun:
        await self.until(lambda reader: bool(reader.items))
        begun = self.items[0]
        assert isinstance(begun, Begun)
        return begun

    async def reached(self, position: Position) -> None:
        await self.until(lambda reader: reader.position >= position)

    async def beats(self, count: int = 1) -> None:
        """Wait for so many more heartbeats."""
        before = sum(isinstance(item, Heartbeat) for item in self.items)
        await self.until(lambda reader: sum(isinstance(i, Heartbeat) for i in reader.items) >= before + count)

    async def end(self) -> Followed:
        """Wait for the end of the stream; answers its last item."""
        async with asyncio.timeout(8):
            await self._task
        last = self.items[-1]
        assert isinstance(last, Begun | Ended | Vanished)
        return last

    async def until_ended(self) -> None:
        """Wait for the end of the stream, which must be that of the log."""
        last = await self.end()
        assert isinstance(last.end if isinstance(last, Begun) else last, Ended), last

    async def leave(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
