"""What doors ask of operations. A message about one takes the same path here, whichever door it came through."""

from collections.abc import Sequence
from typing import assert_never, overload

import structlog

from service.model.caller import EVERYONES, Reach
from service.model.errors import NotAsked, NotFound
from service.model.failures import message_for
from service.model.ids import OperationId
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
    KeptDelivery,
    Noted,
    Operation,
    OperationFilter,
    Outcome,
    PersonsAnswer,
    Progress,
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
    """Complete, report on, answer, cancel, look up."""

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

    async def read(self, reach: Reach, operation_id: OperationId) -> Operation:
        """The operation. Raises NotFound."""
        operation = await self._store.read(reach, operation_id)
        if operation is None:
            raise NotFound
        return operation

    async def life(self, reach: Reach, operation_id: OperationId) -> tuple[Operation, Sequence[KeptDelivery]]:
        """The operation, and what came about its end, the first of it at first. Raises NotFound."""
        operation = await self.read(reach, operation_id)
        return operation, await self._store.deliveries(operation_id)

    async def newest(
        self, reach: Reach, wanted: OperationFilter, limit: int, before: int | None = None
    ) -> Sequence[Operation]:
        """The newest operations that are wanted, of those with a lower number than `before`; the newest first."""
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
