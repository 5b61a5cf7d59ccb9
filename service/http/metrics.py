"""What this process counts, at a route; and the counting of requests."""

import time
from collections.abc import Callable
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Middleware

from service.http.problems import Handler, route_of


class RequestMeter(Protocol):
    """Where requests are counted."""

    def request(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """One was answered; a stream has no time of its own."""


class MetricsRoutes:
    """Answers what `render` says."""

    def __init__(self, render: Callable[[], bytes], content_type: str) -> None:
        self._render = render
        self._content_type = content_type

    async def read(self, request: web.Request) -> web.Response:
        return web.Response(body=self._render(), headers={"Content-Type": self._content_type})


def counting(meter: RequestMeter) -> Middleware:
    """The middleware that counts every request, by its route and not by its path, which has ids."""

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        begun = time.monotonic()
        answer = await handler(request)
        seconds = time.monotonic() - begun if isinstance(answer, web.Response) else None
        meter.request(request.method, route_of(request), answer.status, seconds)
        return answer

    return count
