"""Ids and positions as they come in a request: what cannot be one is refused before a store is asked."""

import re
from typing import Final

from aiohttp import web

from service.model.errors import NotFound, UnknownMessage
from service.model.ids import MessageId, SessionId, TaskId
from service.model.position import BEGINNING, InvalidPosition, Position

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_ID: Final = re.compile(r"[!-~]{1,128}", re.ASCII)


def task_id(request: web.Request) -> TaskId:
    """The path's task. Raises NotFound for what is no task id."""
    text = request.match_info["task_id"]
    if not _UUID.fullmatch(text):
        raise NotFound
    return TaskId(text)


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


def names(request: web.Request) -> dict[str, str]:
    """What the path names, for a log line: ids, and a mark in the place of what cannot be one."""
    return {name: text if _ID.fullmatch(text) else "no id" for name, text in request.match_info.items()}


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
