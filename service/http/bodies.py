"""What may be posted, and what is answered."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, overload

import orjson
from aiohttp import web
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from service.access.owners import MAX_CHARACTERS, owner_id
from service.access.stream_tokens import StreamToken
from service.http import answers
from service.http.problems import Problem, invalid
from service.model.encoding import plain
from service.model.encoding import rfc3339 as told
from service.model.events import TextPart
from service.model.ids import OwnerId
from service.model.nesting import has_more_values
from service.model.position import Position
from service.model.session import (
    MAX_GRANTED_TOOLS,
    MAX_ITERATIONS,
    MAX_MODEL_CHARACTERS,
    MAX_SECONDS,
    MAX_SYSTEM_PROMPT_BYTES,
    MAX_TITLE_CHARACTERS,
    Message,
    NewMessage,
    Posted,
    Session,
    SessionChange,
    SessionEntry,
    SessionSettings,
    SettingName,
)
from service.model.task import Task
from service.model.verdict import Verdict
from service.registry.event_page import EventPage

BODY_SECONDS: Final = 30.0
"""So long a body may take to arrive."""

MAX_VALUES: Final = 1000
"""A body has no more values than this, counted before any is made: half a million of them would hold everybody up."""


class Body(BaseModel):
    """A posted JSON object: its fields have exactly these types, and there are no others."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


SETTINGS: Final[tuple[SettingName, ...]] = get_args(SettingName)


NO_NUL: Final = "^[^\\u0000]*$"
NO_CONTROLS: Final = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"
_SAYS_SOMETHING: Final = {"pattern": r"\S"}


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("This cannot have a NUL character.")
    return text


def _whole(number: object) -> object:
    """JSON has one kind of numbers: 5.0 is 5."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _listed(names: object) -> object:
    return tuple(names) if isinstance(names, list) else names


def _fits(text: str) -> str:
    if len(text.encode()) > MAX_SYSTEM_PROMPT_BYTES:
        raise ValueError(f"This has {MAX_SYSTEM_PROMPT_BYTES} bytes at most.")
    return text


def _an_owner(text: str) -> str:
    if owner_id(text) is None:  # no key could be made for them, and no token would be taken as theirs
        raise ValueError("This cannot have control characters.")
    return text


Text = Annotated[str, AfterValidator(_without_nul), Field(json_schema_extra={"pattern": NO_NUL})]
"""That a store can keep."""
_Title = Annotated[Text, Field(min_length=1, max_length=MAX_TITLE_CHARACTERS)]
_ModelName = Annotated[Text, Field(min_length=1, max_length=MAX_MODEL_CHARACTERS)]
_SystemPrompt = Annotated[Text, Field(min_length=1), AfterValidator(_fits)]
_Owner = Annotated[
    str,
    Field(min_length=1, max_length=MAX_CHARACTERS, json_schema_extra={"pattern": NO_CONTROLS}),
    AfterValidator(_an_owner),
]
_Iterations = Annotated[int, Field(ge=1, le=MAX_ITERATIONS), BeforeValidator(_whole)]
_Seconds = Annotated[float, Field(ge=1, le=MAX_SECONDS)]
_ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
_Tools = Annotated[tuple[_ToolName, ...], Field(max_length=MAX_GRANTED_TOOLS), BeforeValidator(_listed)]


class CreateSession(Body):
    """How a new session is set; what is not given is as the service has it."""

    title: _Title | None = None
    model: _ModelName | None = None
    system_prompt: _SystemPrompt | None = None
    max_iterations: _Iterations | None = None
    max_seconds: _Seconds | None = None
    tools: _Tools | None = None

    def settings(self) -> SessionSettings:
        """As the house knows them."""
        return SessionSettings(**{name: getattr(self, name) for name in SETTINGS})


class ChangeSession(CreateSession):
    """What is to be different of a session: what is null is unset, what is not given stays."""

    owner: _Owner | None = None

    def change(self) -> SessionChange:
        """As the house knows it."""
        cleared = frozenset(name for name in SETTINGS if name in self.model_fields_set and getattr(self, name) is None)
        return SessionChange(self.settings(), cleared, None if self.owner is None else OwnerId(self.owner))


class CancelTask(Body):
    """A cancellation has nothing to say."""


class MintToken(Body):
    """A token for a stream has nothing to be set."""


class PostedText(Body):
    """One part of a posted message."""

    type: Literal["text"]
    text: str


class PostMessage(Body):
    """A message: its text, or its parts."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["text"], "properties": {"text": {"type": "string"}}},
                {"required": ["parts"], "properties": {"parts": {"type": "array"}}},
            ]
        }
    )

    text: Annotated[str, Field(json_schema_extra=_SAYS_SOMETHING)] | None = None
    parts: (
        Annotated[
            list[PostedText],
            Field(
                min_length=1, max_length=100, json_schema_extra={"contains": {"properties": {"text": _SAYS_SOMETHING}}}
            ),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "PostMessage":
        if (self.text is None) == (self.parts is None):
            raise ValueError("Give text or parts, one of the two.")
        return self

    def message(self) -> NewMessage:
        """The message as the house knows it."""
        if self.text is not None:
            return NewMessage((TextPart(self.text),))
        return NewMessage(tuple(TextPart(part.text) for part in self.parts or ()))


_Body = TypeVar("_Body", bound=Body)


async def parse_body(request: web.Request, model: type[_Body]) -> _Body:
    """The request's JSON body, checked. No body is an empty object."""
    return parse(await read_body(request), model)


async def read_body(request: web.Request, max_bytes: int | None = None) -> bytes:
    """The request's body as it came: nothing, or what says that it is JSON; of another length than is usual, if given.

    Anything but JSON is refused by its content type: a form that some web page submits cannot have this one.
    """
    if any(coding.lower() != "identity" for coding in request.headers.getall("Content-Encoding", [])):
        raise Problem(415, "unsupported_media_type", "The body must not be compressed: it has no Content-Encoding.")
    raw = await _read(request if max_bytes is None else request.clone(client_max_size=max_bytes))
    if raw and request.content_type != "application/json":
        raise Problem(415, "unsupported_media_type", "The body's Content-Type must be application/json.")
    return raw


def parse(raw: bytes, model: type[_Body]) -> _Body:
    """A JSON body, checked."""
    posted = parse_object(raw, MAX_VALUES)
    try:
        return model.model_validate_json(orjson.dumps(posted))  # in which each field stands once
    except orjson.JSONEncodeError:
        raise Problem(422, "validation_error", "The body is nested too deeply.") from None
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False)) from None


def parse_object(raw: bytes, max_values: int) -> dict[str, Any]:
    """A JSON object of no more values than this. No body is an empty object."""
    if has_more_values(raw, max_values):
        raise Problem(422, "validation_error", f"The body has more than {max_values} values.")
    try:
        posted = orjson.loads(raw or b"{}")
    except orjson.JSONDecodeError:
        raise Problem(400, "malformed_json", "The body is not valid JSON.") from None
    if not isinstance(posted, dict):
        raise Problem(422, "validation_error", "The body must be a JSON object.")
    return posted


async def _read(request: web.Request) -> bytes:
    if (request.content_length or 0) > request.client_max_size:  # it is not waited for
        raise web.HTTPRequestEntityTooLarge(request.client_max_size, request.content_length or 0)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise Problem(408, "request_timeout", "The body did not arrive in time.") from None
    except (web.RequestPayloadError, ConnectionError):  # the latter's client is gone, and is not answered any more
        raise Problem(400, "malformed_body", "The body is not what its headers say.") from None


def answer(body: Mapping[str, object], status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(
        status=status,
        body=orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE),
        content_type="application/json",
    )


def entry_body(entry: SessionEntry) -> answers.ListedSession:
    """A session as lists show it."""
    return {
        "id": entry.id,
        "owner": entry.owner,
        "created_at": rfc3339(entry.created_at),
        "status": "busy" if entry.busy else "idle",
        "title": entry.settings.title,
        "model": entry.settings.model,
    }


def settled_body(entry: SessionEntry) -> answers.SettledSession:
    """A session with all its settings."""
    settings = entry.settings
    return {
        **entry_body(entry),
        "system_prompt": settings.system_prompt,
        "max_iterations": settings.max_iterations,
        "max_seconds": settings.max_seconds,
        "tools": None if settings.tools is None else list(settings.tools),
    }


def session_body(session: Session) -> answers.Session:
    """A session with a page of its messages, and the path of the page before."""
    entry, messages = session.entry, session.messages
    return {
        **settled_body(entry),
        "messages": [_message_body(message) for message in messages],
        "pending": [
            {"id": message.id, "parts": list(message.parts), "created_at": rfc3339(message.created_at)}
            for message in session.pending
        ],
        "earlier": f"/sessions/{entry.id}?before={messages[0].id}" if session.earlier else None,
    }


def _message_body(message: Message) -> answers.Message:
    return {
        "id": message.id,
        "role": message.role,
        "parts": list(message.parts),
        "task_id": message.task_id,
        "created_at": rfc3339(message.created_at),
    }


def posted_body(posted: Posted) -> answers.Posted:
    """What became of a message."""
    return {
        "task_id": posted.task_id,
        "message_id": posted.message_id,
        "status": posted.status,
        "stream": stream_path(posted.task_id),
    }


def task_body(task: Task) -> answers.Task:
    """A task as it stands."""
    return {
        "id": task.id,
        "session_id": task.session_id,
        "kind": task.kind,
        "status": task.status,
        "message_id": task.input_id,
        "operation_id": task.operation_id,
        "answer_id": task.answer_id,
        "error_type": task.error_type,
        "usage": {"input_tokens": task.usage.input_tokens, "output_tokens": task.usage.output_tokens},
        "created_at": rfc3339(task.created_at),
        "started_at": rfc3339(task.started_at),
        "finished_at": rfc3339(task.finished_at),
        "cancel_requested_at": rfc3339(task.cancel_requested_at),
        "stream": stream_path(task.id),
    }


def token_body(task_id: str, token: StreamToken) -> answers.Token:
    """A stream token, and the path that an `EventSource` follows with it."""
    stream = f"{stream_path(task_id)}?token={token.text}"
    return {"token": token.text, "expires_at": rfc3339(token.expires_at), "stream": stream}


def verdict_body(verdict: Verdict) -> answers.Verdict:
    """What was found out about a log."""
    return {
        "task_id": verdict.task_id,
        "proven": verdict.is_proven,
        "closed": verdict.closed,
        "read_from": verdict.read_from,
        "redacted": verdict.redacted,
        "events": verdict.events,
        "first": _position(verdict.first),
        "last": _position(verdict.last),
        "sha256": verdict.sha256.hex(),
        "findings": [
            {"type": finding.type, "position": _position(finding.position), "detail": finding.detail}
            for finding in verdict.findings
        ],
        "findings_not_listed": verdict.findings_not_listed,
    }


def _position(position: Position | None) -> str | None:
    return None if position is None else str(position)


def page_body(page: EventPage) -> answers.EventPage:
    """A page of a log. The events are put in as they are stored."""
    stored: list[Any] = [{"id": position.decode(), "data": orjson.Fragment(data)} for position, data in page.events]
    return {
        "events": stored,
        "last": str(page.last),
        "closed": page.closed,
        "gap": None if page.gap is None else plain(page.gap),
    }


def stream_path(task_id: str) -> str:
    """Where a task's log can be followed."""
    return f"/tasks/{task_id}/stream"


@overload
def rfc3339(moment: datetime) -> str: ...


@overload
def rfc3339(moment: None) -> None: ...


def rfc3339(moment: datetime | None) -> str | None:
    """A time as RFC 3339 in UTC, to the millisecond."""
    return None if moment is None else told(moment)
