"""A name for each request: the client's own or a new one, in the answer and in every log line of the request."""

import re
import secrets
from typing import Final

import structlog
from aiohttp import web

from service.http.problems import Handler

HEADER: Final = "X-Request-Id"
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_KEPT: Final = web.RequestKey("request_id", str)


def new_request_id() -> str:
    """An id that no other request has."""
    return secrets.token_hex(16)


def request_id(request: web.Request) -> str:
    """The request's id: what its header says, where that is one; else a new one, the same whenever it is asked for."""
    if _KEPT not in request:
        given = request.headers.getall(HEADER, [])
        is_one = len(given) == 1 and _ID.fullmatch(given[0]) is not None
        request[_KEPT] = given[0] if is_one else new_request_id()
    return request[_KEPT]


@web.middleware
async def request_ids(request: web.Request, handler: Handler) -> web.StreamResponse:
    """While the request is handled, log lines have its id."""
    with structlog.contextvars.bound_contextvars(request_id=request_id(request)):
        return await handler(request)


async def name_answer(request: web.Request, answer: web.StreamResponse) -> None:
    """Put the request's id on its answer, whatever that is, before its head is written."""
    answer.headers[HEADER] = request_id(request)
