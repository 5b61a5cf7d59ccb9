"""A remote tool: an external service that a model may ask, and what comes of a call to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from service.model.events import Json
from service.model.ids import OperationId, SessionId, TaskId

OWN_TOOLS: Final = frozenset({"think", "ask", "timer", "start_job", "jobs"})
"""What the service's own tools are called; no remote one may be."""


@dataclass(frozen=True, slots=True)
class RemoteTool:
    """An external service, as it is set."""

    name: str
    description: str
    """For the model."""
    schema: Mapping[str, Any]
    """JSON Schema (2020-12) of the arguments: an object."""
    url: str = field(repr=False)
    secret: str = field(repr=False)
    """Of both directions, by Standard Webhooks: its calls are signed with it, and so may its completions be."""
    deadline_seconds: float = 3600
    """How long an operation of it may be pending."""
    call_seconds: float = 10
    """How long its answer to a call is waited for; then it may have taken it."""
    is_repeatable: bool = False
    """Whether the service does a call with the same operation id once, however often it is told."""
    key_argument: str | None = None
    """The argument that names the work: a second call of a session with the same one is the first one's operation."""
    needs_approval: bool = False
    """Whether a person is asked before each call; the service is called in the follow-up of a yes."""


@dataclass(frozen=True, slots=True)
class RemoteCall:
    """What a service is asked. `callback_url` is where it may post its completion; None: there is no such place."""

    operation_id: OperationId
    task_id: TaskId
    session_id: SessionId
    arguments: Json
    callback_url: str | None


@dataclass(frozen=True, slots=True)
class Answered:
    """The service did it at once. Any JSON is a result."""

    result: Json


@dataclass(frozen=True, slots=True)
class Taken:
    """The service will say when it is done, or may: where its answer was lost, it may have taken the call."""


@dataclass(frozen=True, slots=True)
class NotTaken:
    """The service did not take it. `error_type` is why, `message` for people, `details` for whoever looks closer.

    `is_retryable` says whether a later try may go better.
    """

    error_type: str
    message: str
    details: Json = None
    is_retryable: bool = False


RemoteAnswer = Answered | Taken | NotTaken


def callback_url(public_url: str | None, operation_id: OperationId) -> str | None:
    """Where a completion of this operation may be posted, where the doors are at `public_url`; None: nowhere."""
    return None if public_url is None else f"{public_url}/operations/{operation_id}/complete"
