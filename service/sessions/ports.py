"""What conversations and their tasks need of a database. All of it raises DatabaseUnavailable past its deadline.

A `reach` says what a caller may find. What is outside of it, or deleted, is answered as what does not exist, after the
same look.
"""

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from service.model.caller import Reach
from service.model.ids import MessageId, OwnerId, SessionId, TaskId
from service.model.session import (
    UNSET,
    History,
    IdempotencyKey,
    NewMessage,
    Posted,
    Promoted,
    Session,
    SessionChange,
    SessionEntry,
    SessionSettings,
)
from service.model.step import CompletedStep, KeptStep
from service.model.task import Backlog, Claim, End, Ended, Held, Ownership, Rung, Task, TaskFilter
from service.model.trace import TraceParent


class TaskStore(Protocol):
    """Tasks as their owners see them."""

    async def read(self, reach: Reach, task_id: TaskId) -> Task | None:
        """The task, or None."""

    async def cancel(self, reach: Reach, task_id: TaskId) -> Task | None:
        """Note that the task is to be cancelled, unless it has ended; answers it as it stands then, or None.

        Whoever holds it, or the next to claim it, ends it. A repeat changes nothing.
        """

    async def newest(self, reach: Reach, wanted: TaskFilter, limit: int, before: int | None) -> Sequence[Task]:
        """The newest tasks that are wanted, of those with a lower number than `before`; the newest first."""

    async def of_session(self, reach: Reach, session_id: SessionId, limit: int, after: int) -> Sequence[Task] | None:
        """A session's tasks with a higher number than `after`, in their order; None where there is no such session.

        None that is there later has a lower number than one that is there now.
        """

    async def ownership(self, task_id: TaskId) -> Ownership | None:
        """Whose the task is; None where there is no such task."""


class Backlogs(Protocol):
    """How far the service is behind."""

    async def backlog(self) -> Backlog:
        """What is still to be done, counted at one moment; nothing is changed."""


class SessionStore(Protocol):
    """Conversations as the database keeps them."""

    async def create(
        self, owner: OwnerId | None, settings: SessionSettings = UNSET, key: IdempotencyKey | None = None
    ) -> SessionEntry:
        """A new, empty one. A repeat makes another; with a key that this owner has used, it answers the first one.

        Raises KeyReused for a key that was used with another body, NotFound where the first one is another's by now.
        """

    async def read(self, reach: Reach, session_id: SessionId, before: MessageId | None = None) -> Session | None:
        """The session with its newest messages, or the newest that stand before one of them; or None.

        At most PAGE_MESSAGES, and of those the newest that fit into PAGE_BYTES together, but one if there is any.
        Raises UnknownMessage.
        """

    async def newest(self, reach: Reach, limit: int, before: int | None) -> Sequence[SessionEntry]:
        """The newest sessions, of those with a lower number than `before`; the newest first."""

    async def change(self, reach: Reach, session_id: SessionId, change: SessionChange) -> bool:
        """Make the change, whole; False where there is no such session. Raises SessionOwned: nothing has changed."""

    async def delete(self, reach: Reach, session_id: SessionId) -> Sequence[TaskId] | None:
        """Have nobody find the session any more; answers its open tasks, which are to be cancelled. None: unknown.

        Its data goes when the logs of its tasks are closed.
        """


class MessageStore(Protocol):
    """What is said in conversations."""

    async def history(self, session_id: SessionId) -> History:
        """The conversation in its order, as far back as it fits into HISTORY_BYTES; its newest message in any case.

        What is earlier is left out. A session that does not exist has none.
        """

    async def post(
        self,
        reach: Reach,
        session_id: SessionId,
        message: NewMessage,
        key: IdempotencyKey | None = None,
        trace: TraceParent | None = None,
    ) -> Posted:
        """Store a user's message and queue the turn that answers it; where there is a turn, keep it in the mailbox.

        In one transaction; nothing is stored where it raises: NotFound, MailboxFull, MessageExists, KeyReused. With a
        key that this session has seen within KEY_SECONDS it changes nothing and answers the same. Whoever claims the
        turn is told of `trace`.
        """

    async def answer_again(
        self,
        reach: Reach,
        session_id: SessionId,
        message_id: MessageId | None,
        instead: NewMessage | None = None,
        trace: TraceParent | None = None,
    ) -> Posted | None:
        """Queue a turn for a message of the user's that is there, or the newest one; with other words, if given.

        What came after it is set aside, and comes back if that turn gives the message back. None where there is no such
        message; raises NotFound, and SessionBusy where a turn is queued or running: then nothing has changed. Whoever
        claims the turn is told of `trace`.
        """

    async def taken_by(self, session_id: SessionId, message_id: MessageId) -> TaskId | None:
        """The task that works on a message, or has, also where it gave it back; None while it waits in the mailbox.

        Raises UnknownMessage.
        """

    async def current(self, reach: Reach, session_id: SessionId) -> TaskId | None:
        """The task that runs, or else the one that is queued; None where the session is idle. Raises NotFound."""


class ChatStore(Protocol):
    """The names that chat clients give to conversations, each owner's its own."""

    async def open(self, owner: OwnerId | None, chat_id: str) -> SessionId:
        """The owner's session of this name or id, made where there is none."""

    async def find(self, owner: OwnerId | None, chat_id: str) -> SessionId | None:
        """The owner's session of this name or id."""


class Removals(Protocol):
    """Deleted sessions on their way out."""

    async def due(self, limit: int, deleted_for_seconds: float) -> Sequence[tuple[SessionId, Sequence[TaskId]]]:
        """Sessions that were deleted so long ago and whose logs are all closed, each with its tasks."""

    async def remove(self, session_id: SessionId) -> None:
        """Remove all that the database has of it, archived logs included. A repeat changes nothing."""

    async def forget_keys(self, limit: int) -> bool:
        """Remove idempotency keys that are older than KEY_SECONDS, about so many; whether there may be more."""


class TaskQueue(Protocol):
    """Who works on what. All times are the database's; every write of a holder is refused once its epoch has passed."""

    async def claim(self, limit: int, lease_seconds: float, *, counts_lost: bool = True) -> Sequence[Claim]:
        """Take up to `limit` tasks: lapsed ones, and queued ones of sessions that run nothing, oldest first.

        Neither keeps the other waiting: where there are enough of both, each is half of it, over two claims of an odd
        number. Atomic. Each is given to one claimer; each claim has a higher epoch than all before it. A queued task
        that is to be cancelled is given out whatever its session runs, and stays queued: it is never run, only ended.

        The lapsed lease of a running task is a lost attempt of it, unless the claimer does not count: one that was
        itself without the database cannot tell a holder that was lost from one that could not renew.
        """

    async def renew(self, claims: Sequence[Claim], lease_seconds: float) -> Sequence[Held]:
        """Hold these for `lease_seconds` more; answers which are still held. A lease that lapsed is not renewed.

        With 0 seconds they are let go, as they stand: the next claim takes them.
        """

    async def retake(self, claim: Claim, lease_seconds: float) -> Claim:
        """The same task as it stands, with a new epoch, for a holder whose log has to be opened again.

        Raises TakenOver.
        """

    async def end(self, claim: Claim, end: End) -> Ended:
        """Store how the task ended, in one transaction, and begin the next turn where the mailbox has a message for it.

        Raises TakenOver. A repeat changes nothing and answers what was stored first.
        """

    async def close(self, claim: Claim) -> None:
        """The log has its ending: release the lease. A repeat, or a holder that is none any more, changes nothing."""


class StepStore(Protocol):
    """What a turn's holder leaves and takes as it goes from step to step."""

    async def promote(self, claim: Claim, step: CompletedStep, told: Collection[MessageId]) -> Sequence[Promoted]:
        """Keep the step, and take all that waits into the conversation, in its order, as messages of this turn.

        No attempt is lost so far. Atomic. Answers what this turn ever took in and what is not among `told`, in its
        order: so a repeat answers the same; the step stays as it was kept first. Raises TakenOver, also where the task
        has ended.
        """

    async def begin_call(self, claim: Claim, call_id: str) -> bool:
        """Note that a call begins of a tool that must not run twice; False where a holder before has begun it.

        A repeat by the same holder answers the same. Raises TakenOver, also where the task has ended.
        """

    async def steps(self, task_id: TaskId, behind: int) -> Sequence[KeptStep]:
        """The steps of an open turn that were kept, but for so many; each with what was taken in behind it."""


class Doorbell(Protocol):
    """Tells workers that something is due, or to be cancelled. A hint: who misses it finds out within two seconds."""

    async def ring(self, rung: Rung) -> None:
        """Tell all workers. Never fails and never waits long: a ring that cannot be carried is dropped."""

    def listen(self) -> AbstractAsyncContextManager[AsyncGenerator[Rung]]:
        """What rings while the block runs; TaskDue also where rings may have been lost."""
