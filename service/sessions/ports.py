"""What conversations and their tasks need of a database. All of it raises DatabaseUnavailable past its deadline."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from service.model.events import Chunk, InputPart
from service.model.ids import MessageId, SessionId, TaskId
from service.model.session import Message, Posted, Session
from service.model.task import Claim, End, Held, Rung, Task


class TaskStore(Protocol):
    """Tasks as their owners see them."""

    async def read(self, task_id: TaskId) -> Task | None:
        """The task, or None."""

    async def cancel(self, task_id: TaskId) -> Task | None:
        """Note that the task is to be cancelled, unless it has ended; answers it as it stands then, or None.

        Whoever holds it, or the next to claim it, ends it. A repeat changes nothing.
        """


class SessionStore(Protocol):
    """Conversations as the database keeps them."""

    async def create(self) -> Session:
        """A new, empty one. A repeat makes another."""

    async def read(self, session_id: SessionId, before: MessageId | None = None) -> Session | None:
        """The session with its newest messages, or the newest that stand before one of them; or None.

        At most PAGE_MESSAGES, and of those the newest that fit into PAGE_BYTES together, but one if there is any.
        Raises UnknownMessage.
        """

    async def history(self, session_id: SessionId) -> Sequence[Message]:
        """The conversation in its order, as far back as it fits into HISTORY_BYTES; its newest message in any case.

        What is earlier is left out. A session that does not exist has none.
        """

    async def post(self, session_id: SessionId, parts: Sequence[InputPart]) -> Posted:
        """Store a user's message and queue the turn that answers it, in one transaction.

        Raises NotFound, or SessionBusy while a turn is queued or running; then nothing is stored.
        """


class TaskQueue(Protocol):
    """Who works on what. All times are the database's; every write of a holder is refused once its epoch has passed."""

    async def claim(self, limit: int, lease_seconds: float, *, counts_lost: bool = True) -> Sequence[Claim]:
        """Take up to `limit` tasks: lapsed ones, and queued ones of sessions that run nothing, oldest first.

        Atomic. Each is given to one claimer; each claim has a higher epoch than all before it. A queued task that is to
        be cancelled is given out whatever its session runs, and stays queued: it is never run, only ended.

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

    async def end(self, claim: Claim, end: End) -> tuple[Chunk, ...]:
        """Store how the task ended, in one transaction; answers what its log is owed. Raises TakenOver.

        A repeat changes nothing and answers what was stored first.
        """

    async def close(self, claim: Claim) -> None:
        """The log has its ending: release the lease. A repeat, or a holder that is none any more, changes nothing."""


class Doorbell(Protocol):
    """Tells workers that something is due, or to be cancelled. A hint: who misses it finds out within two seconds."""

    async def ring(self, rung: Rung) -> None:
        """Tell all workers. Never fails and never waits long: a ring that cannot be carried is dropped."""

    def listen(self) -> AbstractAsyncContextManager[AsyncGenerator[Rung]]:
        """What rings while the block runs; TaskDue also where rings may have been lost."""
