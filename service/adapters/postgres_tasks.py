"""Tasks in PostgreSQL: who works on what, how it ended, and what its log is owed."""

from collections import deque
from collections.abc import Collection, Sequence
from datetime import timedelta
from itertools import cycle
from typing import Any, Final

import asyncpg
import orjson
import structlog

from service.adapters.postgres import Database, reached, statements
from service.model.caller import EVERYONES, Own, Reach
from service.model.encoding import BrokenEvent, decode, plain
from service.model.errors import StoreUnavailable, TakenOver, cause_of
from service.model.events import CallMetadata, Chunk, MessageMetadata, Unknown, Usage
from service.model.ids import Epoch, MessageId, OperationId, OwnerId, SessionId, TaskId
from service.model.log import TaskFacts
from service.model.session import Promoted
from service.model.step import CompletedStep, KeptStep
from service.model.task import MAX_COUNTED, Backlog, Claim, End, Ended, Held, Ownership, Task, TaskFilter
from service.model.trace import trace_from

log = structlog.get_logger()

_SQL: Final = statements("tasks")

MAX_FOREIGN: Final = 1000
"""Ended tasks of other versions that are remembered; beyond it the first are forgotten, and claimed once more."""


class PostgresTasks:
    """The ports `TaskQueue`, `TaskStore`, `TaskDirectory`, `TaskRows`, `StepStore` and `Backlogs`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._foreign: deque[str] = deque(maxlen=MAX_FOREIGN)
        self._odd = cycle((0, 1))

    async def read(self, reach: Reach, task_id: TaskId) -> Task | None:
        row = await self._database.fetchrow(_SQL["read"], task_id, *reached(reach))
        return None if row is None else _task_from(row)

    async def row(self, task_id: TaskId) -> Task | None:
        return await self.read(EVERYONES, task_id)

    async def cancel(self, reach: Reach, task_id: TaskId) -> Task | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_SQL["cancel"], task_id, *reached(reach))
            row = row or await connection.fetchrow(_SQL["read"], task_id, *reached(reach))
            if row is not None and row["status"] == "waiting":
                await connection.fetchrow(_SQL["cancel_waiting"], task_id, *reached(reach))
                row = await connection.fetchrow(_SQL["read"], task_id, *reached(reach))
        return None if row is None else _task_from(row)

    async def newest(self, reach: Reach, wanted: TaskFilter, limit: int, before: int | None) -> Sequence[Task]:
        everyones, whose = reached(reach)
        title = _narrowest(wanted, reach)
        only = wanted.status, wanted.kind, wanted.session_id, wanted.owner
        rows = await self._database.fetch(_SQL[title], limit, before, everyones, whose, *only)
        return [_task_from(row) for row in rows]

    async def of_session(self, reach: Reach, session_id: SessionId, limit: int, after: int) -> Sequence[Task] | None:
        rows = await self._database.fetch(_SQL["of_session"], session_id, *reached(reach), limit, after)
        if not rows:
            return None
        return [_task_from(row) for row in rows if row["id"] is not None]

    async def ownership(self, task_id: TaskId) -> Ownership | None:
        row = await self._database.fetchrow(_SQL["ownership"], task_id)
        return None if row is None else Ownership(None if row["owner"] is None else OwnerId(row["owner"]))

    async def backlog(self) -> Backlog:
        (row,) = await self._database.fetch(_SQL["backlog"], MAX_COUNTED)
        return Backlog(**row)

    async def claim(self, limit: int, lease_seconds: float, *, counts_lost: bool = True) -> Sequence[Claim]:
        try:
            rows = await self._database.fetch(
                _SQL["claim"],
                limit,
                timedelta(seconds=lease_seconds),
                list(self._foreign),
                counts_lost,
                next(self._odd),
            )
        except asyncpg.UniqueViolationError:  # another worker was faster with one of these sessions
            rows = []
        claims, foreign = [], []
        for row in rows:
            try:
                claims.append(_claim_from(row))
            except BrokenEvent:
                foreign.append(row)
        if foreign:
            await self._leave(foreign)
        return claims

    async def _leave(self, rows: Sequence[asyncpg.Record]) -> None:
        """Endings of another version: let go for a worker that knows it, and not claimed again by this one."""
        log.error("endings_not_understood", task_ids=[row["id"] for row in rows])
        self._foreign.extend(row["id"] for row in rows)
        ids, epochs = [row["id"] for row in rows], [row["epoch"] for row in rows]
        try:
            await self._database.fetch(_SQL["renew"], ids, epochs, timedelta(0))
        except StoreUnavailable as error:  # their leases lapse; what else was claimed is not held up
            log.warning("release_failed", cause=cause_of(error))

    async def renew(self, claims: Sequence[Claim], lease_seconds: float) -> Sequence[Held]:
        rows = await self._database.fetch(
            _SQL["renew"],
            [claim.task.id for claim in claims],
            [claim.epoch for claim in claims],
            timedelta(seconds=lease_seconds),
        )
        return [Held(TaskId(row["task_id"]), Epoch(row["epoch"]), row["cancel_requested"]) for row in rows]

    async def retake(self, claim: Claim, lease_seconds: float) -> Claim:
        row = await self._database.fetchrow(
            _SQL["retake"], claim.task.id, claim.epoch, timedelta(seconds=lease_seconds)
        )
        if row is None:
            raise TakenOver
        return _claim_from(row)

    async def promote(self, claim: Claim, step: CompletedStep, told: Collection[MessageId]) -> Sequence[Promoted]:
        kept = step.number, list(step.parts), plain(step.call)
        row = await self._database.fetchrow(_SQL["promote"], claim.task.id, claim.epoch, *kept, list(told))
        if row is None or row["promoted"] is None:
            raise TakenOver
        return list(_promoted_from(row))

    async def begin_call(self, claim: Claim, call_id: str) -> bool:
        row = await self._database.fetchrow(_SQL["begin_call"], claim.task.id, claim.epoch, call_id)
        if row is None:
            raise TakenOver
        return bool(row["epoch"] == claim.epoch)

    async def steps(self, task_id: TaskId, behind: int) -> Sequence[KeptStep]:
        rows = await self._database.fetch(_SQL["steps"], task_id, behind)
        return [
            KeptStep(CompletedStep(row["number"], tuple(row["parts"]), _call_from(row)), _promoted_from(row))
            for row in rows
        ]

    async def end(self, claim: Claim, end: End) -> Ended:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                _SQL["end"],
                claim.task.id,
                claim.epoch,
                end.status,
                [plain(chunk) for chunk in end.ending],
                {"input_tokens": end.usage.input_tokens, "output_tokens": end.usage.output_tokens},
                end.error_type,
                end.finished_at,
                None if end.answer is None else list(end.answer),
                end.bounced,
            )
            if row is not None and row["has_ended"]:
                return Ended(end.ending, row["next_task"] is not None)
            stored = await connection.fetchrow(_SQL["ending"], claim.task.id, claim.epoch)
        ending = None if stored is None else _ending_from(stored)
        if ending is None:
            raise TakenOver
        return Ended(ending)

    async def close(self, claim: Claim) -> None:
        await self._database.fetch(_SQL["close"], claim.task.id, claim.epoch)

    async def facts(self, task_id: TaskId) -> TaskFacts | None:
        row = await self._database.fetchrow(_SQL["facts"], task_id)
        return None if row is None else TaskFacts(row["log_closed"], row["log_archived"])


def _narrowest(wanted: TaskFilter, reach: Reach) -> str:
    """The statement that begins with what leaves the fewest tasks."""
    if wanted.session_id is not None:
        return "newest_of_session"
    if reach == Own(None):
        return "newest_of_nobody"
    if wanted.owner is not None or reach != EVERYONES:
        return "newest_of_owner"
    return "newest" if wanted.status is None else "newest_of_status"


def _task_from(row: asyncpg.Record) -> Task:
    """The task that a row of `tasks` says."""
    return Task(
        TaskId(row["id"]),
        SessionId(row["session_id"]),
        row["kind"],
        row["status"],
        None if row["input_id"] is None else MessageId(row["input_id"]),
        MessageId(row["answer_id"]),
        row["created_at"],
        row["started_at"],
        row["finished_at"],
        row["error_type"],
        Usage(**row["usage"]),
        row["cancel_requested_at"],
        row["seq"],
        None if row["operation_id"] is None else OperationId(row["operation_id"]),
    )


def _claim_from(row: asyncpg.Record) -> Claim:
    trace = trace_from(row["traceparent"] or "")
    lost, failed = row["lost_attempts"], row["failed_tries"]
    return Claim(_task_from(row), Epoch(row["epoch"]), _ending_from(row), lost, trace, failed)


def _call_from(row: asyncpg.Record) -> CallMetadata:
    match _chunk_from({"type": "message-metadata", "messageMetadata": row["call"]}):
        case MessageMetadata(CallMetadata() as call):
            return call
        case _:
            raise BrokenEvent


def _promoted_from(row: asyncpg.Record) -> tuple[Promoted, ...]:
    return tuple(Promoted(MessageId(each["id"]), tuple(each["parts"])) for each in row["promoted"])


def _ending_from(row: asyncpg.Record) -> tuple[Chunk, ...] | None:
    return None if row["ending"] is None else tuple(_chunk_from(chunk) for chunk in row["ending"])


def _chunk_from(value: Any) -> Chunk:
    chunk = decode(orjson.dumps(value))
    if isinstance(chunk, Unknown):
        raise BrokenEvent
    return chunk
