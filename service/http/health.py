"""Whether the service is alive, and whether it can work."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from aiohttp import web

from service.http import bodies
from service.model.errors import StoreUnavailable

Probe = Callable[[], Coroutine[Any, Any, object]]

PROBE_SECONDS: Final = 2.0
"""A dependency that has not answered by then is away."""


class HealthRoutes:
    """Asks each dependency, by name, with a call that raises StoreUnavailable while it is away."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes = probes
        self._asked: set[asyncio.Task[object]] = set()
        self._is_leaving = False

    def leave(self) -> None:
        """From now on this process is not ready: it finishes what it has, and begins nothing more."""
        self._is_leaving = True

    async def alive(self, request: web.Request) -> web.Response:
        return bodies.answer({"status": "ok"})

    async def ready(self, request: web.Request) -> web.Response:
        states = await asyncio.gather(*map(self._state, self._probes.values()))
        dependencies = dict(zip(self._probes, states, strict=True))
        ready = all(state == "ok" for state in states) and not self._is_leaving
        status = "ok" if ready else "stopping" if self._is_leaving else "unavailable"
        body = {"status": status, "dependencies": dependencies}
        return bodies.answer(body, status=200 if ready else 503)

    async def _state(self, probe: Probe) -> str:
        asked = asyncio.create_task(probe(), name="probe")
        try:
            done, _ = await asyncio.wait([asked], timeout=PROBE_SECONDS)
        finally:
            asked.cancel()  # a store's client may take seconds until it has let go: that is not waited for
            self._asked.add(asked)
            asked.add_done_callback(self._forget)
        if asked not in done or isinstance(asked.exception(), StoreUnavailable):
            return "away"
        asked.result()
        return "ok"

    def _forget(self, asked: asyncio.Task[object]) -> None:
        self._asked.discard(asked)
        if not asked.cancelled():
            asked.exception()  # seen, so that nobody reports it as unseen
