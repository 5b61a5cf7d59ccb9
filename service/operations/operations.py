"""What doors ask of operations. A message about one takes the same path here, whichever door it came through."""

from collections.abc import Mapping, Sequence
from typing import assert_never, overload

import structlog

from service.model.caller import EVERYONES, Reach
from service.model.errors import NotAsked, NotFound, OperationEnded
from service.model.failures import message_for
from service.model.ids import OperationId, SessionId, TaskId
from service.model.operation import (
    Accepted,
    Approval,
    Cancelled,
    Completion,
    Conflicting,
    Delivery,
    Disposition,
    Duplicate,
    Failed,
    FollowUp,
    KeptDelivery,
    Noted,
    Operation,
    OperationFilter,
    Outcome,
    PersonsAnswer,
    Progress,
    Receipt,
    Refused,
    Reply,
    Report,
    Succeeded,
    Unknown,
    status_of,
)
from service.model.task import TaskDue
from service.operations.asking import ASK
from service.operations.ports import OperationInbox, OperationStore
from service.sessions.ports import Doorbell

log = structlog.get_logger()

BY_CLOCK = Delivery("service", "clock")


class Operations:
    """Complete, report on, answer, cancel, redrive, look up."""

    def __init__(self, inbox: OperationInbox, store: OperationStore, doorbell: Doorbell) -> None:
        self._inbox = inbox
        self._store = store
        self._doorbell = doorbell

    @overload
    async def take(self, report: Completion) -> Disposition: ...

    @overload
    async def take(self, report: Report) -> Disposition | Noted: ...

    async def take(self, report: Report) -> Disposition | Noted:
        """Take a message about an operation, in one transaction. Nothing of its follow-up runs in here.

        Raises DatabaseUnavailable: it is not known then whether it was taken, and a repeat is harmless.
        """
        match report:
            case Progress():
                became: Disposition | Noted = await self._inbox.report(report)
            case Completion():
                became = await self._inbox.complete(report)
            case other:
                assert_never(other)
        _tell(report, became)
        if isinstance(became, Accepted | Noted):
            await self._doorbell.ring(TaskDue())
        return became

    async def take_all(self, completions: Sequence[Completion]) -> Sequence[Disposition | None]:
        """Take several messages in one transaction; None for those that are to be taken alone.

        Raises what any of them raises: then it is not known whether they were taken.
        """
        dispositions = await self._inbox.complete_all(completions)
        for completion, became in zip(completions, dispositions, strict=True):
            if became is not None:
                _tell(completion, became)
        if any(isinstance(became, Accepted) for became in dispositions):
            await self._doorbell.ring(TaskDue())
        return dispositions

    async def read(self, reach: Reach, operation_id: OperationId) -> Operation:
        """The operation. Raises NotFound."""
        operation = await self._store.read(reach, operation_id)
        if operation is None:
            raise NotFound
        return operation

    async def life(
        self, reach: Reach, operation_id: OperationId
    ) -> tuple[Operation, Sequence[KeptDelivery], Sequence[FollowUp]]:
        """The operation, what came about its end, and what goes on with that; the first of each at first.

        Raises NotFound.
        """
        operation = await self.read(reach, operation_id)
        deliveries = await self._store.deliveries(operation_id)
        return operation, deliveries, await self._store.follow_ups(operation_id)

    async def newest(
        self, reach: Reach, wanted: OperationFilter, limit: int, before: int | None = None
    ) -> Sequence[Operation]:
        """The newest operations that are wanted, of those with a lower number than `before`; the newest first.

        Without arguments, and without outcomes but for failures.
        """
        return await self._store.newest(reach, wanted, limit, before)

    async def cancel(self, reach: Reach, operation_id: OperationId, delivery: Delivery) -> Operation:
        """End it as cancelled, with a follow-up; where it has ended nothing changes. Answers it as it stands then.

        Raises NotFound.
        """
        operation = await self.read(reach, operation_id)
        if operation.status != "pending":
            return operation
        await self.take(Completion(operation_id, Cancelled("cancelled by owner"), delivery, reach=reach))
        return await self.read(reach, operation_id)

    async def answer(
        self, reach: Reach, operation_id: OperationId, said: PersonsAnswer, delivery: Delivery
    ) -> Disposition:
        """Take a person's answer to what they were asked: the same one again is a duplicate, another one conflicting.

        A yes is a success, and so is whatever is replied to a question; a no is a cancellation, with a follow-up.
        Raises NotFound; NotAsked where nobody was asked, or for the other kind of answer.
        """
        outcome = _outcome_of(said, await self.read(reach, operation_id))
        return await self.take(Completion(operation_id, outcome, delivery, reach=reach, is_answer=True))

    async def answer_all(
        self, reach: Reach, session_id: SessionId, said: Mapping[OperationId, PersonsAnswer], delivery: Delivery
    ) -> Sequence[Receipt]:
        """Take answers to what was asked in one session; none of them, where one is to anything else. Can be repeated.

        Those to what has ended come first: they change nothing, so where another answer was given, nothing is.
        Raises NotFound, also for an operation of another session; NotAsked, OperationEnded.
        """
        asked = [await self.read(reach, operation_id) for operation_id in said]
        for operation in asked:
            if operation.session_id != session_id:
                raise NotFound
            _outcome_of(said[operation.id], operation)
        receipts = []
        for operation in sorted(asked, key=lambda each: each.status == "pending"):
            match await self.answer(reach, operation.id, said[operation.id], delivery):
                case Accepted(receipt) | Duplicate(receipt):
                    receipts.append(receipt)
                case Conflicting():
                    raise OperationEnded
                case Unknown() | Refused():  # its session was deleted meanwhile
                    raise NotFound
                case other:
                    assert_never(other)
        return receipts

    async def redrive(self, reach: Reach, operation_id: OperationId, delivery: Delivery) -> TaskId:
        """Have a follow-up that failed, or rests, tried again; answers the task that does.

        A repeat answers the same while that is under way. Raises NotFound, NothingFailed.
        """
        task_id = await self._inbox.redrive(reach, operation_id, delivery)
        log.info("follow_up_redriven", operation_id=operation_id, task_id=task_id, by=delivery.by)
        await self._doorbell.ring(TaskDue())
        return task_id

    async def end_overdue(self, limit: int) -> int:
        """End what is past its deadline: timers as they should, all else as failed. Answers how many were looked at."""
        overdue = await self._inbox.overdue(limit)
        for operation_id, executor in overdue:
            outcome = Succeeded(None) if executor == "timer" else Failed("timeout", message_for("timeout"))
            await self.take(Completion(operation_id, outcome, BY_CLOCK, reach=EVERYONES))
        return len(overdue)


def _outcome_of(said: PersonsAnswer, operation: Operation) -> Outcome:
    """What an answer makes of an operation. Raises NotAsked."""
    is_question = operation.tool == ASK
    if operation.executor != "person" or is_question != isinstance(said, Reply):
        raise NotAsked
    match said:
        case Approval(approved=True):
            return Succeeded({"approved": True})
        case Approval(reason=reason):
            return Cancelled(reason)
        case Reply(answer):
            return Succeeded(answer)
        case other:
            assert_never(other)


def _tell(report: Report, became: Disposition | Noted) -> None:
    """Who said what of which operation, without the words."""
    delivery = report.delivery
    facts = {"operation_id": report.operation_id, "door": delivery.door, "by": delivery.by}
    match became:
        case Noted():
            log.debug("progress_noted", **facts)
        case Accepted(receipt):
            log.info("completion_accepted", **facts, task_id=receipt.task_id, status=receipt.status)
        case Duplicate(receipt):
            log.info("completion_duplicate", **facts, task_id=receipt.task_id)
        case Conflicting():
            wanted = status_of(report.outcome) if isinstance(report, Completion) else "pending"
            log.warning("completion_conflicting", **facts, wanted=wanted)
        case Unknown():
            log.info("completion_unknown", **facts)
        case Refused(reason):
            log.warning("completion_refused", **facts, reason=reason)
        case other:
            assert_never(other)
