"""An operation: something outside the agent's loop that the agent waits for, and how it came to its end."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, assert_never

import orjson

from service.model.caller import EVERYONES, Reach
from service.model.events import Json, OperationStatus
from service.model.ids import Epoch, OperationId, OwnerId, SessionId, TaskId
from service.model.task import Claim, TaskStatus

Executor = Literal["remote", "job", "person", "timer"]
"""Who ends it: an external service, the worker that runs a background job, a person who is asked, the clock."""

Door = Literal["http", "amqp", "service"]
"""Over which a completion came: a webhook or a command, RabbitMQ, or from within the house."""

NOT_THE_PERSON: Final = "A person is asked, and answers for themselves."
OTHER_TASK: Final = "The message names a task that is not the operation's own."

MAX_PENDING: Final = 1000
"""So many operations of a session may be pending; a call that would begin one more is refused."""

MAX_DELIVERIES: Final = 100
"""So many deliveries of an operation are kept, the first ones; later ones have their effect, and are only counted."""


MAX_FOLLOW_UPS: Final = 100
"""So many of an operation's are shown, the newest."""

MAX_SHOWN_BYTES: Final = 16 * 1024
"""Of the outcome of each delivery that is shown beside an operation's own, as JSON."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """It is done. Any JSON is a result, as it came: also `{}`, `""`, `0`, `false` and `null`."""

    result: Json


@dataclass(frozen=True, slots=True)
class Failed:
    """It is not done, for good. `message` is for people, and names no address and no secret."""

    error_type: str
    message: str
    details: Json = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Nobody wants it any more, or a person said no."""

    reason: str | None = None


Outcome = Succeeded | Failed | Cancelled


def status_of(outcome: Outcome) -> OperationStatus:
    """What an operation with this outcome is."""
    match outcome:
        case Succeeded():
            return "succeeded"
        case Failed():
            return "failed"
        case Cancelled():
            return "cancelled"
        case other:
            assert_never(other)


def plain_outcome(outcome: Outcome) -> dict[str, Json]:
    """An outcome as it is stored, and told to people and programs."""
    match outcome:
        case Succeeded(result):
            return {"result": result}
        case Failed(error_type, message, details):
            return {"error_type": error_type, "message": message} | ({} if details is None else {"details": details})
        case Cancelled(reason):
            return {} if reason is None else {"reason": reason}
        case other:
            assert_never(other)


def outcome_from(status: OperationStatus, stored: dict[str, Json]) -> Outcome | None:
    """The outcome that was stored so; None while there is none."""
    match status:
        case "pending":
            return None
        case "succeeded":
            return Succeeded(stored["result"])
        case "failed":
            return Failed(str(stored["error_type"]), str(stored["message"]), stored.get("details"))
        case "cancelled":
            reason = stored.get("reason")
            return Cancelled(None if reason is None else str(reason))
        case other:
            assert_never(other)


def outcome_sha256(outcome: Outcome) -> bytes:
    """The same for the same outcome, whatever the order of its members: of canonical JSON."""
    said = {"status": status_of(outcome), "outcome": plain_outcome(outcome)}
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).digest()


@dataclass(frozen=True, slots=True)
class NewOperation:
    """What is started, by a tool call of a turn."""

    call_id: str
    tool: str
    executor: Executor
    arguments: Json
    deadline_seconds: float | None
    """From now; None: it has none."""
    key: str | None = None
    """Names the work itself: a second start in this session, of this tool and with this key, is the first one."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation as the database knows it."""

    id: OperationId
    number: int
    """Its place in the order of creation, among all operations."""
    session_id: SessionId
    owner: OwnerId | None
    task_id: TaskId
    """Its own task, whose log tells of it and of its follow-up; one that is redriven is another task."""
    turn_id: TaskId
    """The task that asked for it."""
    call_id: str
    tool: str
    executor: Executor
    arguments: Json
    status: OperationStatus
    outcome: Outcome | None
    """None while it is pending, and where its session's data is gone."""
    created_at: datetime
    deadline: datetime | None
    ended_at: datetime | None
    progress: Json = None
    """The newest that was reported; None where nothing was."""
    progress_number: int = 0
    """How often progress was reported."""
    has_follow_up: bool = False
    """Whether its end is told to its session by the agent."""
    deliveries: int = 0
    """How many messages about its end came."""
    begun_by: Epoch | None = None
    """Of a background job: with which epoch its task's holder began to run it; None while nobody has."""


@dataclass(frozen=True, slots=True)
class Begun:
    """An operation that a call has begun, or had begun before: then nothing was changed."""

    operation: Operation
    is_new: bool


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a message about an operation came."""

    door: Door
    by: str
    """Who it came from: `key <id>`, `tool <name>`, `local`, `deadline`, …; no secret."""
    id: str | None = None
    """What its sender calls this message: `Idempotency-Key`, `webhook-id` or AMQP's `message_id`."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A message that says how an operation ended."""

    operation_id: OperationId
    outcome: Outcome
    delivery: Delivery
    task_id: TaskId | None = None
    """What the sender takes for the operation's own task; it is checked, and never used to find another."""
    reach: Reach = EVERYONES
    """What the sender may complete."""
    tool: str | None = None
    """The one tool whose operations the sender may complete, where it is known by that tool's secret."""
    follow_up: bool = True
    """Whether the agent goes on with the outcome; not where whoever ends it is told already."""
    asked_by: Claim | None = None
    """The holder of the turn that is told by that; where it is its holder no more, there is a follow-up."""
    is_answer: bool = False
    """Whether it is the answer of the person who was asked: nobody else answers for them."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A message that says how far an operation is. The latest wins; of a delivery that was seen nothing happens."""

    operation_id: OperationId
    progress: Json
    delivery: Delivery
    task_id: TaskId | None = None
    reach: Reach = EVERYONES
    tool: str | None = None


Report = Completion | Progress


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's yes or no to what was asked to be done. Only a no has a reason."""

    approved: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a person answers to a question: any JSON."""

    answer: Json


PersonsAnswer = Approval | Reply


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a completion that was taken is answered with."""

    operation_id: OperationId
    task_id: TaskId
    completion_id: str
    status: OperationStatus


@dataclass(frozen=True, slots=True)
class Accepted:
    """The operation was pending; it has this outcome now, and its follow-up is due."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The operation has this very outcome already."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Conflicting:
    """The operation has another outcome, which stays; this one is kept for operators."""

    operation_id: OperationId


@dataclass(frozen=True, slots=True)
class Unknown:
    """There is no such operation, or not for this sender. It may come: a completion can be faster than its start."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The message contradicts itself, and can never be taken."""

    reason: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Progress of a pending operation was taken."""

    operation_id: OperationId


Disposition = Accepted | Duplicate | Conflicting | Unknown | Refused
"""What became of a completion."""


KeptAs = Literal["accepted", "duplicate", "conflicting", "redriven"]
"""What is kept of messages about an operation's end, and of those who had its follow-up tried again."""


@dataclass(frozen=True, slots=True)
class KeptDelivery:
    """A message about an operation's end, as operators see it."""

    id: str
    at: datetime
    delivery: Delivery
    disposition: KeptAs
    status: OperationStatus
    """What it wanted the operation to be; of one that redrives, what that was."""
    outcome: Json
    """None where it has more than MAX_SHOWN_BYTES, or redrives."""
    outcome_bytes: int
    """As JSON."""
    times: int
    """How often a message of this name came."""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A task that goes on with an operation's end: the first one, or one by which that is tried again."""

    task_id: TaskId
    status: TaskStatus
    error_type: str | None
    """Why it failed, or its last try did."""
    failed_tries: int
    due_at: datetime
    """Of one that is queued: when it goes on, or goes on at the earliest."""


@dataclass(frozen=True, slots=True)
class OperationFilter:
    """Which operations are asked for: all that fit what is set."""

    status: OperationStatus | None = None
    executor: Executor | None = None
    tool: str | None = None
    session_id: SessionId | None = None
    is_stuck: bool = False
    """Only those that are pending past their deadline, and those whose follow-up failed or waits for its next try."""


EVERY_OPERATION: Final = OperationFilter()
