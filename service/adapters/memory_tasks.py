"""Tasks in memory: who works on what, how it ended, and what its log is owed."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import chain, cycle, islice

from service.adapters.memory_database import LAPSED, MemoryDatabase, MessageRow, TaskRow, stored
from service.model.caller import EVERYONES, Reach
from service.model.errors import TakenOver
from service.model.ids import Epoch, MessageId, SessionId, TaskId
from service.model.log import TaskFacts
from service.model.session import Posted, Promoted
from service.model.step import CompletedStep, KeptStep
from service.model.task import Backlog, Claim, End, Ended, Held, Ownership, Task, TaskFilter


class MemoryTasks:
    """The ports `TaskQueue`, `TaskStore`, `TaskDirectory`, `TaskRows`, `StepStore` and `Backlogs`.

    Nothing in a call waits, so it is atomic.
    """

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database
        self._odd = cycle((0, 1))

    async def read(self, reach: Reach, task_id: TaskId) -> Task | None:
        row = self._database.task(reach, task_id)
        return None if row is None else row.task

    async def row(self, task_id: TaskId) -> Task | None:
        found = self._database.tasks.get(task_id)
        return None if found is None else found.task

    async def cancel(self, reach: Reach, task_id: TaskId) -> Task | None:
        row = self._database.task(reach, task_id)
        if row is None:
            return None
        if row.task.status == "waiting":
            self._database.cancel_operation(task_id, "cancelled by owner")
        elif not row.task.has_ended and row.task.cancel_requested_at is None:
            row.task = replace(row.task, cancel_requested_at=self._database.now())
        return row.task

    async def newest(self, reach: Reach, wanted: TaskFilter, limit: int, before: int | None) -> Sequence[Task]:
        tasks = [
            row.task
            for row in reversed(self._database.tasks.values())
            if self._is_wanted(row.task, reach, wanted) and (before is None or row.task.number < before)
        ]
        return tasks[:limit]

    def _is_wanted(self, task: Task, reach: Reach, wanted: TaskFilter) -> bool:
        session = self._database.sessions[task.session_id]
        is_so = (task.status, task.kind, task.session_id, session.owner)
        asked = (wanted.status, wanted.kind, wanted.session_id, wanted.owner)
        return session.is_within(reach) and all(one in (None, other) for one, other in zip(asked, is_so, strict=True))

    async def of_session(self, reach: Reach, session_id: SessionId, limit: int, after: int) -> Sequence[Task] | None:
        if self._database.session(reach, session_id) is None:
            return None
        tasks = (row.task for row in self._database.tasks.values() if row.task.session_id == session_id)
        return [task for task in tasks if task.number > after][:limit]

    async def ownership(self, task_id: TaskId) -> Ownership | None:
        row = self._database.task(EVERYONES, task_id)
        return None if row is None else Ownership(self._database.sessions[row.task.session_id].owner)

    async def backlog(self) -> Backlog:
        now, seconds = self._database.now(), self._database.seconds()
        open_rows, rows = list(self._database.unclosed.values()), self._database.tasks.values()
        queued = [row.due_at or row.task.created_at for row in open_rows if row.task.status == "queued"]
        due = [since for since in queued if since <= now]
        operations = [row.operation for row in self._database.operations.values()]
        pending = [each for each in operations if each.status == "pending"]
        ended = [row.task.finished_at for row in rows if row.log_closed and row.task.finished_at is not None]
        return Backlog(
            queued=len(queued),
            oldest_queued_seconds=(now - min(due)).total_seconds() if due else None,
            pending=len(pending),
            overdue=sum(each.deadline is not None and each.deadline < now for each in pending),
            running=sum(row.task.status == "running" for row in open_rows),
            lapsed=sum(row.task.status not in ("queued", "waiting") and row.lease_until < seconds for row in open_rows),
            unarchived=len(ended),
            oldest_unarchived_seconds=(now - min(ended)).total_seconds() if ended else None,
            unremoved=sum(session.deleted_at is not None for session in self._database.sessions.values()),
        )

    async def claim(self, limit: int, lease_seconds: float, *, counts_lost: bool = True) -> Sequence[Claim]:
        waiting = sum(1 for _ in islice(self._queued(), (limit + next(self._odd)) // 2))
        due = list(islice(chain(islice(self._lapsed(), limit - waiting), self._queued()), limit))
        return [self._take(row, lease_seconds, counts_lost=counts_lost) for row in due]

    def _lapsed(self) -> Iterator[TaskRow]:
        """Whose holder is gone, whose log is owed something, and the queued ones that are only to be ended."""
        now, seconds = self._database.now(), self._database.seconds()
        for row in self._database.unclosed.values():
            waits = row.task.status == "waiting" and (row.tell_at is None or row.tell_at > now)
            if not _is_to_run(row) and not waits and row.lease_until < seconds:
                yield row

    def _queued(self) -> Iterator[TaskRow]:
        """The due ones of sessions that run nothing: of each the oldest."""
        due = [row for row in self._database.unclosed.values() if self._is_due(row)]
        sessions = set()
        for row in sorted(due, key=lambda row: row.due_at or row.task.created_at):
            session_id = row.task.session_id
            if session_id not in sessions and not self._database.runs(session_id):
                sessions.add(session_id)
                yield row

    def _is_due(self, row: TaskRow) -> bool:
        return _is_to_run(row) and (row.due_at is None or row.due_at <= self._database.now())

    def _take(self, row: TaskRow, lease_seconds: float, *, counts_lost: bool) -> Claim:
        task = row.task
        row.lost_attempts += counts_lost and task.status == "running" and row.lease_until > LAPSED
        if _is_to_run(row):
            started_at = task.started_at or self._database.now()
            row.task = replace(task, status="running", started_at=started_at, error_type=None)
        self._hold(row, lease_seconds)
        return row.claim

    def _hold(self, row: TaskRow, lease_seconds: float) -> None:
        row.epoch, row.lease_until = Epoch(row.epoch + 1), self._database.seconds() + lease_seconds

    async def renew(self, claims: Sequence[Claim], lease_seconds: float) -> Sequence[Held]:
        now = self._database.seconds()
        held = [row for claim in claims if (row := self._held(claim)) is not None and row.lease_until > now]
        for row in held:
            row.lease_until = now + lease_seconds if lease_seconds > 0 else LAPSED
        return [Held(row.task.id, row.epoch, row.task.cancel_requested_at is not None) for row in held]

    async def retake(self, claim: Claim, lease_seconds: float) -> Claim:
        row = self._held(claim)
        if row is None or row.lease_until <= self._database.seconds():
            raise TakenOver
        self._hold(row, lease_seconds)
        return row.claim

    async def promote(self, claim: Claim, step: CompletedStep, told: Collection[MessageId]) -> Sequence[Promoted]:
        row = self._held(claim)
        if row is None or row.task.status != "running":
            raise TakenOver
        task, session = row.task, self._database.sessions[row.task.session_id]
        row.lost_attempts = 0
        taken = [MessageRow(each.id, "user", each.parts, task.id, each.created_at) for each in session.pending]
        session.messages += taken
        session.pending.clear()
        kept = row.steps.get(step.number, KeptStep(step, ()))
        promoted = tuple(Promoted(each.id, each.message.parts) for each in taken)
        row.steps[step.number] = replace(kept, promoted=kept.promoted + promoted)
        own = [each.message for each in session.messages if (each.task_id, each.role) == (task.id, "user")]
        return [Promoted(each.id, each.parts) for each in own if each.id != task.input_id and each.id not in told]

    async def begin_call(self, claim: Claim, call_id: str) -> bool:
        row = self._held(claim)
        if row is None or row.task.status != "running":
            raise TakenOver
        return row.calls.setdefault(call_id, claim.epoch) == claim.epoch

    async def steps(self, task_id: TaskId, behind: int) -> Sequence[KeptStep]:
        kept = self._database.tasks[task_id].steps
        return [kept[number] for number in sorted(kept) if number > behind]

    async def end(self, claim: Claim, end: End) -> Ended:
        row = self._held(claim)
        if row is None:
            raise TakenOver
        if row.ending is not None:
            return Ended(row.ending)
        row.ending, row.tell_at = end.ending, None
        row.steps.clear()
        row.calls.clear()
        row.task = replace(
            row.task,
            status=end.status,
            usage=end.usage,
            error_type=end.error_type,
            finished_at=end.finished_at,
            started_at=row.task.started_at or end.finished_at,
        )
        self._store_messages(row.task, end)
        if end.status == "cancelled":
            for each in self._database.operations.values():
                if each.operation.turn_id == row.task.id:
                    self._database.cancel_operation(each.operation.task_id, "cancelled with its turn")
        return Ended(row.ending, self._database.begin_next_turn(row.task.session_id) is not None)

    def _store_messages(self, task: Task, end: End) -> None:
        session = self._database.sessions[task.session_id]
        if end.answer is not None:
            answer = MessageRow(task.answer_id, "assistant", stored(end.answer), task.id, self._database.now())
            session.messages.append(answer)
        if end.bounced:
            set_aside = session.set_aside.pop(task.id, [])
            session.messages[:] = [each for each in session.messages if each.id != task.input_id] + set_aside
            session.keys = {
                name: key
                for name, key in session.keys.items()
                if set_aside or not isinstance(key.answer, Posted) or key.answer.message_id != task.input_id
            }

    async def close(self, claim: Claim) -> None:
        row = self._held(claim)
        if row is not None and row.ending is not None:
            row.log_closed, row.lease_until = True, LAPSED
            self._database.unclosed.pop(row.task.id, None)

    def _held(self, claim: Claim) -> TaskRow | None:
        """The row, where nobody has taken the task since this claim."""
        row = self._database.tasks.get(claim.task.id)
        return row if row is not None and row.epoch == claim.epoch else None

    async def facts(self, task_id: TaskId) -> TaskFacts | None:
        row = self._database.tasks.get(task_id)
        return None if row is None else TaskFacts(row.log_closed)


def _is_to_run(row: TaskRow) -> bool:
    """Whether it waits for a worker, and not only for its end."""
    return row.task.status == "queued" and row.task.cancel_requested_at is None
