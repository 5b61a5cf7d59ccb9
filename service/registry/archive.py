"""Closed logs on their way from the hot store into the archive, and what of the hot store can go then.

A log is copied only whole, page by page, in one transaction with the row that says so; only what is archived ever
expires. A crash between the two leaves a hot copy that does not expire, and a database that was set back, or a session
that was deleted, one that belongs to nobody: a sweep over the hot store mends both.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, assert_never

import structlog

from service.model.chain import NOTHING_READ, NotWhole, Proof, proven
from service.model.errors import LogUnavailable, StoreUnavailable
from service.model.ids import TaskId
from service.model.log import Page
from service.registry.ports import Copying, HotLogs, LogArchive, LogSource

log = structlog.get_logger()

LOGS_AT_ONCE: Final = 256
"""In one transaction, where each fits one page. A longer one has a transaction of its own."""

FIRST_PAGE_EVENTS: Final = 128
LOGS_A_TRIP: Final = 4
"""The first pages of so many logs are in memory at once: usually 100 KiB, and 128 MiB where every event is as long as
an event can be."""

PAGE_BYTES: Final = 512 * 1024
MAX_PAGE_EVENTS: Final = 2048
"""Of a longer log, by the length that its events had so far."""

MAX_BROKEN: Final = 1000
"""Logs that cannot be archived and are not tried again in this process; beyond it the first are forgotten."""


@dataclass(frozen=True, slots=True)
class Whole:
    """The log is there from its first event to its terminal one."""

    proof: Proof


@dataclass(frozen=True, slots=True)
class Endless:
    """The store does not have the terminal event, or anything, of a log that was closed."""


@dataclass(frozen=True, slots=True)
class Long:
    """There is more of it than one page; nothing was done with it."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Something inside is missing. No store can make it whole again."""


Found = Whole | Endless | Long | Broken


class Archivist:
    """Archives what is due, a batch at a time, and sweeps the hot store. Any number may work at once."""

    def __init__(self, logs: LogSource, hot: HotLogs, archive: LogArchive, *, hot_ttl_seconds: int) -> None:
        self._logs = logs
        self._hot = hot
        self._archive = archive
        self._hot_ttl_seconds = hot_ttl_seconds
        self._after: TaskId | None = None
        self._cursor = 0
        self._foreign_is_told = False
        self._broken: OrderedDict[TaskId, None] = OrderedDict()

    async def archive_some(self) -> bool:
        """Archive the next logs that are due; answers whether there are more behind them. Raises StoreUnavailable.

        Goes on behind them next time, whatever became of them, and begins anew at the end: a log that cannot be
        archived holds up no other.
        """
        due = await self._archive.due(self._after, LOGS_AT_ONCE)
        has_more = len(due) == LOGS_AT_ONCE
        self._after = due[-1] if has_more else None
        tried = [task_id for task_id in due if task_id not in self._broken]
        if tried:
            await self._archive.prepare(tried)  # that there is no place for any log is no log's fault
        try:
            await self._archive_them(tried)
        except StoreUnavailable:
            raise
        except Exception:
            # A mistake over one of them must not keep the others: each is tried alone, and that one given up.
            log.exception("archiving_crashed", logs=len(tried))
            for task_id in tried:
                await self._archive_alone(task_id)
        return has_more

    async def _archive_alone(self, task_id: TaskId) -> None:
        try:
            await self._archive_them([task_id])
        except StoreUnavailable:
            raise
        except Exception:
            log.exception("log_not_archived", task_id=task_id)
            self._give_up(task_id)

    async def _archive_them(self, task_ids: Sequence[TaskId]) -> None:
        if not task_ids:
            return
        found: dict[TaskId, Found] = {}
        try:
            async with self._archive.copying(task_ids) as copying:
                for start in range(0, len(copying.task_ids), LOGS_A_TRIP):
                    trip = copying.task_ids[start : start + LOGS_A_TRIP]
                    pages = await self._hot.begin(trip, FIRST_PAGE_EVENTS)
                    for task_id, page in zip(trip, pages, strict=True):
                        found[task_id] = await self._copy(copying, task_id, page, is_alone=len(task_ids) == 1)
                proofs = {task_id: each.proof for task_id, each in found.items() if isinstance(each, Whole)}
                if proofs:
                    await copying.seal(proofs)
        except NotWhole:  # far behind the first page of a long log; what was put of it is given up with the transaction
            found = {task_id: Broken() for task_id in task_ids}
        await self._act(found)

    async def _copy(self, copying: Copying, task_id: TaskId, page: Page, *, is_alone: bool) -> Found:
        """Put a log that begins with this page into the transaction, if it is whole; a longer one where it is alone."""
        if not page.head.closed:
            return Endless()
        try:
            proof, rows = proven(NOTHING_READ, page.events)
        except NotWhole:
            return Broken()
        if proof.last == page.head.last and proof.ended:
            await copying.put(task_id, rows)
            return Whole(proof)
        if len(page.events) < FIRST_PAGE_EVENTS:
            return Broken()
        if not is_alone:
            return Long()
        await copying.put(task_id, rows)
        return Whole(await self._copy_rest(copying, task_id, page, proof))

    async def _copy_rest(self, copying: Copying, task_id: TaskId, page: Page, proof: Proof) -> Proof:
        """Raises NotWhole; and LogUnavailable where the store forgets while it is read: to be looked at anew."""
        head = page.head
        while proof.last != head.last:
            event_bytes = sum(len(data) for _, data in page.events) // len(page.events) + 1
            count = max(1, min(MAX_PAGE_EVENTS, PAGE_BYTES // event_bytes))
            page = await self._logs.read(task_id, proof.last, count)
            if page.head != head:
                raise LogUnavailable
            if not page.events:
                raise NotWhole
            proof, rows = proven(proof, page.events)
            await copying.put(task_id, rows)
        if not proof.ended:
            raise NotWhole
        return proof

    async def _act(self, found: dict[TaskId, Found]) -> None:
        archived: list[TaskId] = []
        for task_id, each in found.items():
            match each:
                case Whole():
                    archived.append(task_id)
                case Endless():
                    if await self._archive.owe(task_id):
                        log.warning("log_lost_its_end", task_id=task_id)
                case Broken():
                    log.error("log_not_archived", task_id=task_id, because="it is not whole")
                    self._give_up(task_id)
                case Long():
                    pass
                case other:
                    assert_never(other)
        if archived:
            await self._hot.retire(archived, self._hot_ttl_seconds)
            log.info("logs_archived", logs=len(archived))
        for task_id, each in found.items():
            if isinstance(each, Long):
                await self._archive_alone(task_id)

    def _give_up(self, task_id: TaskId) -> None:
        self._broken[task_id] = None
        if len(self._broken) > MAX_BROKEN:
            self._broken.popitem(last=False)

    async def sweep_some(self) -> None:
        """Look at the next few hot logs: archived ones expire, those of no task go. Raises StoreUnavailable.

        Nothing goes that the database could not be asked about, nor of a store that belongs to another one: there its
        tasks are.
        """
        scanned = await self._hot.scan(self._cursor)
        standing = await self._archive.standing(scanned.task_ids)
        is_ours = await self._hot.is_of(standing.database)
        if is_ours:
            self._foreign_is_told = False
        if standing.archived:
            await self._hot.retire(standing.archived, self._hot_ttl_seconds)
        if standing.unknown and is_ours:
            await self._hot.remove(standing.unknown)
            log.warning("logs_without_a_task_removed", task_ids=standing.unknown)
        elif standing.unknown and not self._foreign_is_told:
            log.error("redis_belongs_to_another_database", logs_without_a_task_here=len(standing.unknown))
            self._foreign_is_told = True
        self._cursor = scanned.cursor
