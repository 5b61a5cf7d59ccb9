"""The archiver: copies closed logs into the archive, lets go what the hot store need not keep, and removes what was
deleted."""

import asyncio
from typing import Final

from consumers.repeating import repeat
from service.registry.archive import Archivist
from service.sessions.removal import Remover

POLL_SECONDS: Final = 1.0
"""Between two looks for what is due, where the last one found all there was."""

SWEEP_SECONDS: Final = 2.0
"""Between two steps of the sweep over the hot store, each of a few hundred keys."""

REMOVAL_SECONDS: Final = 5.0
"""Between two looks for deleted sessions."""

FORGET_SECONDS: Final = 600.0
"""Between two removals of old idempotency keys."""


class Archiver:
    """Works in the background, on as many processes as there are: none waits for another, and nothing is done twice."""

    def __init__(self, archivist: Archivist, remover: Remover) -> None:
        self._archivist = archivist
        self._remover = remover

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set. What is being copied then is given up: its transaction leaves nothing behind."""
        async with asyncio.TaskGroup() as tasks:
            loops = [
                tasks.create_task(repeat(name, act, pause), name=name)
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
