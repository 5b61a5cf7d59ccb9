"""Pages of other origins: refused by the browser, unless their origin is set."""

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from service.http.problems import Handler

MAX_AGE_SECONDS: Final = 600
"""So long a browser need not ask again before it asks."""

ASKS_WITH: Final = "Authorization, X-API-Key, Content-Type, Last-Event-ID, Idempotency-Key, X-Request-Id"
SEES: Final = "X-Request-Id, Retry-After, WWW-Authenticate"
"""Headers of an answer that a page may read, beside those that every page may."""


def preflights(origins: Collection[str], methods: Iterable[str]) -> Middleware:
    """The middleware that answers a browser which asks whether a page of one of these origins may ask."""
    allowed = ", ".join(sorted(set(methods)))

    @web.middleware
    async def preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if not is_preflight or _origin(request) not in origins or isinstance(_refusal(request), web.HTTPNotFound):
            return await handler(request)
        headers = {
            "Access-Control-Allow-Methods": allowed,
            "Access-Control-Allow-Headers": ASKS_WITH,
            "Access-Control-Max-Age": str(MAX_AGE_SECONDS),
        }
        return web.Response(status=204, headers=headers)

    return preflight


def allowing(origins: Collection[str]) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """What lets pages of these origins read an answer, errors and streams included. They get no cookies along."""

    async def allow(request: web.Request, answer: web.StreamResponse) -> None:
        answer.headers["Vary"] = "Origin"
        origin = _origin(request)
        if origin in origins:
            answer.headers["Access-Control-Allow-Origin"] = origin
            answer.headers["Access-Control-Expose-Headers"] = SEES

    return allow


def _origin(request: web.Request) -> str:
    given = request.headers.getall("Origin", [])
    return given[0] if len(given) == 1 else ""


def _refusal(request: web.Request) -> web.HTTPException | None:
    return request.match_info.http_exception
