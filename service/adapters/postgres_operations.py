"""Operations in PostgreSQL: what is waited for, how it ended, and what was said of it."""

from collections.abc import Sequence
from typing import Final

import asyncpg

from service.adapters.postgres import Database, reached, statements
from service.model.caller import EVERYONES, Reach
from service.model.errors import TakenOver, TooManyOperations
from service.model.ids import Epoch, OperationId, OwnerId, SessionId, TaskId
from service.model.operation import (
    MAX_DELIVERIES,
    MAX_PENDING,
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
        row = await self._database.fetchrow(_SQL["postpone"], claim.task.id, claim.epoch, postponed.seconds)
        if row is None or not row["was_held"]:
            raise TakenOver
        return row["next_task"] is not None

    async def complete(self, completion: Completion) -> Disposition:
        outcome, delivery = completion.outcome, completion.delivery
        row = await self._database.fetchrow(
            _SQL["complete"],
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
            None if completion.asked_by is None else completion.asked_by.task.id,
            None if completion.asked_by is None else completion.asked_by.epoch,
            completion.is_answer,
            MAX_DELIVERIES,
        )
        if row is None or row["became"] == "unknown":
            return Unknown()
        if row["became"] == "refused":
            return Refused(OTHER_TASK)
        if row["became"] == "not the person":
            return Refused(NOT_THE_PERSON)
        if row["became"] == "conflicting":
            return Conflicting(completion.operation_id)
        receipt = Receipt(completion.operation_id, TaskId(row["task"]), row["completion"], row["ended_as"])
        return Accepted(receipt) if row["became"] == "accepted" else Duplicate(receipt)

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

    async def overdue(self, limit: int) -> Sequence[tuple[OperationId, Executor]]:
        rows = await self._database.fetch(_SQL["overdue"], limit)
        return [(OperationId(row["id"]), row["executor"]) for row in rows]

    async def read(self, reach: Reach, operation_id: OperationId) -> Operation | None:
        row = await self._database.fetchrow(_SQL["read"], operation_id, *reached(reach))
        return None if row is None else _operation_from(row)

    async def newest(
        self, reach: Reach, wanted: OperationFilter, limit: int, before: int | None
    ) -> Sequence[Operation]:
        only = wanted.status, wanted.executor, wanted.tool, wanted.session_id, wanted.is_stuck
        rows = await self._database.fetch(_SQL["newest"], limit, before, *reached(reach), *only)
        return [_operation_from(row) for row in rows]

    async def deliveries(self, operation_id: OperationId) -> Sequence[KeptDelivery]:
        rows = await self._database.fetch(_SQL["deliveries"], operation_id)
        return [
            KeptDelivery(
                row["id"],
                row["at"],
                Delivery(row["door"], row["by"], row["delivery"]),
                row["disposition"],
                row["status"],
                row["outcome"],
                row["times"],
            )
            for row in rows
        ]


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
