"""What is done again and again, as long as its process runs."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from service.model.errors import StoreUnavailable, cause_of

log = structlog.get_logger()

MAX_PAUSE_SECONDS: Final = 30.0
"""Between two tries while a store is away; the pause doubles up to this."""


async def repeat(name: str, act: Callable[[], Awaitable[bool]], pause: float) -> None:
    """Act for ever: again at once while there is more to do. What goes wrong is told once, and that it goes on."""
    failures = 0
    while True:
        try:
            has_more = await act()
        except Exception as error:
            # The edge of a loop that ends with its process only.
            if failures == 0 and isinstance(error, StoreUnavailable):
                log.warning("loop_waits", loop=name, because=type(error).__name__, cause=cause_of(error))
            elif failures == 0:
                log.exception("loop_failed", loop=name)
            failures += 1
            await asyncio.sleep(min(MAX_PAUSE_SECONDS, pause * 2 ** min(failures, 10)))
            continue
        if failures:
            log.info("loop_goes_on", loop=name, after_failures=failures)
            failures = 0
        await asyncio.sleep(0 if has_more else pause)
