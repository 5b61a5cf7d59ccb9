"""What is said about logs: entries, pages, batches and how an append went; and the hints that travel beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from service.model.ids import Epoch, TaskId
from service.model.position import Position
from service.model.trace import TraceParent

StoredEvent: TypeAlias = tuple[bytes, bytes]
"""One event as a store keeps it: its position in ASCII, and its JSON."""

MAX_HINTED_BYTES: Final = 64 * 1024
"""Longer frames do not travel with a hint; readers read the log instead."""


@dataclass(frozen=True, slots=True)
class Head:
    """How far a log reaches, and whether it is closed. A log that does not exist reaches to the beginning."""

    last: Position
    closed: bool
    epoch: Epoch
    """Of the last holder who opened it; 0 where nobody did."""


@dataclass(frozen=True, slots=True)
class Page:
    """The events that stand after a position, in their order, and the head as it was at that moment."""

    known: bool
    """Whether that position is the beginning or names an event of this log."""
    events: Sequence[StoredEvent]
    head: Head
    trace: TraceParent | None = None
    """In which span the newest of them was written; the archive does not keep it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one log to be stored together, dense and all of one moment. Once sent it never changes."""

    task_id: TaskId
    epoch: Epoch
    before: Position
    """Of the event before the first one."""
    last: Position
    frames: bytes
    """The events as SSE bytes, as `encoding.framed` makes them."""
    terminal: bool
    trace: TraceParent | None = None
    """The span of whoever writes."""

    @property
    def hinted_frames(self) -> bytes:
        """What readers get with the hint, instead of reading; nothing where that is longer than MAX_HINTED_BYTES."""
        return self.frames if len(self.frames) <= MAX_HINTED_BYTES else b""


@dataclass(frozen=True, slots=True)
class Stored:
    """The whole batch is in the log, now or since an earlier try."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """A later holder opened the log; nothing was stored."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Unopened:
    """The store does not know this holder: the log's state is gone or older; nothing was stored."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The log has its terminal event, and it is not the one of this batch; nothing was stored."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The log does not reach to `batch.before` (the store came back without its tail); nothing was stored."""

    last: Position


@dataclass(frozen=True, slots=True)
class Refused:
    """The store would not take this one batch, as when it is out of memory; nothing was stored. Try again later."""

    reason: str


@dataclass(frozen=True, slots=True)
class Invalid:
    """No log can take this batch: a mistake of whoever made it. Nothing was stored, and nothing will be."""


AppendResult = Stored | Fenced | Unopened | Closed | Lost | Refused | Invalid


@dataclass(frozen=True, slots=True)
class Opened:
    """The log is this holder's: from here on nobody with an older epoch can append."""

    last: Position
    closed: bool


@dataclass(frozen=True, slots=True)
class Hint:
    """Something was appended. `frames` may be empty: then only the positions are known."""

    task_id: TaskId
    epoch: Epoch
    before: Position
    last: Position
    terminal: bool
    frames: bytes
    trace: TraceParent | None = None


@dataclass(frozen=True, slots=True)
class Listening:
    """From here on the hints of this task arrive; those before it may be lost, also when it is said again."""

    task_id: TaskId


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The connection is gone: hints are being lost until each task is Listening again."""


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What the database knows of a log."""

    log_closed: bool
    """Whether the terminal event was appended for good. Becomes false again only where the log store has lost it."""
    log_archived: bool = False
    """Whether the archive has the whole log, for good."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """Some of the logs that a store has, and where to go on; a lap ends at cursor 0."""

    task_ids: Sequence[TaskId]
    cursor: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What the database says of logs that a store has."""

    archived: Sequence[TaskId]
    unknown: Sequence[TaskId]
    """Those of no task, and old enough that none is about to be there."""
    database: str
    """Which database says so."""
