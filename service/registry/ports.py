"""What the registry needs of the outside: stores for logs, hot and archived, a carrier for hints, facts of a task."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from service.model.chain import Proof, Row
from service.model.ids import Epoch, TaskId
from service.model.log import (
    AppendResult,
    Batch,
    Fenced,
    Head,
    Hint,
    Interrupted,
    Listening,
    Opened,
    Page,
    Scanned,
    Standing,
    TaskFacts,
)
from service.model.position import Position
from service.model.task import Task


class LogStore(Protocol):
    """The logs. Every call has a deadline and raises LogUnavailable when it passes; what happened then is unknown."""

    async def open(self, task_id: TaskId, epoch: Epoch, floor: Position) -> Opened | Fenced:
        """Fence every older holder, then say how far the log reaches; atomic, and a repeat is harmless.

        `floor` is what is known to exist elsewhere: a log that is behind it is dropped and goes on after it.
        """

    async def append(self, batches: Sequence[Batch]) -> Sequence[AppendResult]:
        """Store each batch whole or not at all, one result a batch in their order; batches are independent.

        Checked in this order: a later holder, an unknown holder, what is there already (a repeat stores only what is
        missing), a closed log, a log that does not reach to the batch. After storing, one hint a batch is sent.
        """

    async def read(self, task_id: TaskId, after: Position, count: int) -> Page:
        """Up to `count` events that stand after a position, which need not name one, and whether it does."""

    async def head(self, task_id: TaskId) -> Head:
        """How far the log reaches."""


class LogSource(Protocol):
    """Where logs are read: the hot store or the archive. Raises StoreUnavailable."""

    async def read(self, task_id: TaskId, after: Position, count: int) -> Page:
        """Up to `count` events that stand after a position, which need not name one, and whether it does."""

    async def head(self, task_id: TaskId) -> Head:
        """How far the log reaches here."""


class HotLogs(Protocol):
    """The hot copies as keys of their store, which come and go. Raises LogUnavailable."""

    async def begin(self, task_ids: Sequence[TaskId], count: int) -> Sequence[Page]:
        """The first `count` events of each of these logs, in their order, in one round trip."""

    async def retire(self, task_ids: Sequence[TaskId], seconds: int) -> None:
        """Let archived logs go: what is whole here lives so much longer, what has lost its end goes at once.

        Atomic a log. A repeat changes nothing: a time that is set is not set again.
        """

    async def is_of(self, database: str) -> bool:
        """Whether these logs belong to this database: a store belongs for good to the first one that asks."""

    async def remove(self, task_ids: Sequence[TaskId]) -> None:
        """Remove logs of which nothing shall be kept. Atomic a log, and a repeat is harmless."""

    async def scan(self, cursor: int) -> Scanned:
        """The next few logs after a cursor; 0 begins. What is there for a whole lap comes once or more often."""


class LogArchive(Protocol):
    """Closed logs for good, beside the tasks that they belong to. Raises DatabaseUnavailable."""

    async def due(self, after: TaskId | None, limit: int) -> Sequence[TaskId]:
        """Closed logs that are not archived, by their ids, those after one of them."""

    async def prepare(self, task_ids: Sequence[TaskId]) -> None:
        """Have a place for these logs; a repeat is harmless. Who copies without it may find none."""

    def copying(self, task_ids: Sequence[TaskId]) -> AbstractAsyncContextManager["Copying"]:
        """One transaction over those of these logs that are still due and in nobody else's hands.

        Committed at the end of the block; nothing of it is stored where the block raises.
        """

    async def owe(self, task_id: TaskId) -> bool:
        """The store lost the end of a closed log that is not archived: have its next holder append it again.

        Answers whether it is so: nobody holds the task, and it was due. A repeat changes nothing.
        """

    async def standing(self, task_ids: Sequence[TaskId]) -> Standing:
        """What is known of these; tasks whose ids are less than an hour old by the database's clock are not unknown."""


class Seals(Protocol):
    """What was proven of logs when they were archived. Raises DatabaseUnavailable."""

    async def seal_of(self, task_id: TaskId) -> Proof | None:
        """As it was stored with the log; None where it is not archived. It never changes."""


class TaskRows(Protocol):
    """Tasks as the database knows them. Raises DatabaseUnavailable."""

    async def row(self, task_id: TaskId) -> Task | None:
        """The task, whosever it is, or None."""


class Copying(Protocol):
    """Logs on their way into the archive, within one transaction."""

    @property
    def task_ids(self) -> Sequence[TaskId]:
        """Which ones: they stay due for nobody else until the transaction ends."""

    async def put(self, task_id: TaskId, rows: Sequence[Row]) -> None:
        """More of a log's events. What is put must be sealed, or the transaction given up."""

    async def seal(self, proofs: Mapping[TaskId, Proof]) -> None:
        """These logs are whole, as proven: archived when the transaction is. Said once, at its end."""


class HintFeed(Protocol):
    """One connection's hints. It reconnects by itself, for ever, and says so."""

    async def subscribe(self, task_id: TaskId) -> None:
        """Ask for a task's hints; Listening follows when it is so. Never waits for the connection."""

    async def unsubscribe(self, task_id: TaskId) -> None:
        """Ask for no more of them."""

    def items(self) -> AsyncGenerator[Hint | Listening | Interrupted]:
        """What arrives, in its order, until the feed is closed."""


class Hints(Protocol):
    """The carrier of hints. Losing one costs time, never data."""

    def connect(self) -> AbstractAsyncContextManager[HintFeed]:
        """A feed of this process, closed at the end of the block."""


class TaskDirectory(Protocol):
    """The database's word on which logs exist."""

    async def facts(self, task_id: TaskId) -> TaskFacts | None:
        """None where there is no such task. Raises DatabaseUnavailable."""
