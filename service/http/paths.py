"""Ids and positions as they come in a request: what cannot be one is refused before a store is asked."""

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from aiohttp import web

from service.model.errors import InvalidInput, UnknownMessage
from service.model.ids import (
    MessageId,
    OperationId,
    SessionId,
    TaskId,
    parse_operation_id,
    parse_session_id,
    parse_task_id,
)
from service.model.position import BEGINNING, InvalidPosition, Position
from service.model.session import IdempotencyKey

MAX_ENTRIES: Final = 100
"""So many entries of a list are answered at once, at most."""

USUAL_ENTRIES: Final = 20

MAX_EVENTS: Final = 1000
"""So many events are in a page of a log, at most."""

USUAL_EVENTS: Final = 100

MAX_TEXT: Final = 255

_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_ID: Final = re.compile(r"[!-~]{1,128}", re.ASCII)
_WEBHOOK_ID: Final = re.compile(r"[!-~]{1,255}", re.ASCII)


def task_id(request: web.Request) -> TaskId:
    """The path's task. Raises NotFound for what is no task id."""
    return parse_task_id(request.match_info["task_id"])


def operation_id(request: web.Request) -> OperationId:
    """The path's operation. Raises NotFound for what is no operation's id."""
    return parse_operation_id(request.match_info["operation_id"])


def session_id(request: web.Request) -> SessionId:
    """The path's session. Raises NotFound for what is no session id."""
    return parse_session_id(request.match_info["session_id"])


def chat_id(request: web.Request) -> str | None:
    """The path's chat; None for what cannot be one."""
    text = request.match_info["chat_id"]
    return text if _ID.fullmatch(text) else None


def before(request: web.Request) -> MessageId | None:
    """The message that `?before=` names: those before it are asked for. Raises UnknownMessage for what is no id."""
    given = request.query.getall("before", [])
    if not given:
        return None
    if len(given) > 1 or not _ID.fullmatch(given[0]):
        raise UnknownMessage
    return MessageId(given[0])


def limit(request: web.Request, *, usual: int = USUAL_ENTRIES, most: int = MAX_ENTRIES) -> int:
    """How many entries `?limit=` asks for. Raises InvalidInput."""
    return _number(request, "limit", least=1, most=most) or usual


def number(request: web.Request, name: str) -> int | None:
    """The place in a list that a query parameter names; it comes from an earlier answer. Raises InvalidInput."""
    return _number(request, name, least=0, most=2**63 - 1)


def _number(request: web.Request, name: str, *, least: int, most: int) -> int | None:
    given = request.query.getall(name, [])
    if not given:
        return None
    if len(given) > 1 or not _NUMBER.fullmatch(given[0]) or not least <= int(given[0]) <= most:
        raise InvalidInput(f"`{name}` is a whole number from {least} to {most}, given once.")
    return int(given[0])


def choice(request: web.Request, name: str, choices: Sequence[str]) -> str | None:
    """The one of a few words that a query parameter names. Raises InvalidInput."""
    given = request.query.getall(name, [])
    if len(given) > 1 or any(each not in choices for each in given):
        raise InvalidInput(f"`{name}` is one of {', '.join(choices)}.")
    return given[0] if given else None


def text(request: web.Request, name: str) -> str | None:
    """What a query parameter says, given once. Raises InvalidInput."""
    given = request.query.getall(name, [])
    if len(given) > 1 or any(not 0 < len(each) <= MAX_TEXT or "\0" in each for each in given):
        raise InvalidInput(f"`{name}` has 1 to {MAX_TEXT} characters, none of them NUL, given once.")
    return given[0] if given else None


def idempotency_key(request: web.Request, body: bytes) -> IdempotencyKey | None:
    """The name that the client gave this request, with the hash of what it asks. Raises InvalidInput."""
    name = _named_by_client(request)
    return None if name is None else IdempotencyKey(name, sha256(body).digest())


def delivery_id(request: web.Request, *, is_signed: bool) -> str | None:
    """The name that the sender gave this message: `Idempotency-Key`, or else `webhook-id`. Raises InvalidInput.

    Of what is signed it is the latter, whatever the former says, since that could be another one at each replay.
    """
    name = None if is_signed else _named_by_client(request)
    given = request.headers.getall("webhook-id", [])
    if len(given) > 1 or any(not _WEBHOOK_ID.fullmatch(each) for each in given):
        raise InvalidInput("`webhook-id` has 1 to 255 printable ASCII characters without spaces, given once.")
    return given[0] if name is None and given else name


def _named_by_client(request: web.Request) -> str | None:
    given = request.headers.getall("Idempotency-Key", [])
    if len(given) > 1 or any(not _ID.fullmatch(each) for each in given):
        raise InvalidInput("`Idempotency-Key` has 1 to 128 printable ASCII characters without spaces, given once.")
    return given[0] if given else None


def names(request: web.Request) -> dict[str, str]:
    """What the path names, for a log line: ids, and a mark in the place of what cannot be one."""
    return {name: text if _ID.fullmatch(text) else "no id" for name, text in request.match_info.items()}


def position(request: web.Request) -> Position:
    """After which event to go on: the header `Last-Event-ID`, else `?last_message_id=`, else the beginning.

    Raises InvalidPosition, also for the one that is not taken, and where one of them is given more than once.
    """
    found: list[Position] = []
    for given in (request.headers.getall("Last-Event-ID", []), request.query.getall("last_message_id", [])):
        if len(given) > 1:
            raise InvalidPosition
        found += map(Position.parse, given)
    return found[0] if found else BEGINNING


def after(request: web.Request) -> Position:
    """After which event a page begins: `?after=`, else the beginning.

    Raises InvalidPosition, also where it is given more than once.
    """
    given = request.query.getall("after", [])
    if len(given) > 1:
        raise InvalidPosition
    return Position.parse(given[0]) if given else BEGINNING
