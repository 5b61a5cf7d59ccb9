"""The archiver: copies closed logs into the archive, lets go what the hot store need not keep, and removes what was
deleted."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from service.model.errors import StoreUnavailable, cause_of
from service.registry.archive import Archivist
from service.sessions.removal import Remover

log = structlog.get_logger()

POLL_SECONDS: Final = 1.0
"""Between two looks for what is due, where the last one found all there was."""

SWEEP_SECONDS: Final = 2.0
"""Between two steps of the sweep over the hot store, each of a few hundred keys."""

REMOVAL_SECONDS: Final = 5.0
"""Between two looks for deleted sessions."""

FORGET_SECONDS: Final = 600.0
"""Between two removals of old idempotency keys."""

MAX_PAUSE_SECONDS: Final = 30.0
"""Between two tries while a store is away; the pause doubles up to this."""


class Archiver:
    """Works in the background, on as many processes as there are: none waits for another, and nothing is done twice."""

    def __init__(self, archivist: Archivist, remover: Remover) -> None:
        self._archivist = archivist
        self._remover = remover

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set. What is being copied then is given up: its transaction leaves nothing behind."""
        async with asyncio.TaskGroup() as tasks:
            loops = [
                tasks.create_task(_repeat(name, act, pause), name=name)
                for name, act, pause in (
                    ("archiving", self._archivist.archive_some, POLL_SECONDS),
                    ("sweeping", self._sweep, SWEEP_SECONDS),
                    ("removing", self._remover.remove_some, REMOVAL_SECONDS),
                    ("forgetting", self._remover.forget_keys, FORGET_SECONDS),
                )
            ]
            await stop.wait()
            for loop in loops:
                loop.cancel()

    async def _sweep(self) -> bool:
        await self._archivist.sweep_some()
        return False


async def _repeat(name: str, act: Callable[[], Awaitable[bool]], pause: float) -> None:
    """Act for ever: again at once while there is more to do. What goes wrong is told once, and that it goes on."""
    failures = 0
    while True:
        try:
            has_more = await act()
        except Exception as error:
            # The edge of a loop that ends with its process only.
            if failures == 0 and isinstance(error, StoreUnavailable):
                log.warning("archiver_waits", loop=name, because=type(error).__name__, cause=cause_of(error))
            elif failures == 0:
                log.exception("archiver_failed", loop=name)
            failures += 1
            await asyncio.sleep(min(MAX_PAUSE_SECONDS, pause * 2 ** min(failures, 10)))
            continue
        if failures:
            log.info("archiver_goes_on", loop=name, after_failures=failures)
            failures = 0
        await asyncio.sleep(0 if has_more else pause)
