"""A page of a log for programs that poll: what is stored behind a position, read as a stream reads it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, assert_never

from service.model.encoding import is_terminal, unframed
from service.model.errors import PlayheadError, StoreUnavailable
from service.model.events import GapData
from service.model.ids import TaskId
from service.model.log import StoredEvent
from service.model.position import Position
from service.registry.follow import Begun, Ended, Follower, Frames, Gap, Stored, Vanished

MAX_PAGE_BYTES: Final = 1024 * 1024
"""Of events, together; an event is a quarter of it at most."""


class LogGone(PlayheadError):
    """The log has ended, and behind this position no store has anything of it."""

    error_type = "gap"


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in their order."""

    events: Sequence[StoredEvent]
    last: Position
    """Where the next page goes on."""
    closed: bool
    """Whether the log has ended and nothing follows."""
    gap: GapData | None
    """What is missing between the position that was asked for and the first event. A page ends in front of a gap."""


@dataclass(slots=True)
class _Filling:
    limit: int
    last: Position
    events: list[StoredEvent] = field(default_factory=list)
    size: int = 0
    gap: Gap | None = None

    async def fill(self, items: AsyncGenerator[Stored]) -> None:
        """Take from these until there is no more, or no more room. A gap behind events is the next page's."""
        async for item in items:
            match item:
                case Frames(frames):
                    if not self.take(frames):
                        return
                case Gap():
                    if self.events:
                        return
                    self.gap = item
                case Vanished():
                    if not self.events:
                        raise LogGone
                case Ended() | Begun():
                    return
                case other:
                    assert_never(other)

    def take(self, frames: bytes) -> bool:
        """Take what has room; whether that was all of it and there is room for more."""
        for event in unframed(frames):
            if len(self.events) == self.limit or (self.events and self.size + len(event[1]) > MAX_PAGE_BYTES):
                return False
            self.events.append(event)
            self.size += len(event[1])
            self.last = Position.stored(event[0])
        return len(self.events) < self.limit

    @property
    def has_end(self) -> bool:
        return bool(self.events) and is_terminal(self.events[-1][1])


async def event_page(follower: Follower, task_id: TaskId, after: Position, limit: int) -> EventPage:
    """The next events that are stored behind a position: at most `limit`, and MAX_PAGE_BYTES.

    Raises NotFound, LogGone, and StoreUnavailable where there is nothing to give meanwhile.
    """
    page = _Filling(limit, after)
    async with aclosing(follower.read(task_id, after)) as items:
        begun = await anext(items)
        if not isinstance(begun, Begun):
            raise TypeError("a followed log begins with Begun")
        if isinstance(begun.end, Vanished):
            raise LogGone
        if isinstance(begun.end, Ended):
            return EventPage([], after, closed=True, gap=None)
        page.gap = begun.gap
        try:
            await page.fill(items)
        except StoreUnavailable:
            if not page.events:
                raise
    return EventPage(page.events, page.last, page.has_end, page.gap.data if page.gap else None)
