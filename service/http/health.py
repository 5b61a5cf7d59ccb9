"""Whether the service is alive, and whether it can work."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import structlog
from aiohttp import web

from service.http import bodies
from service.model.errors import StoreUnavailable

log = structlog.get_logger()

Probe = Callable[[], Coroutine[Any, Any, object]]

PROBE_SECONDS: Final = 2.0
"""A dependency that has not answered by then is away."""

WATCH_SECONDS: Final = 5.0
"""So often the dependencies are looked at though nobody asks: since when one is away is as exact as this."""


class HealthRoutes:
    """Asks each dependency, by name, with a call that raises StoreUnavailable while it is away."""

    def __init__(self, probes: Mapping[str, Probe], now: Callable[[], datetime]) -> None:
        self._probes = probes
        self._now = now
        self._away_since: dict[str, datetime] = {}
        self._asked: set[asyncio.Task[object]] = set()
        self._is_leaving = False

    def leave(self) -> None:
        """From now on this process is not ready: it finishes what it has, and begins nothing more."""
        self._is_leaving = True

    @asynccontextmanager
    async def watching(self) -> AsyncGenerator[None]:
        """Look at the dependencies from time to time while the block runs; the log is told of what goes and comes."""
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch(), name="health")
            try:
                yield
            finally:
                watching.cancel()

    async def alive(self, request: web.Request) -> web.Response:
        return bodies.answer({"status": "ok"})

    async def ready(self, request: web.Request) -> web.Response:
        await self._look()
        dependencies = {name: self._state(name) for name in self._probes}
        ready = not self._away_since and not self._is_leaving
        status = "ok" if ready else "stopping" if self._is_leaving else "unavailable"
        body = {"status": status, "dependencies": dependencies}
        return bodies.answer(body, status=200 if ready else 503)

    def _state(self, name: str) -> dict[str, str | None]:
        since = self._away_since.get(name)
        return {"status": "ok"} if since is None else {"status": "away", "since": bodies.rfc3339(since)}

    async def _watch(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:
                log.exception("health_unknown")
            await asyncio.sleep(WATCH_SECONDS)

    async def _look(self) -> None:
        answers = await asyncio.gather(*map(self._answers, self._probes.values()))
        for name, answers_now in zip(self._probes, answers, strict=True):
            if answers_now and (since := self._away_since.pop(name, None)) is not None:
                log.info("store_is_back", store=name, away_seconds=round((self._now() - since).total_seconds(), 1))
            elif not answers_now and name not in self._away_since:
                self._away_since[name] = self._now()
                log.warning("store_is_away", store=name)

    async def _answers(self, probe: Probe) -> bool:
        asked = asyncio.create_task(probe(), name="probe")
        try:
            done, _ = await asyncio.wait([asked], timeout=PROBE_SECONDS)
        finally:
            asked.cancel()  # a store's client may take seconds until it has let go: that is not waited for
            self._asked.add(asked)
            asked.add_done_callback(self._forget)
        if asked not in done or isinstance(asked.exception(), StoreUnavailable):
            return False
        asked.result()
        return True

    def _forget(self, asked: asyncio.Task[object]) -> None:
        self._asked.discard(asked)
        if not asked.cancelled():
            asked.exception()  # seen, so that nobody reports it as unseen
