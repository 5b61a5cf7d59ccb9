"""Whether the service is alive, and whether it can work."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from service.http import bodies
from service.model.errors import StoreUnavailable

Probe = Callable[[], Awaitable[object]]

PROBE_SECONDS: Final = 2.0


class HealthRoutes:
    """Asks each dependency, by name, with a call that raises StoreUnavailable while it is away."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes = probes

    async def alive(self, request: web.Request) -> web.Response:
        return bodies.answer({"status": "ok"})

    async def ready(self, request: web.Request) -> web.Response:
        states = await asyncio.gather(*map(_state, self._probes.values()))
        dependencies = dict(zip(self._probes, states, strict=True))
        ready = all(state == "ok" for state in states)
        body = {"status": "ok" if ready else "unavailable", "dependencies": dependencies}
        return bodies.answer(body, status=200 if ready else 503)


async def _state(probe: Probe) -> str:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await probe()
    except (StoreUnavailable, TimeoutError):
        return "away"
    return "ok"
