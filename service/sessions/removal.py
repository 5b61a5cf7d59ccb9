"""Deleted sessions on their way out, and what else has had its time."""

from typing import Final

import structlog

from service.registry.ports import HotLogs
from service.sessions.ports import Removals

log = structlog.get_logger()

SESSIONS_AT_ONCE: Final = 20

KEYS_AT_ONCE: Final = 5000
"""A statement that removes more may not come to its end within its deadline, and then never would."""

GRACE_SECONDS: Final = 30.0
"""A deleted session is kept for so long: readers of its last turn get to its end."""


class Remover:
    """Removes deleted sessions whose logs are closed, and old idempotency keys. Any number may work at once."""

    def __init__(self, removals: Removals, hot: HotLogs, *, grace_seconds: float = GRACE_SECONDS) -> None:
        self._removals = removals
        self._hot = hot
        self._grace_seconds = grace_seconds

    async def remove_some(self) -> bool:
        """Remove the next sessions that are due; answers whether there may be more. Raises StoreUnavailable.

        Their logs leave the hot store first: what is left behind by a crash in between is removed by the next try.
        """
        due = await self._removals.due(SESSIONS_AT_ONCE, self._grace_seconds)
        for session_id, task_ids in due:
            if task_ids:
                await self._hot.remove(task_ids)
            await self._removals.remove(session_id)
            log.info("session_removed", session_id=session_id, tasks=len(task_ids))
        return len(due) == SESSIONS_AT_ONCE

    async def forget_keys(self) -> bool:
        """Remove the next idempotency keys that are older than a day; answers whether there may be more.

        Raises StoreUnavailable.
        """
        return await self._removals.forget_keys(KEYS_AT_ONCE)
