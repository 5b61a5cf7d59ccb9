"""How a turn that waits for something is told that its owner wants it cancelled."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from service.model.errors import PlayheadError


class Cancelled(PlayheadError):
    """The task was cancelled by its owner."""


class Cancellation:
    """One task's: asked for once and for good, whoever asks. Interrupts only what says that it may be interrupted."""

    def __init__(self) -> None:
        self._is_requested = False
        self._scope: asyncio.Timeout | None = None

    def request(self) -> None:
        """Interrupt the scope that is open, and every one that is opened later."""
        if self._is_requested:
            return
        self._is_requested = True
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    def check(self) -> None:
        """Raises Cancelled where it was asked for."""
        if self._is_requested:
            raise Cancelled

    @asynccontextmanager
    async def scope(self) -> AsyncGenerator[None]:
        """What may be interrupted anywhere that it waits: then, or if it already is too late, this raises Cancelled.

        One at a time. A holder that is stopped inside is stopped as usual.
        """
        self.check()
        try:
            async with asyncio.timeout(None) as self._scope:
                yield
        except TimeoutError:
            if self._scope is None or not self._scope.expired():
                raise
            raise Cancelled from None
        finally:
            self._scope = None
