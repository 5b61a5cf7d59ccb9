"""The events of a log: the closed vocabulary.

An event's JSON is a chunk of the AI SDK UI message stream, v1. A reader of that stream gives up on an unknown `type`,
on an optional field that is null and on a missing `output`, hence one rule: **a field whose default is None is optional
and absent while unset; every other field is always there, null included.** Field names are camelCase on the wire and
snake_case here. `service.model.encoding` turns chunks into bytes and back.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from service.model.ids import Epoch, MessageId, PartId, SessionId, TaskId

Json: TypeAlias = Any
"""Any JSON value, kept as it came."""

FinishReason = Literal["stop", "length", "content-filter", "tool-calls", "error", "interrupted"]
EndStatus = Literal["succeeded", "failed", "cancelled"]
OperationStatus = Literal["pending", "succeeded", "failed", "cancelled"]


class _Chunk:
    """What all chunks share: how pydantic reads them back (fields that a newer version added are passed over)."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(alias_generator=to_camel, extra="ignore", strict=True)


# --- values inside chunks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage(_Chunk):
    """What model calls consumed, in tokens."""

    input_tokens: int
    output_tokens: int

    def plus(self, other: "Usage") -> "Usage":
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


@dataclass(frozen=True, slots=True)
class TextPart(_Chunk):
    """A piece of text in a message."""

    text: str
    type: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class FilePart(_Chunk):
    """A file in a message, by https or data URL."""

    media_type: str
    url: str
    type: Literal["file"] = "file"


InputPart = Annotated[TextPart | FilePart, Field(discriminator="type")]


@dataclass(frozen=True, slots=True)
class StartMetadata(_Chunk):
    """Which task's log this is."""

    task_id: TaskId
    session_id: SessionId


@dataclass(frozen=True, slots=True)
class CallMetadata(_Chunk):
    """A model call ended: why, what it used, and how long it took, in milliseconds."""

    finish_reason: FinishReason
    usage: Usage
    first_output_ms: int
    duration_ms: int


@dataclass(frozen=True, slots=True)
class FailureMetadata(_Chunk):
    """The task failed; the `error` chunk follows."""

    task_id: TaskId
    status: EndStatus
    error_type: str


@dataclass(frozen=True, slots=True)
class FinishMetadata(_Chunk):
    """How the task ended. `output` is the authoritative answer; times are RFC 3339 in UTC."""

    task_id: TaskId
    status: EndStatus
    output: str
    usage: Usage
    started_at: str
    finished_at: str
    truncated: Literal[True] | None = None
    """Set where `output` was shortened to fit a log; it is whole in the session's messages."""


@dataclass(frozen=True, slots=True)
class InputData(_Chunk):
    message_id: MessageId
    parts: tuple[InputPart, ...]


@dataclass(frozen=True, slots=True)
class AttemptData(_Chunk):
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class RetryData(_Chunk):
    """Waiting `wait_seconds` before try number `attempt`."""

    attempt: int
    wait_seconds: float
    error_type: str


@dataclass(frozen=True, slots=True)
class CompactionData(_Chunk):
    tokens_before: int
    tokens_after: int


@dataclass(frozen=True, slots=True)
class SessionData(_Chunk):
    title: str | None = None
    state: str | None = None


@dataclass(frozen=True, slots=True)
class IterationLimitData(_Chunk):
    limit: int


@dataclass(frozen=True, slots=True)
class BounceBackData(_Chunk):
    """The input never reached the model and was taken back; `content` is its text."""

    content: str
    error: str
    error_type: str
    session_id: SessionId
    message_id: MessageId


@dataclass(frozen=True, slots=True)
class AuthenticationData(_Chunk):
    provider: str


@dataclass(frozen=True, slots=True)
class GapData(_Chunk):
    """A reader asked for a stretch that no store has any more, or for a position that names no event of this log.

    `lost` counts the events after `requested` that are known to be gone; `oldest` and `latest` are what there is, `0-0`
    where there is nothing.
    """

    requested: str
    oldest: str
    latest: str
    lost: int


@dataclass(frozen=True, slots=True)
class OperationData(_Chunk):
    status: OperationStatus
    tool_name: str
    deadline: str | None
    progress: Json = None
    outcome: Json = None


# --- the chunks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start(_Chunk):
    """The first event of every log. `message_id` is the id under which the assistant's message is stored."""

    message_id: MessageId
    message_metadata: StartMetadata
    type: Literal["start"] = "start"


@dataclass(frozen=True, slots=True)
class StartStep(_Chunk):
    """A model call begins."""

    type: Literal["start-step"] = "start-step"


@dataclass(frozen=True, slots=True)
class FinishStep(_Chunk):
    """The model call and the tools that it asked for are done."""

    type: Literal["finish-step"] = "finish-step"


@dataclass(frozen=True, slots=True)
class ResetStep(_Chunk):
    """The open step is done again: readers drop what came since its `start-step`. No new `start-step` follows."""

    type: Literal["reset-step"] = "reset-step"


@dataclass(frozen=True, slots=True)
class TextStart(_Chunk):
    id: PartId
    type: Literal["text-start"] = "text-start"


@dataclass(frozen=True, slots=True)
class TextDelta(_Chunk):
    id: PartId
    delta: str
    type: Literal["text-delta"] = "text-delta"


@dataclass(frozen=True, slots=True)
class TextEnd(_Chunk):
    id: PartId
    type: Literal["text-end"] = "text-end"


@dataclass(frozen=True, slots=True)
class ReasoningStart(_Chunk):
    id: PartId
    type: Literal["reasoning-start"] = "reasoning-start"


@dataclass(frozen=True, slots=True)
class ReasoningDelta(_Chunk):
    id: PartId
    delta: str
    type: Literal["reasoning-delta"] = "reasoning-delta"


@dataclass(frozen=True, slots=True)
class ReasoningEnd(_Chunk):
    id: PartId
    type: Literal["reasoning-end"] = "reasoning-end"


@dataclass(frozen=True, slots=True)
class ToolInputStart(_Chunk):
    tool_call_id: str
    tool_name: str
    provider_executed: Literal[True] = True
    type: Literal["tool-input-start"] = "tool-input-start"


@dataclass(frozen=True, slots=True)
class ToolInputDelta(_Chunk):
    tool_call_id: str
    input_text_delta: str
    type: Literal["tool-input-delta"] = "tool-input-delta"


@dataclass(frozen=True, slots=True)
class ToolInputAvailable(_Chunk):
    tool_call_id: str
    tool_name: str
    input: Json
    provider_executed: Literal[True] = True
    type: Literal["tool-input-available"] = "tool-input-available"


@dataclass(frozen=True, slots=True)
class ToolInputError(_Chunk):
    tool_call_id: str
    tool_name: str
    input: Json
    error_text: str
    provider_executed: Literal[True] = True
    type: Literal["tool-input-error"] = "tool-input-error"


@dataclass(frozen=True, slots=True)
class ToolOutputAvailable(_Chunk):
    tool_call_id: str
    output: Json
    preliminary: Literal[True] | None = None
    truncated: Literal[True] | None = None
    provider_executed: Literal[True] = True
    type: Literal["tool-output-available"] = "tool-output-available"


@dataclass(frozen=True, slots=True)
class ToolOutputError(_Chunk):
    tool_call_id: str
    error_text: str
    provider_executed: Literal[True] = True
    type: Literal["tool-output-error"] = "tool-output-error"


@dataclass(frozen=True, slots=True)
class ToolOutputDenied(_Chunk):
    tool_call_id: str
    type: Literal["tool-output-denied"] = "tool-output-denied"


@dataclass(frozen=True, slots=True)
class ToolApprovalRequest(_Chunk):
    approval_id: str
    tool_call_id: str
    type: Literal["tool-approval-request"] = "tool-approval-request"


@dataclass(frozen=True, slots=True)
class ToolApprovalResponse(_Chunk):
    approval_id: str
    approved: bool
    reason: str | None = None
    type: Literal["tool-approval-response"] = "tool-approval-response"


@dataclass(frozen=True, slots=True)
class SteeringMessage(_Chunk):
    """A pending message was promoted, between two steps."""

    id: MessageId
    parts: tuple[InputPart, ...]
    type: Literal["steering-message"] = "steering-message"


@dataclass(frozen=True, slots=True)
class MessageMetadata(_Chunk):
    """A model call ended, or the task's failure directly before its `error`."""

    message_metadata: CallMetadata | FailureMetadata
    type: Literal["message-metadata"] = "message-metadata"


@dataclass(frozen=True, slots=True)
class DataOperation(_Chunk):
    """An operation started, progressed or ended; the same id updates the same part."""

    id: str
    data: OperationData
    type: Literal["data-operation"] = "data-operation"


@dataclass(frozen=True, slots=True)
class DataInput(_Chunk):
    """The input that the task works on."""

    data: InputData
    transient: Literal[True] = True
    type: Literal["data-input"] = "data-input"


@dataclass(frozen=True, slots=True)
class DataAttempt(_Chunk):
    """A worker took the task."""

    data: AttemptData
    transient: Literal[True] = True
    type: Literal["data-attempt"] = "data-attempt"


@dataclass(frozen=True, slots=True)
class DataRetry(_Chunk):
    data: RetryData
    transient: Literal[True] = True
    type: Literal["data-retry"] = "data-retry"


@dataclass(frozen=True, slots=True)
class DataCompaction(_Chunk):
    data: CompactionData
    transient: Literal[True] = True
    type: Literal["data-compaction"] = "data-compaction"


@dataclass(frozen=True, slots=True)
class DataSession(_Chunk):
    data: SessionData
    transient: Literal[True] = True
    type: Literal["data-session"] = "data-session"


@dataclass(frozen=True, slots=True)
class DataIterationLimit(_Chunk):
    data: IterationLimitData
    transient: Literal[True] = True
    type: Literal["data-iteration-limit"] = "data-iteration-limit"


@dataclass(frozen=True, slots=True)
class DataBounceBack(_Chunk):
    data: BounceBackData
    transient: Literal[True] = True
    type: Literal["data-bounce-back"] = "data-bounce-back"


@dataclass(frozen=True, slots=True)
class DataAuthenticationRequired(_Chunk):
    data: AuthenticationData
    transient: Literal[True] = True
    type: Literal["data-authentication-required"] = "data-authentication-required"


@dataclass(frozen=True, slots=True)
class DataGap(_Chunk):
    """Told to one reader, in no log and without a position."""

    data: GapData
    transient: Literal[True] = True
    type: Literal["data-gap"] = "data-gap"


@dataclass(frozen=True, slots=True)
class Error(_Chunk):
    """The task failed: `[code:<error_type>] <what a person reads>`. Only `finish` follows."""

    error_text: str
    type: Literal["error"] = "error"


@dataclass(frozen=True, slots=True)
class Abort(_Chunk):
    """The task was cancelled. Only `finish` follows."""

    reason: str
    type: Literal["abort"] = "abort"


@dataclass(frozen=True, slots=True)
class Finish(_Chunk):
    """The one terminal event."""

    finish_reason: FinishReason
    message_metadata: FinishMetadata
    type: Literal["finish"] = "finish"


@dataclass(frozen=True, slots=True)
class Unknown:
    """A chunk of a type that this version does not know: passed on as it is, never an error."""

    type: str
    data: bytes


Chunk = (
    Start
    | StartStep
    | FinishStep
    | ResetStep
    | TextStart
    | TextDelta
    | TextEnd
    | ReasoningStart
    | ReasoningDelta
    | ReasoningEnd
    | ToolInputStart
    | ToolInputDelta
    | ToolInputAvailable
    | ToolInputError
    | ToolOutputAvailable
    | ToolOutputError
    | ToolOutputDenied
    | ToolApprovalRequest
    | ToolApprovalResponse
    | SteeringMessage
    | MessageMetadata
    | DataOperation
    | DataInput
    | DataAttempt
    | DataRetry
    | DataCompaction
    | DataSession
    | DataIterationLimit
    | DataBounceBack
    | DataAuthenticationRequired
    | Error
    | Abort
    | Finish
)
"""Every chunk that a writer can append."""
