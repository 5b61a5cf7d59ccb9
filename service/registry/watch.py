"""Whether the stores answer this process, and since when they do not."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog

from service.model.errors import StoreUnavailable

log = structlog.get_logger()

Probe = Callable[[], Coroutine[Any, Any, object]]

PROBE_SECONDS: Final = 2.0
"""A store that has not answered by then is away."""

WATCH_SECONDS: Final = 5.0
"""So often the stores are looked at though nobody asks: since when one is away is as exact as this."""

AWAY_SECONDS: Final = 1.0
"""So often while one is away: who waits for it goes on as soon as that."""


@dataclass(frozen=True, slots=True)
class _Away:
    since: datetime
    """The time of day in UTC, for people."""
    asked_at: float
    """By the monotonic clock."""


class StoreWatch:
    """Asks each store, by name, with a call that raises StoreUnavailable while it is away.

    `now` is the time of day in UTC, `monotonic` only goes forward.
    """

    def __init__(
        self, probes: Mapping[str, Probe], now: Callable[[], datetime], monotonic: Callable[[], float]
    ) -> None:
        self._probes = probes
        self._now = now
        self._monotonic = monotonic
        self._away: dict[str, _Away] = {}
        self._asked: set[asyncio.Task[object]] = set()

    @asynccontextmanager
    async def watching(self) -> AsyncGenerator[None]:
        """Look at the stores from time to time while the block runs; the log is told of what goes and comes."""
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch(), name="stores")
            try:
                yield
            finally:
                watching.cancel()

    def since(self) -> Mapping[str, datetime | None]:
        """Each store by its name, with when it was first found away; None where it answered when it was last asked."""
        return {name: away.since if (away := self._away.get(name)) else None for name in self._probes}

    def away_seconds(self, name: str) -> float | None:
        """How long ago this store was first found away; None where it answered when it was last asked."""
        away = self._away.get(name)
        return None if away is None else self._monotonic() - away.asked_at

    async def look(self) -> None:
        """Ask each store now."""
        asked_at = self._monotonic()
        answers = await asyncio.gather(*map(self._answers, self._probes.values()))
        for name, answers_now in zip(self._probes, answers, strict=True):
            if answers_now and (away := self._away.pop(name, None)) is not None:
                log.info("store_is_back", store=name, away_seconds=round(self._monotonic() - away.asked_at, 1))
            elif not answers_now and name not in self._away:
                self._away[name] = _Away(self._now(), asked_at)
                log.warning("store_is_away", store=name)

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("stores_unknown")
            await asyncio.sleep(AWAY_SECONDS if self._away else WATCH_SECONDS)

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
