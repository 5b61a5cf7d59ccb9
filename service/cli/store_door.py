"""The stores directly, by what the doors over HTTP ask of them too."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final, TypeVar

import orjson

from service.client import Event, Gap
from service.http import bodies, operation_bodies
from service.model.caller import EVERYONES
from service.model.encoding import unframed
from service.model.events import TextPart
from service.model.ids import OperationId, SessionId, TaskId
from service.model.intake import DeadReason
from service.model.operation import Completion, Delivery, Failed, Operation, OperationFilter, Succeeded
from service.model.position import Position
from service.model.session import UNSET, NewMessage, Posted, SessionEntry, SessionSettings
from service.model.task import Task, TaskFilter
from service.operations.operations import Operations
from service.operations.ports import DeadLetterBox
from service.registry.event_page import LogGone
from service.registry.export import Exporter
from service.registry.follow import Begun, Follower, Frames, Vanished
from service.registry.follow import Gap as ToldGap
from service.registry.proof import Prover
from service.sessions.conversations import Conversations
from service.sessions.tasks import Tasks

PAGE_ENTRIES: Final = 100
"""So many entries of a list are read at once."""

BY_COMMAND: Final = Delivery("http", "command")
"""What is kept of who ended an operation here."""

_Entry = TypeVar("_Entry", Task, SessionEntry, Operation)


class StoredLogs:
    """Logs as the stores have them."""

    def __init__(self, follower: Follower, prover: Prover, exporter: Exporter) -> None:
        self._follower = follower
        self._prover = prover
        self._exporter = exporter

    async def follow(self, task_id: TaskId, after: Position) -> AsyncGenerator[Event]:
        """The events behind a position until the terminal one. Raises Gap, LogGone, NotFound, StoreUnavailable."""
        async with aclosing(self._follower.follow(task_id, after)) as items:
            async for item in items:
                match item:
                    case Begun(ToldGap(gap), _) | ToldGap(gap):
                        raise Gap(gap)
                    case Vanished():
                        raise LogGone
                    case Frames(frames):
                        for position, data in unframed(frames):
                            yield Event(Position.stored(position), orjson.loads(data), data)
                    case _:
                        pass  # a heartbeat, or the end

    async def verify(self, task_id: TaskId) -> dict[str, Any]:
        """The proof. Raises NotFound, StoreUnavailable."""
        return dict(bodies.verdict_body(await self._prover.prove(task_id)))

    async def export(self, task_id: TaskId, *, redact: bool) -> AsyncGenerator[bytes]:
        """The lines of a file. Raises NotFound, LogStillOpen, LogGone, StoreUnavailable."""
        seal = await self._exporter.seal_of(task_id)
        async with aclosing(self._exporter.lines(task_id, seal, redact=redact)) as lines:
            async for some in lines:
                yield some


class StoreDoor:
    """What a service with these stores would answer to one who reaches everything."""

    def __init__(
        self,
        conversations: Conversations,
        tasks: Tasks,
        operations: Operations,
        letters: DeadLetterBox,
        logs: StoredLogs,
    ) -> None:
        self._conversations = conversations
        self._tasks = tasks
        self._operations = operations
        self._letters = letters
        self._logs = logs

    def follow(self, task_id: TaskId, after: Position) -> AsyncGenerator[Event]:
        return self._logs.follow(task_id, after)

    async def verify(self, task_id: TaskId) -> dict[str, Any]:
        return await self._logs.verify(task_id)

    def export(self, task_id: TaskId, *, redact: bool = False) -> AsyncGenerator[bytes]:
        return self._logs.export(task_id, redact=redact)

    def tasks(self, wanted: TaskFilter, limit: int | None) -> AsyncGenerator[dict[str, Any]]:
        return _listed(partial(self._tasks.newest, EVERYONES, wanted), bodies.task_body, limit)

    async def task(self, task_id: TaskId) -> dict[str, Any]:
        return dict(bodies.task_body(await self._tasks.read(EVERYONES, task_id)))

    async def cancel(self, task_id: TaskId) -> dict[str, Any]:
        return dict(bodies.task_body(await self._tasks.cancel(EVERYONES, task_id)))

    def operations(self, wanted: OperationFilter, limit: int | None) -> AsyncGenerator[dict[str, Any]]:
        return _listed(partial(self._operations.newest, EVERYONES, wanted), operation_bodies.listed_body, limit)

    async def operation(self, operation_id: OperationId) -> dict[str, Any]:
        return dict(operation_bodies.operation_body(*await self._operations.life(EVERYONES, operation_id)))

    async def complete(self, operation_id: OperationId, outcome: Succeeded | Failed) -> dict[str, Any]:
        return dict(
            operation_bodies.taken_body(await self._operations.take(Completion(operation_id, outcome, BY_COMMAND)))
        )

    async def cancel_operation(self, operation_id: OperationId) -> dict[str, Any]:
        return dict(operation_bodies.whole_body(await self._operations.cancel(EVERYONES, operation_id, BY_COMMAND)))

    async def redrive(self, operation_id: OperationId) -> dict[str, Any]:
        task_id = await self._operations.redrive(EVERYONES, operation_id, BY_COMMAND)
        return dict(operation_bodies.redriven_body(operation_id, task_id))

    async def dead_letters(self, limit: int) -> Sequence[dict[str, Any]]:
        return [dict(operation_bodies.letter_body(each)) for each in await self._letters.list(limit)]

    async def redrive_letters(self, *, reason: DeadReason | None = None, letter_id: str | None = None) -> int:
        return await self._letters.redrive(BY_COMMAND.by, reason=reason, letter_id=letter_id)

    async def create_session(self, settings: SessionSettings = UNSET) -> SessionId:
        return (await self._conversations.create(None, settings)).id

    def sessions(self, limit: int | None) -> AsyncGenerator[dict[str, Any]]:
        return _listed(partial(self._conversations.newest, EVERYONES), bodies.entry_body, limit)

    async def session(self, session_id: SessionId) -> dict[str, Any]:
        return dict(bodies.session_body(await self._conversations.read(EVERYONES, session_id)))

    async def delete_session(self, session_id: SessionId) -> None:
        await self._conversations.delete(EVERYONES, session_id)

    async def post(self, session_id: SessionId, message: str) -> Posted:
        return await self._conversations.post(EVERYONES, session_id, NewMessage((TextPart(message),)))


async def _listed(
    page: Callable[[int, int | None], Awaitable[Sequence[_Entry]]],
    body: Callable[[_Entry], Mapping[str, Any]],
    limit: int | None,
) -> AsyncGenerator[dict[str, Any]]:
    """Entries, so many or all, over as many pages as it takes."""
    before, left = None, limit
    while left is None or left > 0:
        count = PAGE_ENTRIES if left is None else min(left, PAGE_ENTRIES)
        entries = await page(count, before)
        for entry in entries:
            yield dict(body(entry))
        if len(entries) < count:
            return
        before = entries[-1].number
        left = None if left is None else left - count
