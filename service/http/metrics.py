"""What this process counts, at a route; and the counting of requests."""

import asyncio
import time
from typing import Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Middleware

from service.http.problems import Handler, route_of
from service.model.errors import StoreUnavailable
from service.model.task import Backlog
from service.sessions.ports import Backlogs

BACKLOG_SECONDS: Final = 2.0
"""So long the database may take to say how far the service is behind; the rest is told without it."""


class RequestMeter(Protocol):
    """Where requests are counted."""

    def request(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """One was answered; a stream has no time of its own."""


class Instruments(Protocol):
    """What is counted here."""

    def note_backlog(self, backlog: Backlog | None) -> None:
        """How far the whole service is behind; None where that cannot be said now."""

    def render(self) -> bytes:
        """All of it, for Prometheus."""


class MetricsRoutes:
    """Answers what this process has counted, and how far the whole service is behind."""

    def __init__(self, instruments: Instruments, content_type: str, backlogs: Backlogs) -> None:
        self._instruments = instruments
        self._content_type = content_type
        self._backlogs = backlogs

    async def read(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(BACKLOG_SECONDS):
                self._instruments.note_backlog(await self._backlogs.backlog())
        except (StoreUnavailable, TimeoutError):
            self._instruments.note_backlog(None)
        return web.Response(body=self._instruments.render(), headers={"Content-Type": self._content_type})


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
