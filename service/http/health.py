"""Whether the service is alive, and whether it can work."""

from typing import Literal

from aiohttp import web

from service.http import answers, bodies
from service.registry.watch import StoreWatch


class HealthRoutes:
    """Says what the watch over the stores finds when it is asked."""

    def __init__(self, stores: StoreWatch) -> None:
        self._stores = stores
        self._is_leaving = False

    def leave(self) -> None:
        """From now on this process is not ready: it finishes what it has, and begins nothing more."""
        self._is_leaving = True

    async def alive(self, request: web.Request) -> web.Response:
        body: answers.Alive = {"status": "ok"}
        return bodies.answer(body)

    async def ready(self, request: web.Request) -> web.Response:
        await self._stores.look()
        away_since = self._stores.since()
        dependencies: dict[str, answers.Dependency] = {
            name: {"status": "ok"} if since is None else {"status": "away", "since": bodies.rfc3339(since)}
            for name, since in away_since.items()
        }
        ready = not any(away_since.values()) and not self._is_leaving
        status: Literal["ok", "stopping", "unavailable"]
        status = "ok" if ready else "stopping" if self._is_leaving else "unavailable"
        body: answers.Readiness = {"status": status, "dependencies": dependencies}
        return bodies.answer(body, status=200 if ready else 503)
