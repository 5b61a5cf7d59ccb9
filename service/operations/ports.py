"""What operations need of a database. All of it raises DatabaseUnavailable past its deadline.

A `reach` says what somebody may find. What is outside of it is answered as what does not exist, after the same look.
"""

from collections.abc import Sequence
from typing import Protocol

from service.model.caller import Reach
from service.model.ids import OperationId, TaskId
from service.model.intake import DeadLetter, DeadReason
from service.model.operation import (
    Begun,
    Completion,
    Conflicting,
    Delivery,
    Disposition,
    Executor,
    FollowUp,
    KeptDelivery,
    NewOperation,
    Noted,
    Operation,
    OperationFilter,
    Progress,
    Refused,
    Unknown,
)
from service.model.remote import RemoteAnswer, RemoteCall, RemoteTool
from service.model.task import Claim, Postponed, Told


class OperationDesk(Protocol):
    """What the holder of a task begins, and does with one that is an operation's work."""

    async def begin(self, claim: Claim, new: NewOperation) -> Begun:
        """The operation and its task, which waits, in one transaction with a note that the call has begun.

        What this call has begun before is answered as it stands, or else what has the same key in this session. Raises
        TakenOver, also where the task does not run or its session is deleted, and TooManyOperations: nothing has
        changed.
        """

    async def of_task(self, task_id: TaskId) -> Operation | None:
        """The operation whose work a task is, as it stands."""

    async def begin_job(self, claim: Claim) -> bool:
        """Note that the holder of a waiting task begins its background job: true for the first one, repeats included.

        False for every later holder: the first one is lost. Raises TakenOver, also where the operation has ended.
        """

    async def told(self, claim: Claim, told: Told) -> None:
        """The log of a waiting task is up to date so far: let go of it. A repeat, or by another, changes nothing."""

    async def postpone(self, claim: Claim, postponed: Postponed) -> bool:
        """Let go of a follow-up, which is due again later; whether the mailbox had a message for a next turn.

        In one transaction. Raises TakenOver.
        """


class ServiceCalls(Protocol):
    """What carries calls to external services."""

    async def call(self, tool: RemoteTool, call: RemoteCall) -> RemoteAnswer:
        """Ask the service, once. Whatever happens is an answer; where it is not known whether it came: Taken."""


class OperationInbox(Protocol):
    """Where messages about operations are taken. Atomic; who holds an operation's task is not its holder then."""

    async def complete(self, completion: Completion) -> Disposition:
        """Give a pending operation its outcome, and have its follow-up due; say what became of the message.

        Whatever came before, during or after it: one outcome, and one follow-up at most. Every message is kept, up to
        MAX_DELIVERIES for each operation, but those that are unknown or refused.
        """

    async def complete_all(self, completions: Sequence[Completion]) -> Sequence[Disposition | None]:
        """The same for several in one transaction, in their order; nobody is waited for: None for those that are to be
        taken alone. Where one of them cannot be stored it raises, and nothing has become of any.
        """

    async def report(self, progress: Progress) -> Noted | Conflicting | Unknown | Refused:
        """Note how far a pending operation is; its log is told of the latest, once a second at most."""

    async def redrive(self, reach: Reach, operation_id: OperationId, delivery: Delivery) -> TaskId:
        """Have a follow-up tried again: one that failed by another task, one that rests at once; answers the task.

        While that is under way a repeat answers the same. Raises NotFound, NothingFailed: then nothing has changed.
        """

    async def overdue(self, limit: int) -> Sequence[tuple[OperationId, Executor]]:
        """Pending operations past their deadline."""


class DeadLetterBox(Protocol):
    """What came over the message broker and nobody could take. Raises BrokerUnavailable, NoBroker."""

    async def list(self, limit: int) -> Sequence[DeadLetter]:
        """The oldest ones, so many at most."""

    async def redrive(self, by: str, *, reason: DeadReason | None = None, letter_id: str | None = None) -> int:
        """Send again those with this reason or this id, or all; answers how many. `by` is who wants that."""


class OperationStore(Protocol):
    """Operations as their owners and operators see them."""

    async def read(self, reach: Reach, operation_id: OperationId) -> Operation | None:
        """The operation, or None."""

    async def newest(
        self, reach: Reach, wanted: OperationFilter, limit: int, before: int | None
    ) -> Sequence[Operation]:
        """The newest operations that are wanted, of those with a lower number than `before`; the newest first.

        What may be long is left out: arguments, and outcomes but for failures.
        """

    async def follow_ups(self, operation_id: OperationId) -> Sequence[FollowUp]:
        """The newest tasks that go on with its end, in their order; none before that, or where none is to."""

    async def deliveries(self, operation_id: OperationId) -> Sequence[KeptDelivery]:
        """What came about its end, in its order."""
