"""Requests and readers as spans, where the service is traced."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing
from typing import Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Middleware

from service.http.problems import Handler, route_of
from service.model.trace import TraceParent
from service.registry.follow import Followed, Frames

UNTRACED: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines."""


class Tracer(Protocol):
    """Where spans are made."""

    def request(
        self, method: str, route: str, traceparent: str | None
    ) -> AbstractContextManager[Callable[[int], None]]:
        """The span of a request while the block runs; what it gives is told the answer's status."""

    def reader(self) -> AbstractContextManager[Callable[[TraceParent, str], None]]:
        """The spans of a reader while the block runs; what it gives is told where what was delivered was written."""


def tracing(tracer: Tracer) -> Middleware:
    """The middleware that makes each request a span of whoever asks: its route, and no path, which has ids."""

    @web.middleware
    async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
        if route_of(request) in UNTRACED:
            return await handler(request)
        with tracer.request(request.method, route_of(request), request.headers.get("traceparent")) as answered:
            answer = await handler(request)
            answered(answer.status)
            return answer

    return trace


async def traced(items: AsyncGenerator[Followed], tracer: Tracer) -> AsyncGenerator[Followed]:
    """The same items; what was sent of them is told when the next is asked for."""
    with tracer.reader() as delivered:
        async with aclosing(items):
            async for item in items:
                yield item
                if isinstance(item, Frames) and item.trace is not None:
                    delivered(item.trace, str(item.last))
