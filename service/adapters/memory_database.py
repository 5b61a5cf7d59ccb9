"""What a database would keep of conversations, in memory: the rows, the clock and the ids, for `memory_sessions`,
`memory_messages` and `memory_tasks` over the same of these.

Whatever is posted stays for as long as this does: it is meant for a process that ends, and for tests.
"""

import secrets
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import orjson

from service.model.caller import Own, Reach
from service.model.encoding import plain
from service.model.errors import SessionBusy
from service.model.events import Chunk, InputPart, Json, Usage
from service.model.fold import Part
from service.model.ids import Epoch, MessageId, OperationId, OwnerId, SessionId, TaskId
from service.model.operation import (
    MAX_SHOWN_BYTES,
    Cancelled,
    Delivery,
    KeptDelivery,
    Operation,
    Outcome,
    outcome_sha256,
    plain_outcome,
    status_of,
)
from service.model.session import Message, PendingMessage, Posted, Role, SessionSettings
from service.model.step import KeptStep
from service.model.task import Claim, Task
from service.model.trace import TraceParent

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
    trace: TraceParent | None = None
    steps: dict[int, KeptStep] = field(default_factory=dict)
    calls: dict[str, Epoch] = field(default_factory=dict)
    """Who has begun calls that must not run twice."""
    due_at: datetime | None = None
    """When it may be claimed again; None: at once."""
    failed_tries: int = 0
    tell_at: datetime | None = None
    """From when on the log of a waiting task is owed something; None: nothing is."""
    told_at: datetime | None = None

    @property
    def claim(self) -> Claim:
        """The task as its holder has it."""
        return Claim(self.task, self.epoch, self.ending, self.lost_attempts, self.trace, self.failed_tries)

    def revoke(self) -> None:
        """Who holds it does not any more."""
        self.epoch, self.lease_until, self.lost_attempts = Epoch(self.epoch + 1), LAPSED, 0


@dataclass(slots=True)
class OperationRow:
    """An operation, and what came about it."""

    operation: Operation
    key: str | None
    outcome_sha256: bytes | None = None
    completion_id: str = ""
    """Of the delivery that ended it."""
    inbox: list[KeptDelivery] = field(default_factory=list)
    seen_progress: dict[str, datetime] = field(default_factory=dict)
    """Names of deliveries, and when they came."""

    def is_of(self, reach: Reach) -> bool:
        """Whether who has this reach may complete it."""
        return not isinstance(reach, Own) or self.operation.owner == reach.owner


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
class PendingRow:
    """A message in a mailbox."""

    id: MessageId
    parts: bytes
    created_at: datetime
    trace: TraceParent | None = None

    @property
    def message(self) -> PendingMessage:
        return PendingMessage(self.id, tuple(orjson.loads(self.parts)), self.created_at)


@dataclass(frozen=True, slots=True)
class KeyRow:
    """What was answered to a request that named itself by a key."""

    body_sha256: bytes
    answer: Posted | SessionId
    created_at: datetime


@dataclass(slots=True)
class SessionRow:
    """A conversation, its messages and its mailbox in their order."""

    id: SessionId
    number: int
    owner: OwnerId | None
    settings: SessionSettings
    created_at: datetime
    chat_id: str | None = None
    deleted_at: datetime | None = None
    messages: list[MessageRow] = field(default_factory=list)
    set_aside: dict[TaskId, list[MessageRow]] = field(default_factory=dict)
    pending: list[PendingRow] = field(default_factory=list)
    keys: dict[str, KeyRow] = field(default_factory=dict)

    def is_within(self, reach: Reach) -> bool:
        """Whether who has this reach finds it."""
        return self.deleted_at is None and (not isinstance(reach, Own) or self.owner == reach.owner)


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
    operations: dict[OperationId, OperationRow] = field(default_factory=dict)
    keys: dict[tuple[OwnerId | None, str], KeyRow] = field(default_factory=dict)
    """Of requests that make sessions, by owner and name."""
    _numbers: int = 0

    def new_id(self) -> str:
        """An id that nothing has."""
        return uuid7(self.now()) if self.mint is None else self.mint()

    def number(self) -> int:
        """A place in the order of creation."""
        self._numbers += 1
        return self._numbers

    def add_session(self, owner: OwnerId | None, settings: SessionSettings, chat_id: str | None = None) -> SessionRow:
        """A new conversation."""
        row = SessionRow(SessionId(self.new_id()), self.number(), owner, settings, self.now(), chat_id)
        self.sessions[row.id] = row
        return row

    def session(self, reach: Reach, session_id: SessionId) -> SessionRow | None:
        """A conversation within reach."""
        row = self.sessions.get(session_id)
        return row if row is not None and row.is_within(reach) else None

    def task(self, reach: Reach, task_id: TaskId) -> TaskRow | None:
        """A task within reach."""
        row = self.tasks.get(task_id)
        return row if row is not None and self.sessions[row.task.session_id].is_within(reach) else None

    def add_turn(self, session_id: SessionId, input_id: MessageId, trace: TraceParent | None = None) -> Task:
        """A queued turn that answers a message. Raises SessionBusy where another is queued."""
        if any(task.status == "queued" and task.kind == "turn" for task in self.open_tasks(session_id)):
            raise SessionBusy
        task = Task(
            TaskId(self.new_id()),
            session_id,
            kind="turn",
            status="queued",
            input_id=input_id,
            answer_id=MessageId(self.new_id()),
            created_at=self.now(),
            started_at=None,
            finished_at=None,
            error_type=None,
            usage=Usage(0, 0),
            cancel_requested_at=None,
            number=self.number(),
        )
        return self.add_task(task, trace).task

    def add_task(self, task: Task, trace: TraceParent | None = None) -> TaskRow:
        """A task that is open."""
        row = self.tasks[task.id] = self.unclosed[task.id] = TaskRow(task, trace=trace)
        return row

    def end_operation(self, row: OperationRow, outcome: Outcome, *, has_follow_up: bool) -> None:
        """Give it its outcome, and have its task go on with it; who holds that does not any more."""
        row.outcome_sha256 = outcome_sha256(outcome)
        row.operation = replace(
            row.operation,
            status=status_of(outcome),
            outcome=outcome,
            has_follow_up=has_follow_up,
            ended_at=self.now(),
        )
        task = self.tasks[row.operation.task_id]
        task.revoke()
        if task.task.status == "waiting":
            task.tell_at, task.due_at = None if has_follow_up else self.now(), self.now()
            task.task = replace(task.task, status="queued") if has_follow_up else task.task

    def cancel_operation(self, task_id: TaskId, why: str) -> None:
        """End the pending operation whose work a task is, with no follow-up."""
        for row in self.operations.values():
            if row.operation.task_id == task_id and row.operation.status == "pending":
                outcome = Cancelled(why)
                row.completion_id = self.new_id()
                by, shown = Delivery("service", "playhead"), shown_of(plain_outcome(outcome))
                row.inbox.append(
                    KeptDelivery(row.completion_id, self.now(), by, "accepted", "cancelled", *shown, times=1)
                )
                row.operation = replace(row.operation, deliveries=row.operation.deliveries + 1)
                self.end_operation(row, outcome, has_follow_up=False)
                task = self.tasks[task_id]
                wanted_at = task.task.cancel_requested_at or self.now()
                task.task = replace(task.task, cancel_requested_at=wanted_at)

    def begin_turn(
        self,
        session_id: SessionId,
        message_id: MessageId,
        parts: bytes,
        said_at: datetime,
        trace: TraceParent | None,
    ) -> Task:
        """A user's message, and the queued turn that answers it."""
        task = self.add_turn(session_id, message_id, trace)
        self.sessions[session_id].messages.append(MessageRow(message_id, "user", parts, task.id, said_at))
        return task

    def begin_next_turn(self, session_id: SessionId) -> Task | None:
        """The turn for the oldest message of the mailbox, where there is one, and nothing takes it already."""
        waiting = self.sessions[session_id].pending
        if not waiting or self.open_turn(session_id) is not None:
            return None
        first = waiting.pop(0)
        return self.begin_turn(session_id, first.id, first.parts, first.created_at, first.trace)

    def runs(self, session_id: SessionId) -> bool:
        """Whether a turn or a follow-up of this session is running."""
        return any(row.task.session_id == session_id and row.task.status == "running" for row in self.unclosed.values())

    def open_turn(self, session_id: SessionId) -> Task | None:
        """The session's turn or follow-up that runs, or else the turn that is queued."""
        tasks = self.open_tasks(session_id)
        running = (task for task in tasks if task.status == "running")
        queued = (task for task in tasks if (task.status, task.kind) == ("queued", "turn"))
        return next(running, None) or next(queued, None)

    def open_tasks(self, session_id: SessionId) -> list[Task]:
        """All of the session's tasks that have not ended."""
        tasks = [row.task for row in self.unclosed.values() if row.task.session_id == session_id]
        return [task for task in tasks if not task.has_ended]


def shown_of(outcome: Json) -> tuple[Json, int]:
    """As much of an outcome as is shown of a delivery, and its bytes."""
    size = len(orjson.dumps(outcome))
    return outcome if size <= MAX_SHOWN_BYTES else None, size


def stored(parts: Iterable[InputPart | Part]) -> bytes:
    """Parts as they are kept."""
    return orjson.dumps([plain(part) for part in parts])


def uuid7(moment: datetime) -> str:
    """A UUID of version 7: such ids sort by their milliseconds."""
    ms = int(moment.timestamp() * 1000)
    drawn = secrets.randbits(74)
    return str(uuid.UUID(int=ms << 80 | 0x7 << 76 | (drawn >> 62) << 64 | 0b10 << 62 | drawn & (1 << 62) - 1))
