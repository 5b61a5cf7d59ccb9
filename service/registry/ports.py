"""What the registry needs of the outside: a store for logs, a carrier for hints, and what is known of a task."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

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
    TaskFacts,
)
from service.model.position import Position


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
