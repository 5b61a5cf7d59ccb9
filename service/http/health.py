"""Whether the service is alive, and whether it can work."""

from collections.abc import Callable
from typing import Literal

from aiohttp import web

from service.http import answers, bodies
from service.model.intake import IntakeState
from service.registry.watch import StoreWatch


class HealthRoutes:
    """Says what the watch over the stores finds when it is asked."""

    def __init__(self, stores: StoreWatch) -> None:
        self._stores = stores
        self._is_leaving = False
        self._intakes: dict[str, Callable[[], IntakeState]] = {}

    def show_intake(self, name: str, state: Callable[[], IntakeState]) -> None:
        """Tell of this, too. Whatever it waits for, the process is ready: it serves who asks, and goes on by itself."""
        self._intakes[name] = state

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
        if self._intakes:
            body["intakes"] = {name: _shown(state()) for name, state in self._intakes.items()}
        return bodies.answer(body, status=200 if ready else 503)


def _shown(state: IntakeState) -> answers.IntakeAnswer:
    shown: answers.IntakeAnswer = {"status": "ok", "in_hand": state.in_hand}
    if state.waits_for is not None and state.waits_since is not None:
        shown |= {"status": "waiting", "waits_for": state.waits_for, "since": bodies.rfc3339(state.waits_since)}
    if state.attached_since is not None:
        shown["attached_since"] = bodies.rfc3339(state.attached_since)
    if state.last_delivery is not None:
        shown["last_delivery"] = bodies.rfc3339(state.last_delivery)
    return shown
