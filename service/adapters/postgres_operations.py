"""Operations in PostgreSQL: what is waited for, how it ended, and what was said of it."""

from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from service.adapters.postgres import Database, reached, statements
from service.model.caller import EVERYONES, Own, Reach
from service.model.errors import NotFound, NothingFailed, TakenOver, TooManyOperations
from service.model.ids import Epoch, OperationId, OwnerId, SessionId, TaskId
from service.model.operation import (
    MAX_DELIVERIES,
    MAX_FOLLOW_UPS,
    MAX_PENDING,
    MAX_SHOWN_BYTES,
    NOT_THE_PERSON,
    OTHER_TASK,
    Accepted,
    Begun,
    Completion,
    Conflicting,
    Delivery,
    Disposition,
    Duplicate,
    Executor,
    FollowUp,
    KeptDelivery,
    NewOperation,
    Noted,
    Operation,
    OperationFilter,
    Progress,
    Receipt,
    Refused,
    Unknown,
    outcome_from,
    outcome_sha256,
    plain_outcome,
    status_of,
)
from service.model.task import Claim, Postponed, Told

_SQL: Final = statements("operations")


class PostgresOperations:
    """The ports `OperationDesk`, `OperationInbox` and `OperationStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, claim: Claim, new: NewOperation) -> Begun:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                _SQL["begin"],
                claim.task.id,
                claim.epoch,
                new.call_id,
                new.tool,
                new.executor,
                new.arguments,
                new.key,
                new.deadline_seconds,
                MAX_PENDING,
            )
            if row is None or row["outcome"] == "lost":
                raise TakenOver
            if row["outcome"] == "full":
                raise TooManyOperations
            begun = await connection.fetchrow(_SQL["read"], row["operation"], *reached(EVERYONES))
        if begun is None:  # its session was deleted since
            raise TakenOver
        return Begun(_operation_from(begun), row["outcome"] == "begun")

    async def of_task(self, task_id: TaskId) -> Operation | None:
        row = await self._database.fetchrow(_SQL["of_task"], task_id)
        return None if row is None else _operation_from(row)

    async def begin_job(self, claim: Claim) -> bool:
        row = await self._database.fetchrow(_SQL["begin_job"], claim.task.id, claim.epoch)
        if row is None:
            raise TakenOver
        return bool(row["begun_by"] == claim.epoch)

    async def told(self, claim: Claim, told: Told) -> None:
        how_far = told.progress_number, told.again_seconds
        await self._database.fetch(_SQL["told"], claim.task.id, claim.epoch, *how_far)

    async def postpone(self, claim: Claim, postponed: Postponed) -> bool:
        row = await self._database.fetchrow(
            _SQL["postpone"], claim.task.id, claim.epoch, postponed.seconds, postponed.error_type
        )
        if row is None or not row["was_held"]:
            raise TakenOver
        return row["next_task"] is not None

    async def complete(self, completion: Completion) -> Disposition:
        row = await self._database.fetchrow(_SQL["complete"], *_said(completion), MAX_DELIVERIES)
        return Unknown() if row is None else _disposition(row, completion)

    async def complete_all(self, completions: Sequence[Completion]) -> Sequence[Disposition | None]:
        columns = zip(*map(_said, completions), strict=True)
        rows = await self._database.fetch(_SQL["complete_all"], *map(list, columns), MAX_DELIVERIES)
        became = {row["place"] - 1: row for row in rows}
        return [_disposition(became[n], each) if n in became else None for n, each in enumerate(completions)]

    async def report(self, progress: Progress) -> Noted | Conflicting | Unknown | Refused:
        delivery = progress.delivery
        row = await self._database.fetchrow(
            _SQL["progress"],
            progress.operation_id,
            *reached(progress.reach),
            progress.tool,
            progress.task_id,
            progress.progress,
            delivery.door,
            delivery.by,
            delivery.id,
        )
        match None if row is None else row["became"]:
            case "noted":
                return Noted(progress.operation_id)
            case "conflicting":
                return Conflicting(progress.operation_id)
            case "refused":
                return Refused(OTHER_TASK)
            case _:
                return Unknown()

    async def redrive(self, reach: Reach, operation_id: OperationId, delivery: Delivery) -> TaskId:
        row = await self._database.fetchrow(
            _SQL["redrive"], operation_id, *reached(reach), delivery.door, delivery.by, MAX_DELIVERIES
        )
        if row is None or row["became"] == "unknown":
            raise NotFound
        if row["became"] == "nothing":
            raise NothingFailed
        return TaskId(row["task"])

    async def overdue(self, limit: int) -> Sequence[tuple[OperationId, Executor]]:
        rows = await self._database.fetch(_SQL["overdue"], limit)
        return [(OperationId(row["id"]), row["executor"]) for row in rows]

    async def read(self, reach: Reach, operation_id: OperationId) -> Operation | None:
        row = await self._database.fetchrow(_SQL["read"], operation_id, *reached(reach))
        return None if row is None else _operation_from(row)

    async def newest(
        self, reach: Reach, wanted: OperationFilter, limit: int, before: int | None
    ) -> Sequence[Operation]:
        only = wanted.status, wanted.executor, wanted.tool, wanted.session_id
        rows = await self._database.fetch(_SQL[_narrowest(wanted, reach)], limit, before, *reached(reach), *only)
        return [_operation_from(row) for row in rows]

    async def deliveries(self, operation_id: OperationId) -> Sequence[KeptDelivery]:
        rows = await self._database.fetch(_SQL["deliveries"], operation_id, MAX_SHOWN_BYTES)
        return [
            KeptDelivery(
                row["id"],
                row["at"],
                Delivery(row["door"], row["by"], row["delivery"]),
                row["disposition"],
                row["status"],
                row["outcome"],
                row["outcome_bytes"] or 0,
                row["times"],
            )
            for row in rows
        ]

    async def follow_ups(self, operation_id: OperationId) -> Sequence[FollowUp]:
        rows = await self._database.fetch(_SQL["follow_ups"], operation_id, MAX_FOLLOW_UPS)
        return [
            FollowUp(TaskId(row["id"]), row["status"], row["error_type"], row["failed_tries"], row["due_at"])
            for row in rows
        ]


def _said(completion: Completion) -> tuple[Any, ...]:
    """A message as statements take it."""
    outcome, delivery, asked_by = completion.outcome, completion.delivery, completion.asked_by
    return (
        completion.operation_id,
        *reached(completion.reach),
        completion.tool,
        completion.task_id,
        status_of(outcome),
        plain_outcome(outcome),
        outcome_sha256(outcome),
        delivery.door,
        delivery.by,
        delivery.id,
        completion.follow_up,
        None if asked_by is None else asked_by.task.id,
        None if asked_by is None else asked_by.epoch,
        completion.is_answer,
    )


def _disposition(row: asyncpg.Record, completion: Completion) -> Disposition:
    match row["became"]:
        case "unknown":
            return Unknown()
        case "refused":
            return Refused(OTHER_TASK)
        case "not the person":
            return Refused(NOT_THE_PERSON)
        case "conflicting":
            return Conflicting(completion.operation_id)
        case became:
            receipt = Receipt(completion.operation_id, TaskId(row["task"]), row["completion"], row["ended_as"])
            return Accepted(receipt) if became == "accepted" else Duplicate(receipt)


def _narrowest(wanted: OperationFilter, reach: Reach) -> str:
    """The statement that begins with what leaves the fewest operations."""
    if wanted.is_stuck:
        return "newest_stuck"
    if wanted.session_id is not None:
        return "newest_of_session"
    if reach == Own(None):
        return "newest_of_nobody"
    if reach != EVERYONES:
        return "newest_of_owner"
    return "newest" if wanted.status is None else "newest_of_status"


def _operation_from(row: asyncpg.Record) -> Operation:
    return Operation(
        OperationId(row["id"]),
        row["seq"],
        SessionId(row["session_id"]),
        None if row["owner"] is None else OwnerId(row["owner"]),
        TaskId(row["task_id"]),
        TaskId(row["turn_id"]),
        row["call_id"],
        row["tool"],
        row["executor"],
        row["arguments"],
        row["status"],
        None if row["outcome"] is None else outcome_from(row["status"], row["outcome"]),
        row["created_at"],
        row["deadline"],
        row["ended_at"],
        row["progress"],
        row["progress_number"],
        row["has_follow_up"],
        row["deliveries"],
        None if row["begun_by"] is None else Epoch(row["begun_by"]),
    )
