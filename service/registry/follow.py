"""The only way out of a log: from a position, what is stored, hot or archived, then live, until the terminal event.

One loop, one path. A reader is a cursor: it subscribes first and reads after (the other order loses events), takes what
is hinted at only where it joins the cursor exactly, and looks into the store in every other case. Who stops reading is
not waited for and costs nothing here: it goes on from its cursor when it comes back.

The hot store is asked first, and the database only about a log of which the hot store lacks something, or with which
it does not answer a reader who comes. If the log is archived, the reader goes on in the archive, which has it to its
end: the same events, the same rules for gaps.

Once a reader has begun, it never waits for a store itself: what is to be asked is asked in a task of the reading's own,
beside which the heartbeats go on. What the channel says and what pages are at hand need no such task.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, assert_never

from service.model.encoding import encode
from service.model.errors import DatabaseUnavailable, LogUnavailable, NotFound, StoreUnavailable
from service.model.events import DataGap, GapData
from service.model.ids import TaskId
from service.model.log import TaskFacts
from service.model.position import BEGINNING, Position
from service.model.trace import TraceParent
from service.registry.hub import Channel, Fresh, Hub, Nothing, Unconnected
from service.registry.pages import FramePage, Pages
from service.registry.ports import TaskDirectory

LOST_TAIL_PATIENCE_SECONDS: Final = 3.0
"""A position beyond the end may be of a tail that its writer is about to restore: so long a gap is not spoken of."""

RETRY_SECONDS: Final = 0.25
"""Between two looks into a store that is away, or at a log that is behind what was said of it."""

STILL_WRITTEN: Final = TaskFacts(log_closed=False)
"""What is taken for granted of a log that the database was not asked about."""

GONE: Final = TaskFacts(log_closed=True)
"""What is true of a log that has lost its task while it was read."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The reader cannot have what it asked for; what it gets instead begins with the next frames."""

    data: GapData

    @property
    def frame(self) -> bytes:
        """What the reader is told: no position stands with it, since it is no event of the log."""
        return b"data: %b\n\n" % encode(DataGap(self.data))


@dataclass(frozen=True, slots=True)
class Frames:
    """Events in their order, as SSE bytes, up to and including `last`."""

    frames: bytes
    last: Position
    trace: TraceParent | None = None
    """The span in which the newest of them was written, where that is known."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing happened for a while, and nothing was missed."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The reader has the terminal event; nothing follows."""


@dataclass(frozen=True, slots=True)
class Vanished:
    """The log was closed and no store has it any more: there is no terminal event to give. Nothing follows."""


@dataclass(frozen=True, slots=True)
class Begun:
    """Always first: the reader listens, and this is known of its position."""

    gap: Gap | None
    end: Ended | Vanished | None
    """Set where nothing follows, since there is nothing behind the position and never will be. Vanished has a gap."""


Followed = Begun | Gap | Frames | Heartbeat | Ended | Vanished
Stored = Begun | Gap | Frames | Ended | Vanished

MAX_BEATS: Final = 2
"""So many heartbeats with nothing between them, and the store is given up by who reads only what is stored. One may be
due because whoever reads took so long."""


class Follower:
    """Follows logs for the readers of one process."""

    def __init__(
        self, pages: Pages, archived: Pages, hub: Hub, directory: TaskDirectory, *, heartbeat_seconds: float = 15.0
    ) -> None:
        self._pages = pages
        self._archived = archived
        self._hub = hub
        self._directory = directory
        self._heartbeat_seconds = heartbeat_seconds

    async def follow(self, task_id: TaskId, after: Position) -> AsyncGenerator[Followed]:
        """A log from a position on: Begun, then frames as they come, until Ended or Vanished; or Begun alone.

        Every gap is told once, before the frames behind it. Raises only in place of Begun: NotFound where the hot store
        has nothing and there is no such task, StoreUnavailable where the log cannot be read now. Later on a store that
        is away or hangs is waited for, and the heartbeats go on.
        """
        async with self._hub.attach(task_id) as channel:
            sources = (self._pages, self._archived)
            reading = _Reading(sources, self._directory, channel, after, self._heartbeat_seconds)
            async with aclosing(reading.items()) as items:
                async for item in items:
                    yield item

    async def read(self, task_id: TaskId, after: Position) -> AsyncGenerator[Stored]:
        """What is stored of a log from a position on: the same, but it ends where `follow` would wait for more.

        Raises StoreUnavailable also later, where a store has not answered for MAX_BEATS heartbeats.
        """
        async with self._hub.attach(task_id) as channel:
            sources = (self._pages, self._archived)
            reading = _Reading(sources, self._directory, channel, after, self._heartbeat_seconds, waits=False)
            beats = 0
            async with aclosing(reading.items()) as items:
                async for item in items:
                    if not isinstance(item, Heartbeat):
                        beats = 0
                        yield item
                        continue
                    beats += 1
                    if beats == MAX_BEATS:
                        raise LogUnavailable


class _Reading:
    """One reader's way through a log."""

    def __init__(
        self,
        sources: tuple[Pages, Pages],
        directory: TaskDirectory,
        channel: Channel,
        after: Position,
        heartbeat_seconds: float,
        *,
        waits: bool = True,
    ) -> None:
        self._pages, self._archived = sources
        """Where it reads, and where it goes on for good once the first one lacks something of an archived log."""
        self._directory = directory
        self._channel = channel
        self._cursor = after
        self._heartbeat_seconds = heartbeat_seconds
        self._beat_at = 0.0
        self._ready: deque[Followed] = deque()
        self._trusted: int | None = None
        """The generation of the channel in which the cursor has been seen to stand where the store ends."""
        self._moved = False
        """Whether the last look brought anything."""
        self._told = False
        """Whether the reader knows that what it gets next does not join what it has."""
        self._has_begun = False
        self._asking: asyncio.Task[None] | None = None
        """What the stores are being asked. Until it is answered nothing else is looked at."""
        self._unsure = False
        """Whether a heartbeat went out since the database was asked whether there will be more."""
        self._waits = waits
        """Whether what is not written yet is waited for."""
        self._asked_at: Position | None = None
        """Who does not wait has asked the database here whether there is more elsewhere."""

    async def items(self) -> AsyncGenerator[Followed]:
        self._rest()
        await self._open()
        gap = self._ready[0] if self._ready and isinstance(self._ready[0], Gap) else None
        if gap is not None:
            self._ready.popleft()
        end = self._ready[0] if self._ready and isinstance(self._ready[0], Ended | Vanished) else None
        self._has_begun = True
        try:
            yield Begun(gap, end)
            over = end is not None
            while not over:
                item = await self._next()
                if item is None:
                    return
                yield item
                over = isinstance(item, Ended | Vanished)
        finally:
            if self._asking is not None:
                self._asking.cancel()
                await asyncio.gather(self._asking, return_exceptions=True)

    async def _open(self) -> None:
        """Find out where the reader stands; nothing is said before that is known."""
        try:
            await self._channel.confirmed()
            await self._look()
        except LogUnavailable:
            if not self._turns_to_archive(await self._facts()):
                raise
            await self._look()
        if not self._ready and self._cursor != BEGINNING:
            await self._ask_for_more()
            if self._trusted is None and not self._ready:
                await self._look()

    async def _next(self) -> Followed | None:
        """None where nothing more is stored, for who does not wait for it."""
        while not self._ready:
            if self._asking is not None:
                await self._hear(self._asking)
            elif self._trusted == self._channel.generation and self._waits:
                await self._listen()
            elif self._trusted == self._channel.generation:
                if self._asked_at == self._cursor:
                    return None
                self._asked_at = self._cursor
                self._ask(self._ask_for_more)
            elif not await self._turn_page():
                self._ask(self._look)
        return self._ready.popleft()

    def _ask(self, question: Callable[[], Awaitable[None]]) -> None:
        self._asking = asyncio.create_task(self._answered(question), name="reading")

    async def _answered(self, question: Callable[[], Awaitable[None]]) -> None:
        """The question asked; with a pause behind it where a store is away."""
        try:
            await question()
        except StoreUnavailable:
            await _pause()

    async def _hear(self, asking: asyncio.Task[None]) -> None:
        """Wait until the stores have answered, or until the next heartbeat is due."""
        answered, _ = await asyncio.wait([asking], timeout=self._beat_at - asyncio.get_running_loop().time())
        if answered:
            self._asking = None
            asking.result()
        else:
            self._beat()

    async def _turn_page(self) -> bool:
        """Take the next page where it joins the cursor; False where there is more to ask.

        It needs no task: it is waited for until the next heartbeat is due.
        """
        generation = self._channel.generation
        try:
            async with asyncio.timeout_at(self._beat_at):
                page = await self._page()
        except TimeoutError:
            self._beat()
            return False
        except StoreUnavailable:
            self._ask(_pause)
            return True
        if page.head.last == BEGINNING or not (self._told or _missing(page, self._cursor) is None):
            return False
        self._take(page, generation)
        return True

    async def _look(self) -> None:
        """Take the next page from the store, and trust the channel once the cursor stands where the store ends."""
        generation = self._channel.generation
        page = await self._page()
        missing = None if self._told else _missing(page, self._cursor)
        facts = STILL_WRITTEN
        if missing is not None or page.head.last == BEGINNING:
            facts = await self._facts()  # nothing is said to be lost that may well be archived
            if self._turns_to_archive(facts):
                await self._look()
                return
        if missing is not None and _is_beyond(page):
            page = await self._await_tail(page)
            missing = _missing(page, self._cursor)
        if missing is not None:
            self._ready.append(await self._gap(page.head.last, missing))
            self._told = True
            if not page.count:
                # Nothing stands above the position: the last event is given again, so that the reader has one.
                last = page.head.last
                self._cursor = BEGINNING if last == BEGINNING else Position(last.ms, last.n - 1)
                page = await self._page()
        self._take(page, generation)
        if page.head.last == BEGINNING and await self._is_gone(facts):
            await self._vanish()

    def _take(self, page: FramePage, generation: int) -> None:
        self._moved = page.count > 0
        if page.count:
            self._cursor, self._told = page.last, False
            self._deliver(page.frames, page.trace, ended=page.head.closed and page.last == page.head.last)
        elif self._told and page.head.last != BEGINNING:
            # The log's own end is gone from the store: a closed log has no more to give, an open one goes on there.
            self._cursor = page.head.last
            if page.head.closed:
                self._ready.append(Vanished())
        elif page.head.closed:
            self._ready.append(Ended())
        self._trusted = generation if self._cursor.n >= page.head.last.n else None

    async def _listen(self) -> None:
        """Take what the channel says where it joins the cursor exactly; otherwise trust it no more."""
        match self._channel.after(self._cursor):
            case Fresh(frames, last, terminal, trace):
                self._cursor, self._moved, self._told = last, True, False
                self._deliver(frames, trace, ended=terminal)
            case Unconnected():
                self._trusted = None
                if not self._moved:
                    self._ask(self._give_time)
            case Nothing():
                if not await self._channel.changed(self._beat_at):
                    self._beat()
                    self._ask(self._make_sure)
            case other:
                assert_never(other)

    async def _give_time(self) -> None:
        """The store did not know better a moment ago. What the channel knows of may be lost in it, or archived."""
        await asyncio.sleep(RETRY_SECONDS)
        if self._unsure:
            await self._ask_for_more()

    async def _make_sure(self) -> None:
        """A hint may have been lost, the last one too: seen here at the latest."""
        head = await self._pages.head(self._channel.task_id)
        if head.last != self._cursor or head.closed:
            self._trusted = None
        else:
            await self._ask_for_more()

    def _deliver(self, frames: bytes, trace: TraceParent | None, *, ended: bool) -> None:
        self._rest()
        self._ready.append(Frames(frames, self._cursor, trace))
        if ended:
            self._ready.append(Ended())

    async def _page(self) -> FramePage:
        return await self._pages.read(self._channel.task_id, self._cursor, self._channel.generation)

    async def _await_tail(self, page: FramePage) -> FramePage:
        """The page again, when the log has come to reach the position, or after LOST_TAIL_PATIENCE_SECONDS as it is."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LOST_TAIL_PATIENCE_SECONDS
        while _is_beyond(page) and loop.time() < deadline:
            await asyncio.sleep(RETRY_SECONDS)
            page = await self._page()
        return page

    async def _gap(self, latest: Position, missing: int) -> Gap:
        oldest = await self._pages.oldest(self._channel.task_id)
        return Gap(GapData(str(self._cursor), str(oldest), str(latest), missing))

    async def _vanish(self) -> None:
        """The cursor stands at the end of what there is, and nothing more will ever come."""
        if not self._told:
            self._ready.append(await self._gap(self._cursor, 0))
        self._ready.append(Vanished())

    async def _ask_for_more(self) -> None:
        """The cursor stands at the end of an open log, which is still written, or archived whole, or gone for good."""
        self._unsure = False
        try:
            facts = await self._facts()
        except DatabaseUnavailable:
            facts = STILL_WRITTEN
        if not self._turns_to_archive(facts) and await self._is_gone(facts):
            await self._vanish()

    async def _facts(self) -> TaskFacts:
        """What the database knows. Raises DatabaseUnavailable; and NotFound in place of Begun."""
        facts = await self._directory.facts(self._channel.task_id)
        if facts is None and not self._has_begun:
            raise NotFound
        return facts or GONE

    def _turns_to_archive(self, facts: TaskFacts) -> bool:
        """Whether the reader goes on in the archive, where it did not read so far."""
        turns = facts.log_archived and self._pages is not self._archived
        if turns:
            self._pages, self._trusted = self._archived, None
        return turns

    async def _is_gone(self, facts: TaskFacts) -> bool:
        """Whether a log whose end the store does not have will never be written again."""
        if not facts.log_closed:
            return False
        # It may have been written and closed since the store was looked at.
        head = await self._pages.head(self._channel.task_id)
        return not head.closed and head.last <= self._cursor

    def _beat(self) -> None:
        self._ready.append(Heartbeat())
        self._unsure = True
        self._rest()

    def _rest(self) -> None:
        """The reader has just got something: the next heartbeat is a whole interval away."""
        self._beat_at = asyncio.get_running_loop().time() + self._heartbeat_seconds


async def _pause() -> None:
    await asyncio.sleep(RETRY_SECONDS)


def _missing(page: FramePage, cursor: Position) -> int | None:
    """How many events are known to be gone between the cursor and the page; None where the page joins the cursor."""
    following = page.first.n if page.count else page.head.last.n + 1
    missing = max(0, following - cursor.n - 1)
    return None if page.known and missing == 0 else missing


def _is_beyond(page: FramePage) -> bool:
    """Whether the position is not in the log, but might come to be."""
    return not page.known and not page.count and not page.head.closed
