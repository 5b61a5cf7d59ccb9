"""Operations in memory: the same promises within one process, for embedding and for tests."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from service.adapters.memory_database import LAPSED, MemoryDatabase, OperationRow, TaskRow, shown_of
from service.model.caller import Reach
from service.model.errors import NotFound, NothingFailed, TakenOver, TooManyOperations
from service.model.events import Usage
from service.model.ids import MessageId, OperationId, TaskId
from service.model.operation import (
    MAX_DELIVERIES,
    MAX_FOLLOW_UPS,
    MAX_PENDING,
    NOT_THE_PERSON,
    OTHER_TASK,
    Accepted,
    Begun,
    Cancelled,
    Completion,
    Conflicting,
    Delivery,
    Disposition,
    Duplicate,
    Executor,
    Failed,
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
    outcome_sha256,
    plain_outcome,
    status_of,
)
from service.model.task import Claim, Postponed, Task, TaskStatus, Told

_TELLING_EVERY = timedelta(seconds=1)
_NAMES_KEPT = timedelta(minutes=10)


class MemoryOperations:
    """The ports `OperationDesk`, `OperationInbox` and `OperationStore`. Nothing in a call waits, so it is atomic."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    async def begin(self, claim: Claim, new: NewOperation) -> Begun:
        asking = self._running(claim)
        session_id = asking.task.session_id
        if self._database.sessions[session_id].deleted_at is not None:
            raise TakenOver
        own = [row for row in self._database.operations.values() if row.operation.session_id == session_id]
        calls = (row for row in own if (row.operation.turn_id, row.operation.call_id) == (claim.task.id, new.call_id))
        works = (row for row in own if new.key is not None and (row.operation.tool, row.key) == (new.tool, new.key))
        known = next(calls, None) or next(works, None)
        if known is not None:
            return Begun(known.operation, is_new=False)
        if sum(row.operation.status == "pending" for row in own) >= MAX_PENDING:
            raise TooManyOperations
        asking.calls.setdefault(new.call_id, claim.epoch)
        return Begun(self._add(asking, new).operation, is_new=True)

    def _add(self, asking: TaskRow, new: NewOperation) -> OperationRow:
        database, now = self._database, self._database.now()
        operation_id = OperationId(database.new_id())
        work = self._add_task(asking, operation_id, "waiting")
        task, work.tell_at = work.task, now
        deadline = None if new.deadline_seconds is None else now + timedelta(seconds=new.deadline_seconds)
        operation = Operation(
            operation_id,
            number=database.number(),
            session_id=task.session_id,
            owner=database.sessions[task.session_id].owner,
            task_id=task.id,
            turn_id=asking.task.id,
            call_id=new.call_id,
            tool=new.tool,
            executor=new.executor,
            arguments=new.arguments,
            status="pending",
            outcome=None,
            created_at=now,
            deadline=deadline,
            ended_at=None,
        )
        row = database.operations[operation_id] = OperationRow(operation, new.key)
        return row

    def _add_task(self, behind: TaskRow, operation_id: OperationId, status: TaskStatus) -> TaskRow:
        """Work on an operation, in the session of another task."""
        task = Task(
            TaskId(self._database.new_id()),
            behind.task.session_id,
            kind="operation",
            status=status,
            input_id=None,
            operation_id=operation_id,
            answer_id=MessageId(self._database.new_id()),
            created_at=self._database.now(),
            started_at=None,
            finished_at=None,
            error_type=None,
            usage=Usage(0, 0),
            cancel_requested_at=None,
            number=self._database.number(),
        )
        return self._database.add_task(task, behind.trace)

    async def of_task(self, task_id: TaskId) -> Operation | None:
        task = self._database.tasks.get(task_id)
        if task is None or task.task.operation_id is None:
            return None
        return self._database.operations[task.task.operation_id].operation

    async def begin_job(self, claim: Claim) -> bool:
        row, operation = self._held(claim), await self.of_task(claim.task.id)
        if row is None or row.task.status != "waiting" or operation is None or operation.status != "pending":
            raise TakenOver
        if operation.begun_by is None:
            self._database.operations[operation.id].operation = replace(operation, begun_by=claim.epoch)
        return operation.begun_by in (None, claim.epoch)

    async def told(self, claim: Claim, told: Told) -> None:
        row = self._held(claim)
        if row is None or row.task.status != "waiting":
            return
        row.lease_until = LAPSED
        operation = await self.of_task(claim.task.id)
        if operation is not None and operation.status == "pending":
            row.told_at = now = self._database.now()
            is_behind = operation.progress_number > told.progress_number
            row.tell_at = now + _TELLING_EVERY if is_behind else None
            if told.again_seconds is not None:
                row.tell_at = now + timedelta(seconds=told.again_seconds)

    async def postpone(self, claim: Claim, postponed: Postponed) -> bool:
        row = self._running(claim)
        row.due_at = self._database.now() + timedelta(seconds=postponed.seconds)
        row.task = replace(row.task, status="queued", started_at=None)
        row.task = replace(row.task, error_type=postponed.error_type)
        row.failed_tries += 1
        row.lease_until, row.lost_attempts = LAPSED, 0
        return self._database.begin_next_turn(row.task.session_id) is not None

    async def complete(self, completion: Completion) -> Disposition:
        row = self._found(completion)
        if row is None:
            return Unknown()
        known = row.operation
        if completion.task_id not in (None, known.task_id):
            return Refused(OTHER_TASK)
        if _is_of_another(known, completion):
            return Refused(NOT_THE_PERSON)
        if known.status == "pending":
            kept = self._keep(row, completion, Accepted)
            row.completion_id = kept.id
            asked = None if completion.asked_by is None else self._held(completion.asked_by)
            is_told = completion.asked_by is None or (asked is not None and asked.task.status == "running")
            has_follow_up = completion.follow_up or not is_told
            self._database.end_operation(row, completion.outcome, has_follow_up=has_follow_up)
            return Accepted(self._receipt(row))
        if row.outcome_sha256 == outcome_sha256(completion.outcome):
            self._keep(row, completion, Duplicate)
            return Duplicate(self._receipt(row))
        self._keep(row, completion, Conflicting)
        return Conflicting(known.id)

    async def complete_all(self, completions: Sequence[Completion]) -> Sequence[Disposition | None]:
        return [await self.complete(each) for each in completions]

    def _receipt(self, row: OperationRow) -> Receipt:
        operation = row.operation
        return Receipt(operation.id, operation.task_id, row.completion_id, operation.status)

    def _keep(self, row: OperationRow, completion: Completion, became: type[Disposition]) -> KeptDelivery:
        delivery, outcome = completion.delivery, completion.outcome
        kept = KeptDelivery(
            self._database.new_id(),
            self._database.now(),
            delivery,
            "accepted" if became is Accepted else "duplicate" if became is Duplicate else "conflicting",
            status_of(outcome),
            *shown_of(plain_outcome(outcome)),
            times=1,
        )
        named = (i for i, each in enumerate(row.inbox) if delivery.id is not None and each.delivery.id == delivery.id)
        place = next(named, None)
        if place is not None:
            row.inbox[place] = replace(row.inbox[place], times=row.inbox[place].times + 1)
        elif became is Accepted or row.operation.deliveries < MAX_DELIVERIES:
            row.inbox.append(kept)
        row.operation = replace(row.operation, deliveries=row.operation.deliveries + 1)
        return kept

    async def report(self, progress: Progress) -> Noted | Conflicting | Unknown | Refused:
        row = self._found(progress)
        if row is None:
            return Unknown()
        operation, now = row.operation, self._database.now()
        if progress.task_id not in (None, operation.task_id):
            return Refused(OTHER_TASK)
        if operation.status != "pending":
            return Conflicting(operation.id)
        name = progress.delivery.id
        row.seen_progress = {each: at for each, at in row.seen_progress.items() if at >= now - _NAMES_KEPT}
        if name is None or name not in row.seen_progress:
            row.seen_progress |= {} if name is None else {name: now}
            number = operation.progress_number + 1
            row.operation = replace(operation, progress=progress.progress, progress_number=number)
            task = self._database.tasks[operation.task_id]
            task.tell_at = task.tell_at or _later(now, task.told_at)
        return Noted(operation.id)

    async def redrive(self, reach: Reach, operation_id: OperationId, delivery: Delivery) -> TaskId:
        row = self._database.operations.get(operation_id)
        if row is None or self._database.session(reach, row.operation.session_id) is None:
            raise NotFound
        latest = self._latest(row.operation)
        task = latest.task
        if not row.operation.has_follow_up or task.status in ("succeeded", "cancelled") or task.cancel_requested_at:
            raise NothingFailed
        if task.status == "failed":
            latest = self._add_task(latest, operation_id, "queued")
        elif task.status == "queued" and latest.failed_tries:
            latest.due_at, latest.failed_tries = self._database.now(), 0
            latest.task = replace(task, error_type=None)
        else:
            return task.id
        if row.operation.deliveries < MAX_DELIVERIES:
            now, status = self._database.now(), row.operation.status
            row.inbox.append(KeptDelivery(self._database.new_id(), now, delivery, "redriven", status, None, 0, times=1))
        row.operation = replace(row.operation, deliveries=row.operation.deliveries + 1)
        return latest.task.id

    def _latest(self, operation: Operation) -> TaskRow:
        """Its own task, or the last one by which its follow-up was redriven."""
        return next(row for row in reversed(self._database.tasks.values()) if row.task.operation_id == operation.id)

    async def overdue(self, limit: int) -> Sequence[tuple[OperationId, Executor]]:
        now = self._database.now()
        pending = [row.operation for row in self._database.operations.values() if row.operation.status == "pending"]
        late = [(each.deadline, each) for each in pending if each.deadline is not None and each.deadline < now]
        return [(each.id, each.executor) for _, each in sorted(late, key=lambda pair: pair[0])[:limit]]

    async def read(self, reach: Reach, operation_id: OperationId) -> Operation | None:
        row = self._database.operations.get(operation_id)
        if row is None or self._database.session(reach, row.operation.session_id) is None:
            return None
        return row.operation

    async def newest(
        self, reach: Reach, wanted: OperationFilter, limit: int, before: int | None
    ) -> Sequence[Operation]:
        found = [
            row.operation
            for row in reversed(self._database.operations.values())
            if self._database.session(reach, row.operation.session_id) is not None
            and (before is None or row.operation.number < before)
            and self._is_wanted(row.operation, wanted)
        ]
        return [
            replace(each, arguments=None, outcome=each.outcome if isinstance(each.outcome, Failed) else None)
            for each in found[:limit]
        ]

    def _is_wanted(self, operation: Operation, wanted: OperationFilter) -> bool:
        is_so = (operation.status, operation.executor, operation.tool, operation.session_id)
        asked = (wanted.status, wanted.executor, wanted.tool, wanted.session_id)
        if not all(one in (None, other) for one, other in zip(asked, is_so, strict=True)):
            return False
        return not wanted.is_stuck or self._is_stuck(operation)

    def _is_stuck(self, operation: Operation) -> bool:
        now, task = self._database.now(), self._latest(operation)
        is_late = operation.status == "pending" and operation.deadline is not None and operation.deadline < now
        fails = task.task.status == "failed" or (task.task.status == "queued" and task.failed_tries > 0)
        return is_late or (operation.has_follow_up and fails)

    async def deliveries(self, operation_id: OperationId) -> Sequence[KeptDelivery]:
        row = self._database.operations.get(operation_id)
        return [] if row is None else list(row.inbox)

    async def follow_ups(self, operation_id: OperationId) -> Sequence[FollowUp]:
        row = self._database.operations.get(operation_id)
        if row is None or not row.operation.has_follow_up:
            return []
        tasks = [each for each in self._database.tasks.values() if each.task.operation_id == operation_id]
        return [
            FollowUp(
                each.task.id,
                each.task.status,
                each.task.error_type,
                each.failed_tries,
                each.due_at or each.task.created_at,
            )
            for each in tasks[-MAX_FOLLOW_UPS:]
        ]

    def _found(self, said: Completion | Progress) -> OperationRow | None:
        row = self._database.operations.get(said.operation_id)
        return row if row is not None and row.is_of(said.reach) and said.tool in (None, row.operation.tool) else None

    def _held(self, claim: Claim) -> TaskRow | None:
        row = self._database.tasks.get(claim.task.id)
        return row if row is not None and row.epoch == claim.epoch else None

    def _running(self, claim: Claim) -> TaskRow:
        row = self._held(claim)
        if row is None or row.task.status != "running":
            raise TakenOver
        return row


def _is_of_another(operation: Operation, completion: Completion) -> bool:
    """Whether somebody answers for the person who is asked."""
    is_from_outside = completion.delivery.door != "service" and not completion.is_answer
    return operation.executor == "person" and is_from_outside and not isinstance(completion.outcome, Cancelled)


def _later(now: datetime, told_at: datetime | None) -> datetime:
    return now if told_at is None else max(now, told_at + _TELLING_EVERY)
