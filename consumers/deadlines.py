"""Deadlines: every operation ends, also where nobody says how it ended."""

import asyncio
from typing import Final

from consumers.repeating import repeat
from service.operations.operations import Operations

POLL_SECONDS: Final = 1.0
"""Between two looks for what is overdue, where the last one found all there was."""

MAX_ENDED: Final = 100
"""So many are ended at once."""


class Deadlines:
    """Works in the background, on as many processes as there are: of two that find the same, one ends it."""

    def __init__(self, operations: Operations, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._operations = operations
        self._poll_seconds = poll_seconds

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set."""
        async with asyncio.TaskGroup() as tasks:
            ending = tasks.create_task(repeat("deadlines", self._end_some, self._poll_seconds), name="deadlines")
            await stop.wait()
            ending.cancel()

    async def _end_some(self) -> bool:
        return await self._operations.end_overdue(MAX_ENDED) == MAX_ENDED
