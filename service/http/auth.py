"""Who is asking, at the door: credentials are found here, judged in `service.access`, and held against the route.

A route declares what it takes. What a handler gets is a caller who may use it: `caller(request)`, and how far what they
see reaches: `reach(request)`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from service.access.callers import Callers
from service.access.signatures import SIGNATURE
from service.http import bodies, paths
from service.http.problems import Handler, Problem, route_of
from service.model.caller import EVERYONES, Caller, Reach, Scope
from service.model.errors import Unauthenticated

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Takes:
    """What a route takes: a caller with one of these scopes."""

    scopes: frozenset[Scope]
    stream_tokens: bool = False
    """Also `?token=`, where it is for the path's task."""
    signatures: bool = False
    """Also a remote tool's signature over the body, for that tool's operations."""
    everyones: bool = False
    """Only who reaches everybody's things: what is asked for has no owner."""


@dataclass(frozen=True, slots=True)
class Public:
    """Anybody, whatever they show."""


PUBLIC: Final = Public()
READ: Final = Takes(frozenset({"read", "ops"}))
READ_OWN: Final = Takes(frozenset({"read"}))
WRITE: Final = Takes(frozenset({"write"}))
OPERATE: Final = Takes(frozenset({"write", "ops"}))
OPS: Final = Takes(frozenset({"ops"}))
OPS_ALONE: Final = Takes(OPS.scopes, everyones=True)
COMPLETE: Final = Takes(frozenset({"complete", "ops"}), signatures=True)
FOLLOW: Final = Takes(READ.scopes, stream_tokens=True)

Taken = Takes | Public
"""A route with `ops` or `complete` in it reaches everybody's things, for the service's own keys that have that."""

_CALLER: Final = web.RequestKey("caller", Caller)
_TAKES: Final = web.RequestKey("takes", Takes)


def caller(request: web.Request) -> Caller:
    """Who is asking; they may use this route. A public route has no caller."""
    return request[_CALLER]


def reach(request: web.Request) -> Reach:
    """How far what the caller sees over this route reaches."""
    return request[_CALLER].reach(request[_TAKES].scopes)


def asking(callers: Callers, taken: Mapping[web.AbstractRoute, Taken]) -> Middleware:
    """The middleware that lets nobody but such callers through. A route that declares nothing lets nobody through."""

    @web.middleware
    async def ask(request: web.Request, handler: Handler) -> web.StreamResponse:
        match = request.match_info
        if match.http_exception is not None:  # there is no such route, or method
            return await handler(request)
        takes = taken[match.route]
        if isinstance(takes, Public):
            return await handler(request)
        try:
            asking = await _judge(request, callers, takes)
        except Unauthenticated as error:
            log.info("unauthenticated", reason=error.reason, route=route_of(request))
            raise
        if not asking.may(takes.scopes):
            raise _forbidden("This credential has none of the scopes that this route takes.")
        if takes.everyones and asking.reach(takes.scopes) != EVERYONES:
            raise _forbidden("Only the service's own keys may do this.")
        request[_CALLER], request[_TAKES] = asking, takes
        if not asking.is_local and asking.tool is None and reach(request) == EVERYONES:
            log.info("owners_crossed", by=asking.name, route=route_of(request), asked_for=paths.names(request))
        return await handler(request)

    return ask


async def _judge(request: web.Request, callers: Callers, takes: Takes) -> Caller:
    """Who shows the one credential that is shown. Raises Unauthenticated, StoreUnavailable; Problem (403).

    For a signature the body is read first, and refused like any other body that cannot be read.
    """
    bearers = request.headers.getall("Authorization", [])
    keys = request.headers.getall("X-API-Key", [])
    tokens = request.query.getall("token", [])
    signatures = request.headers.getall(SIGNATURE, []) if takes.signatures else []
    if len(bearers) + len(keys) + len(tokens) + len(signatures) > 1:
        raise Unauthenticated("several_shown")
    if bearers:
        scheme, _, text = bearers[0].partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("other_scheme")
        return await callers.of_bearer(text)
    if keys:
        return await callers.of_key(keys[0])
    if tokens:
        return await _by_stream_token(request, callers, tokens[0], takes)
    if signatures:
        return callers.of_signature(request.headers, await bodies.read_body(request))
    return callers.of_nothing()


async def _by_stream_token(request: web.Request, callers: Callers, text: str, takes: Takes) -> Caller:
    if not takes.stream_tokens:
        raise Unauthenticated("token_in_query")
    found, task_id = await callers.of_stream_token(text)
    if request.match_info["task_id"] != task_id:
        raise _forbidden("This token is for the stream of another task.")
    return found


def _forbidden(detail: str) -> Problem:
    return Problem(403, "forbidden", detail)
