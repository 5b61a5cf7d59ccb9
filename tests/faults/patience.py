"""Waiting for what another process does, which has no event for us: looking, again and again, within a bound."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

LOOK_SECONDS: Final = 0.02


async def until(holds: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Return when it holds. Raises TimeoutError where it does not within so many seconds."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110  this is the one place
            await asyncio.sleep(LOOK_SECONDS)
