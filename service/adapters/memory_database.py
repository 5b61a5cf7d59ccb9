"""What a database would keep of conversations, in memory: the rows, the clock and the ids, for `memory_sessions` and
`memory_tasks` over the same of these.

Whatever is posted stays for as long as this does: it is meant for a process that ends, and for tests.
"""

import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson

from service.model.encoding import plain
from service.model.errors import SessionBusy
from service.model.events import Chunk, InputPart, Usage
from service.model.fold import Part
from service.model.ids import Epoch, MessageId, SessionId, TaskId
from service.model.session import Message, Role
from service.model.task import Claim, Task

UNCLAIMED = Epoch(0)
LAPSED = float("-inf")


@dataclass(slots=True)
class TaskRow:
    """A task, what its log is owed, and its lease."""

    task: Task
    epoch: Epoch = UNCLAIMED
    lease_until: float = LAPSED
    """By the database's seconds."""
    lost_attempts: int = 0
    ending: tuple[Chunk, ...] | None = None
    log_closed: bool = False

    @property
    def claim(self) -> Claim:
        """The task as its holder has it."""
        return Claim(self.task, self.epoch, self.ending, self.lost_attempts)


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message; its parts as JSON, so that nobody who has them can change what is kept."""

    id: MessageId
    role: Role
    parts: bytes
    task_id: TaskId
    created_at: datetime

    @property
    def message(self) -> Message:
        return Message(self.id, self.role, tuple(orjson.loads(self.parts)), self.task_id, self.created_at)


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A conversation, its messages in their order."""

    id: SessionId
    created_at: datetime
    messages: list[MessageRow] = field(default_factory=list)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class MemoryDatabase:
    """All rows. `now` is the time of day in UTC; `seconds` times the leases and never goes back.

    `mint` makes ids; without one they are UUIDs of version 7 by `now`.
    """

    now: Callable[[], datetime] = _now
    seconds: Callable[[], float] = time.monotonic
    mint: Callable[[], str] | None = None
    sessions: dict[SessionId, SessionRow] = field(default_factory=dict)
    tasks: dict[TaskId, TaskRow] = field(default_factory=dict)
    unclosed: dict[TaskId, TaskRow] = field(default_factory=dict)
    """The tasks whose log is not closed, oldest first: what a claim has to look at, however many have ended."""

    def new_id(self) -> str:
        """An id that nothing has."""
        return uuid7(self.now()) if self.mint is None else self.mint()

    def add_session(self) -> SessionRow:
        """A new conversation."""
        row = SessionRow(SessionId(self.new_id()), self.now())
        self.sessions[row.id] = row
        return row

    def add_turn(self, session_id: SessionId) -> Task:
        """A queued turn that answers a message which is yet to be added. Raises SessionBusy where another is queued."""
        if any(row.task.session_id == session_id and row.task.status == "queued" for row in self.unclosed.values()):
            raise SessionBusy
        ids = (TaskId(self.new_id()), session_id), (MessageId(self.new_id()), MessageId(self.new_id()))
        task = Task(*ids[0], "turn", "queued", *ids[1], self.now(), None, None, None, Usage(0, 0), None)
        self.tasks[task.id] = self.unclosed[task.id] = TaskRow(task)
        return task

    def add_message(self, message_id: MessageId, role: Role, parts: Sequence[InputPart | Part], task: Task) -> None:
        """The newest message of a task's session."""
        stored = orjson.dumps([plain(part) for part in parts])
        self.sessions[task.session_id].messages.append(MessageRow(message_id, role, stored, task.id, self.now()))

    def runs(self, session_id: SessionId) -> bool:
        """Whether a turn of this session is running."""
        return any(row.task.session_id == session_id and row.task.status == "running" for row in self.unclosed.values())

    def is_busy(self, session_id: SessionId) -> bool:
        """Whether a turn of this session is queued or running."""
        return any(row.task.session_id == session_id and not row.task.has_ended for row in self.unclosed.values())


def uuid7(moment: datetime) -> str:
    """A UUID of version 7: such ids sort by their milliseconds."""
    ms = int(moment.timestamp() * 1000)
    drawn = secrets.randbits(74)
    return str(uuid.UUID(int=ms << 80 | 0x7 << 76 | (drawn >> 62) << 64 | 0b10 << 62 | drawn & (1 << 62) - 1))
