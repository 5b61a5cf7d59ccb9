"""A task: one unit of agent work with a log of its own."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from service.model.events import Chunk, EndStatus, Usage
from service.model.fold import Part
from service.model.ids import Epoch, MessageId, OperationId, OwnerId, SessionId, TaskId
from service.model.trace import TraceParent

TaskKind = Literal["turn", "operation"]
TaskStatus = Literal["queued", "waiting", "running", "succeeded", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Task:
    """A task as the database knows it."""

    id: TaskId
    session_id: SessionId
    kind: TaskKind
    status: TaskStatus
    input_id: MessageId | None
    """The message that a turn answers."""
    answer_id: MessageId
    """The id under which the assistant's message is stored."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error_type: str | None
    usage: Usage
    cancel_requested_at: datetime | None
    """When its owner first wanted it cancelled; it is cancelled when its status says so."""
    number: int
    """Its place in the order of creation, among all tasks."""
    operation_id: OperationId | None = None
    """The operation whose work this is, where it is no turn."""

    @property
    def has_ended(self) -> bool:
        """Whether its status is final."""
        return self.status not in ("queued", "waiting", "running")


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks are asked for: all that fit what is set."""

    status: TaskStatus | None = None
    kind: TaskKind | None = None
    session_id: SessionId | None = None
    owner: OwnerId | None = None


EVERY_TASK: Final = TaskFilter()


MAX_COUNTED: Final = 100_000
"""So many tasks that run, or owe their log its ending, are counted at most: the oldest."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """How far the service is behind with its work, at one moment."""

    queued: int
    oldest_queued_seconds: float | None
    """How long the oldest of them has waited; None where none does."""
    running: int
    lapsed: int
    """Of those that run, or have ended and owe their log its ending: how many have a lease that is over."""
    unarchived: int
    """Closed logs that are not in the archive."""
    oldest_unarchived_seconds: float | None
    """For how long the oldest of their tasks has ended; None where there is none."""
    unremoved: int
    """Deleted sessions whose data is still there."""
    pending: int = 0
    """Operations that have not ended."""
    overdue: int = 0
    """Of those: how many are past their deadline."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """Whose a task is: its session's owner, None being nobody."""

    owner: OwnerId | None


@dataclass(frozen=True, slots=True)
class Claim:
    """A task as its holder has it: the right to write its log until the lease ends or a higher epoch exists."""

    task: Task
    epoch: Epoch
    owed: tuple[Chunk, ...] | None
    """What the log is owed, where the task's end was decided by a holder before; None while it runs."""
    lost_attempts: int
    """How many holders before this one, in a row, were lost while the task ran. One that let it go is not counted."""
    trace: TraceParent | None = None
    """The span in which its message was accepted."""
    failed_tries: int = 0
    """How many tries of a follow-up have failed."""


@dataclass(frozen=True, slots=True)
class Held:
    """A claim that still holds, and whether its task's owner wants the task cancelled."""

    task_id: TaskId
    epoch: Epoch
    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class TaskDue:
    """Something can be claimed."""


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """The owner of a task wants it cancelled."""

    task_id: TaskId


Rung = TaskDue | CancelRequested
"""What workers are told by the doorbell."""


@dataclass(frozen=True, slots=True)
class End:
    """How a task ended, decided by its holder and stored in one transaction.

    `ending` is what the log is owed from then on: the closing chunks, `finish` last. `answer` is the assistant's
    message, None where there is none to keep; with `bounced` the input is taken back: its message is
    deleted, and where an earlier one was to be answered again, the conversation is as it was before.
    """

    status: EndStatus
    ending: tuple[Chunk, ...]
    usage: Usage
    finished_at: datetime
    error_type: str | None = None
    answer: tuple[Part, ...] | None = None
    bounced: bool = False


@dataclass(frozen=True, slots=True)
class Postponed:
    """A follow-up that failed, and is to be tried again after so many seconds."""

    seconds: float
    error_type: str
    """Why it failed."""


@dataclass(frozen=True, slots=True)
class Told:
    """A task that still waits, and whose log tells so much of its operation's progress now."""

    progress_number: int
    again_seconds: float | None = None
    """After so long another look is due, whatever is reported; None: none is."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A task's end is stored: what its log is owed, and whether the mailbox had a message for a next turn."""

    owed: tuple[Chunk, ...]
    next_is_due: bool = False
