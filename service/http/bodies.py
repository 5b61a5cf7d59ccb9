"""What may be posted, and what is answered."""

import asyncio
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.http.problems import Problem, invalid
from service.model.encoding import plain
from service.model.events import TextPart
from service.model.position import Position
from service.model.session import Message, Session
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


class CreateSession(Body):
    """A session has nothing to be set yet."""


class CancelTask(Body):
    """A cancellation has nothing to say."""


class PostedText(Body):
    """One part of a posted message."""

    type: Literal["text"]
    text: str


class PostMessage(Body):
    """A message: its text, or its parts."""

    text: str | None = None
    parts: Annotated[list[PostedText], Field(min_length=1, max_length=100)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "PostMessage":
        if (self.text is None) == (self.parts is None):
            raise ValueError("Give text or parts, one of the two.")
        return self

    def input_parts(self) -> list[TextPart]:
        """The message as the house knows it."""
        return [TextPart(self.text)] if self.text is not None else [TextPart(part.text) for part in self.parts or ()]


_Body = TypeVar("_Body", bound=Body)


async def parse_body(request: web.Request, model: type[_Body]) -> _Body:
    """The request's JSON body, checked. No body is an empty object.

    Anything but JSON is refused by its content type: a form that some web page submits cannot have this one.
    """
    if any(coding.lower() != "identity" for coding in request.headers.getall("Content-Encoding", [])):
        raise Problem(415, "unsupported_media_type", "The body must not be compressed: it has no Content-Encoding.")
    raw = await _read(request)
    if raw and request.content_type != "application/json":
        raise Problem(415, "unsupported_media_type", "The body's Content-Type must be application/json.")
    if _marks(raw) >= MAX_VALUES:
        raise Problem(422, "validation_error", f"The body has more than {MAX_VALUES} values.")
    try:
        plain = orjson.loads(raw or b"{}")
    except orjson.JSONDecodeError:
        raise Problem(400, "malformed_json", "The body is not valid JSON.") from None
    if not isinstance(plain, dict):
        raise Problem(422, "validation_error", "The body must be a JSON object.")
    try:
        return model.model_validate_json(orjson.dumps(plain))  # in which each field stands once
    except orjson.JSONEncodeError:
        raise Problem(422, "validation_error", "The body is nested too deeply.") from None
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False)) from None


def _marks(raw: bytes) -> int:
    """How many values begin behind a comma or a bracket, which is all of them but the first. Strings have no marks."""
    unescaped = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    if unescaped.count(b'"') > 4 * MAX_VALUES:  # two strings, a name and its value, for each of the marks
        return MAX_VALUES
    outside = b"".join(unescaped.split(b'"')[::2])
    return sum(map(outside.count, (b",", b"[", b"{")))


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


def answer(body: dict[str, Any], status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(
        status=status,
        body=orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE),
        content_type="application/json",
        headers={"Cache-Control": "no-store, private"},
    )


def session_body(session: Session) -> dict[str, Any]:
    """A session with a page of its messages, and the path of the page before."""
    return {
        "id": session.id,
        "created_at": rfc3339(session.created_at),
        "status": "busy" if session.busy else "idle",
        "messages": [_message_body(message) for message in session.messages],
        "earlier": f"/sessions/{session.id}?before={session.messages[0].id}" if session.earlier else None,
    }


def _message_body(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "role": message.role,
        "parts": list(message.parts),
        "task_id": message.task_id,
        "created_at": rfc3339(message.created_at),
    }


def task_body(task: Task) -> dict[str, Any]:
    """A task as it stands."""
    return {
        "id": task.id,
        "session_id": task.session_id,
        "kind": task.kind,
        "status": task.status,
        "message_id": task.input_id,
        "answer_id": task.answer_id,
        "error_type": task.error_type,
        "usage": {"input_tokens": task.usage.input_tokens, "output_tokens": task.usage.output_tokens},
        "created_at": rfc3339(task.created_at),
        "started_at": rfc3339(task.started_at),
        "finished_at": rfc3339(task.finished_at),
        "cancel_requested_at": rfc3339(task.cancel_requested_at),
        "stream": stream_path(task.id),
    }


def verdict_body(verdict: Verdict) -> dict[str, Any]:
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


def page_body(page: EventPage) -> dict[str, Any]:
    """A page of a log. The events are put in as they are stored."""
    return {
        "events": [{"id": position.decode(), "data": orjson.Fragment(data)} for position, data in page.events],
        "last": str(page.last),
        "closed": page.closed,
        "gap": None if page.gap is None else plain(page.gap),
    }


def stream_path(task_id: str) -> str:
    """Where a task's log can be followed."""
    return f"/tasks/{task_id}/stream"


def rfc3339(moment: datetime | None) -> str | None:
    """A time as RFC 3339 in UTC, to the millisecond."""
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
