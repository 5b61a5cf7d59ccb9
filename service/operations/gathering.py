"""Completions that come faster than the database commits: those that come while it does are one transaction."""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from service.model.errors import StoreUnavailable, cause_of
from service.model.operation import Completion, Disposition, Noted, Report
from service.operations.operations import Operations

log = structlog.get_logger()

AT_ONCE: Final = 2
"""Transactions: while one commits, the next one is made."""

MAX_GATHERED: Final = 64
"""Completions of one transaction, which holds the sessions of all of them for as long as it takes."""


class Gathering:
    """Takes messages as `Operations.take` does, several in one transaction where they come at once.

    None of them suffers from another: what could not be done for all of them is done for each alone. No more wait here
    than its callers have in hand, which the broker bounds.
    """

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._waiting: list[tuple[Completion, asyncio.Future[Disposition | None]]] = []
        self._taking: set[asyncio.Task[None]] = set()

    async def take(self, report: Report) -> Disposition | Noted:
        """Take a message about an operation. Raises DatabaseUnavailable: it is not known then whether it was taken."""
        if isinstance(report, Completion):
            became: asyncio.Future[Disposition | None] = asyncio.get_running_loop().create_future()
            self._waiting.append((report, became))
            if len(self._taking) < AT_ONCE:
                self._taking.add(asyncio.create_task(self._take_all(), name="completions-gathered"))
            if (disposition := await became) is not None:
                return disposition
        return await self._operations.take(report)

    async def close(self) -> None:
        """Give up what is under way; whoever waits for it has been given up before."""
        taking, self._taking = self._taking, set()
        for each in taking:
            each.cancel()
        if taking:
            await asyncio.wait(taking)

    async def _take_all(self) -> None:
        """Until nothing waits; counted no more in that very moment, else what comes next would wait for nobody."""
        try:
            while self._waiting:
                together, self._waiting = self._waiting[:MAX_GATHERED], self._waiting[MAX_GATHERED:]
                dispositions = await self._take_together([completion for completion, _ in together])
                for (_, became), disposition in zip(together, dispositions, strict=True):
                    if not became.done():  # else nobody waits for it any more
                        became.set_result(disposition)
        finally:
            self._taking = {taking for taking in self._taking if taking is not asyncio.current_task()}

    async def _take_together(self, completions: Sequence[Completion]) -> Sequence[Disposition | None]:
        try:
            return await self._operations.take_all(completions)
        except StoreUnavailable:
            return [None] * len(completions)  # which each says when it is taken alone
        except Exception as error:  # noqa: BLE001 - of one of them; it says so when it is taken alone
            log.warning("completions_taken_alone", count=len(completions), cause=cause_of(error))
            return [None] * len(completions)
