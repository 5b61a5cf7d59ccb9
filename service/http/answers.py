"""What is answered, field by field. The contract is made from these, and the type checker holds the answers to them."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from service.model import events
from service.model.intake import DeadReason
from service.model.operation import Door, Executor, KeptAs
from service.model.session import Role
from service.model.task import TaskKind, TaskStatus
from service.model.verdict import FindingType, ReadFrom

Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339 in UTC, to the millisecond."""

Path = Annotated[str, Field(description="A path of this service")]
PositionText = Annotated[str, Field(pattern=r"^[0-9]+-[0-9]+$", description="A position, `<milliseconds>-<number>`")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]

Chunk = TypeAliasType("Chunk", Annotated[events.Chunk, Field(discriminator="type")])
"""An event as it is stored: a chunk of the AI SDK's UI message stream. Pass over a `type` that you do not know."""

Part = Annotated[
    dict[str, Any], Field(description="A part of a message, as the AI SDK's client has it; see its `type`")
]


class ListedSession(TypedDict):
    """A session as lists show it. An `owner` that is null: it is nobody's yet."""

    id: str
    owner: str | None
    created_at: Moment
    status: Literal["idle", "busy"]
    title: str | None
    model: str | None


class SettledSession(ListedSession):
    """A session with all its settings; what is null is as the service has it."""

    system_prompt: str | None
    max_iterations: int | None
    max_seconds: float | None
    tools: list[str] | None


class Message(TypedDict):
    """An entry of a conversation. `task_id` is the turn that it started or that wrote it."""

    id: str
    role: Role
    parts: list[Part]
    task_id: str
    created_at: Moment


class PendingMessage(TypedDict):
    """A message that waits in the mailbox."""

    id: str
    parts: list[Part]
    created_at: Moment


class Session(SettledSession):
    """A session with a page of its messages; `earlier` is the path of those before them."""

    messages: list[Message]
    pending: list[PendingMessage]
    earlier: Path | None


class SessionList(TypedDict):
    """Sessions, the newest first; `earlier` is the path of those before them."""

    sessions: list[ListedSession]
    earlier: Path | None


class Posted(TypedDict):
    """What became of a message: a turn is queued for it, or it waits in the mailbox of the turn that is named."""

    task_id: str
    message_id: str
    status: Literal["accepted", "pending"]
    stream: Path


class TaskUsage(TypedDict):
    """What model calls consumed, in tokens."""

    input_tokens: Count
    output_tokens: Count


class Task(TypedDict):
    """A task as it stands. A turn answers the message `message_id`; what another does
    is the work on the operation `operation_id`. `answer_id` is the message that says what came of it."""

    id: str
    session_id: str
    kind: TaskKind
    status: TaskStatus
    message_id: str | None
    operation_id: str | None
    answer_id: str
    error_type: str | None
    usage: TaskUsage
    created_at: Moment | None
    started_at: Moment | None
    finished_at: Moment | None
    cancel_requested_at: Moment | None
    stream: Path


class TaskList(TypedDict):
    """Tasks, the newest first; `earlier` is the path of those before them."""

    tasks: list[Task]
    earlier: Path | None


class ListedOperation(TypedDict):
    """An operation as lists show it. `task_id` is its own task, whose log tells of it; `turn_id` the one that asked for
    it. `progress` is the latest; `delivered` says how many messages about its end came."""

    id: str
    session_id: str
    owner: str | None
    task_id: str
    turn_id: str
    call_id: str
    tool: str
    executor: Executor
    status: events.OperationStatus
    error_type: str | None
    created_at: Moment
    deadline: Moment | None
    ended_at: Moment | None
    progress: Any
    has_follow_up: bool
    delivered: Count
    stream: Path


Outcome = Annotated[
    dict[str, Any],
    Field(description="The `result` of what succeeded; `error_type`, `message` and `details`; or the `reason`, if any"),
]


class WholeOperation(ListedOperation):
    """An operation as it stands; `outcome` is null while it is pending."""

    arguments: Any
    outcome: Outcome | None


class Delivery(TypedDict):
    """A message about an operation's end: over which door it came `times` often, who it was by, and what its sender
    calls it. `outcome` is null where it has more than 16 KiB; `outcome_bytes` says how many. Or who had its follow-up
    `redriven`."""

    id: str
    at: Moment
    door: Door
    by: str
    delivery_id: str | None
    disposition: KeptAs
    status: events.OperationStatus
    outcome: Outcome | None
    outcome_bytes: Count
    times: Count


class FollowUp(TypedDict):
    """A task that goes on with an operation's end. `error_type` is why it failed, or, where it is queued again, why its
    last try did; `due_at` is when it goes on, at the earliest."""

    task_id: str
    status: TaskStatus
    error_type: str | None
    failed_tries: Count
    due_at: Moment
    stream: Path


class Operation(WholeOperation):
    """An operation, what came about its end (the first hundred messages), and the tasks that go on with that: the first
    one, and one for each time that it was redriven."""

    deliveries: list[Delivery]
    follow_ups: list[FollowUp]


class OperationList(TypedDict):
    """Operations, the newest first; `earlier` is the path of those before them."""

    operations: list[ListedOperation]
    earlier: Path | None


class Receipt(TypedDict):
    """A completion was taken. With `duplicate` the operation had this very outcome before, and nothing has changed."""

    status: events.OperationStatus
    operation_id: str
    task_id: str
    completion_id: str
    duplicate: NotRequired[Literal[True]]


class Redriven(TypedDict):
    """The follow-up is tried again: by this task, which has this stream."""

    operation_id: str
    task_id: str
    stream: Path


class DeadLetter(TypedDict):
    """A message that nobody could take: why, in a word and in a sentence, and how it came.

    Of its body, which has `size` bytes, the first few kilobytes are shown. Copies of one message share their id."""

    id: str
    reason: DeadReason
    detail: str
    died_at: Moment | None
    message_id: str | None
    app_id: str | None
    size: Count
    body: str


class DeadLetterList(TypedDict):
    """Dead letters, the oldest first."""

    dead_letters: list[DeadLetter]


class RedrivenLetters(TypedDict):
    """How many dead letters were sent again."""

    redriven: Count


class Noted(TypedDict):
    """Progress was taken."""

    status: Literal["pending"]
    operation_id: str


class SessionTasks(TypedDict):
    """A session's tasks in their order; `later` is the path of what comes behind them."""

    tasks: list[Task]
    later: Path


class Token(TypedDict):
    """A stream token, and the path that an `EventSource` follows with it."""

    token: str
    expires_at: Moment
    stream: Path


class Event(TypedDict):
    """An event and its position."""

    id: PositionText
    data: Chunk


class Frame(TypedDict):
    """A server-sent event. Without an `id` it is made up: a `data-gap`, or the `[DONE]` at the end."""

    id: NotRequired[PositionText]
    data: Annotated[str, Field(json_schema_extra={"contentMediaType": "application/json"}, description="A `Chunk`")]
    retry: NotRequired[Annotated[int, Field(description="In milliseconds")]]


class Gap(TypedDict):
    """What is missing: `lost` events behind `requested`; `oldest` and `latest` are there, `0-0` where nothing is."""

    requested: str
    oldest: PositionText
    latest: PositionText
    lost: Count


class EventPage(TypedDict):
    """Events in their order. Go on at `last`; `closed` says that nothing follows; a `gap` is in front of the first."""

    events: list[Event]
    last: PositionText
    closed: bool
    gap: Gap | None


class Manifest(TypedDict):
    """The first line of an export: whose log it is."""

    format: Literal["playhead-log-1"]
    task: str
    redacted: bool
    archived_sha256: Sha256 | None


class Missing(TypedDict):
    """A line of an export: something is missing in front of the next event."""

    gap: Gap


class Sum(TypedDict):
    """The last line of an export: what it comes to. A file without it is not whole."""

    events: Count
    first: PositionText | None
    last: PositionText | None
    sha256: Sha256


Line = TypeAliasType("Line", Manifest | Event | Missing | Sum)


class Finding(TypedDict):
    """Something that no whole log has."""

    type: FindingType
    position: PositionText | None
    detail: str


class Verdict(TypedDict):
    """What was found out about a log: `proven` where nothing was found."""

    task_id: str | None
    proven: bool
    closed: bool
    read_from: ReadFrom
    redacted: bool
    events: Count
    first: PositionText | None
    last: PositionText | None
    sha256: Sha256
    findings: list[Finding]
    findings_not_listed: Count


class Alive(TypedDict):
    """The process runs."""

    status: Literal["ok"]


class Dependency(TypedDict):
    """A store, and since when it is away."""

    status: Literal["ok", "away"]
    since: NotRequired[Moment]


class IntakeAnswer(TypedDict):
    """A door through which messages come by themselves. While it waits, the process is ready all the same."""

    status: Literal["ok", "waiting"]
    in_hand: int
    waits_for: NotRequired[Literal["rabbitmq", "postgres", "redis"]]
    since: NotRequired[Moment]
    attached_since: NotRequired[Moment]
    last_delivery: NotRequired[Moment]


class Readiness(TypedDict):
    """Whether the process can work."""

    status: Literal["ok", "unavailable", "stopping"]
    dependencies: dict[str, Dependency]
    intakes: NotRequired[dict[str, IntakeAnswer]]


class FieldError(TypedDict):
    """A mistake in a body: where, and what."""

    field: str
    message: str


class Problem(TypedDict):
    """What is wrong (RFC 9457): `detail` is for people, `error_type` for programs.

    `errors` are a body's mistakes by field; a `gap` has the fields that say what is there.
    """

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str
    error_type: str
    errors: NotRequired[list[FieldError]]
    requested: NotRequired[str]
    oldest: NotRequired[PositionText]
    latest: NotRequired[PositionText]
    lost: NotRequired[Count]
