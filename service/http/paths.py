"""Ids and positions as they come in a request: what cannot be one is refused before a store is asked."""

import re
from typing import Final

from aiohttp import web

from service.model.errors import InvalidInput, NotFound, UnknownMessage
from service.model.ids import MessageId, SessionId, TaskId, parse_task_id
from service.model.position import BEGINNING, InvalidPosition, Position

EVENTS_BY_DEFAULT: Final = 100
MAX_EVENTS: Final = 1000

_NUMBER: Final = re.compile(r"[0-9]{1,4}", re.ASCII)
_ID: Final = re.compile(r"[!-~]{1,128}", re.ASCII)


class InvalidLimit(InvalidInput):
    """A limit is a number from 1 to 1000."""


def task_id(request: web.Request) -> TaskId:
    """The path's task. Raises NotFound for what is no task id."""
    return parse_task_id(request.match_info["task_id"])


def session_id(request: web.Request) -> SessionId:
    """The path's session. Raises NotFound for what is no session id."""
    text = request.match_info["session_id"]
    if not _ID.fullmatch(text):
        raise NotFound
    return SessionId(text)


def before(request: web.Request) -> MessageId | None:
    """The message that `?before=` names: those before it are asked for. Raises UnknownMessage for what is no id."""
    given = request.query.getall("before", [])
    if not given:
        return None
    if len(given) > 1 or not _ID.fullmatch(given[0]):
        raise UnknownMessage
    return MessageId(given[0])


def position(request: web.Request) -> Position:
    """After which event to go on: the header `Last-Event-ID`, else `?last_message_id=`, else the beginning.

    Raises InvalidPosition, also where one of them is given more than once.
    """
    for given in (request.headers.getall("Last-Event-ID", []), request.query.getall("last_message_id", [])):
        if len(given) > 1:
            raise InvalidPosition
        if given:
            return Position.parse(given[0])
    return BEGINNING


def after(request: web.Request) -> Position:
    """After which event a page begins: `?after=`, else the beginning.

    Raises InvalidPosition, also where it is given more than once.
    """
    given = request.query.getall("after", [])
    if len(given) > 1:
        raise InvalidPosition
    return Position.parse(given[0]) if given else BEGINNING


def limit(request: web.Request) -> int:
    """How many events a page has at most: `?limit=`, else EVENTS_BY_DEFAULT. Raises InvalidLimit."""
    given = request.query.getall("limit", [str(EVENTS_BY_DEFAULT)])
    if len(given) > 1 or not _NUMBER.fullmatch(given[0]) or not 1 <= int(given[0]) <= MAX_EVENTS:
        raise InvalidLimit
    return int(given[0])
