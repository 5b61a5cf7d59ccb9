"""Both doors of completions, the real ones, over the same stores: a service on a socket, a consumer at a RabbitMQ.

What becomes of a message has the same word behind either: `accepted`, `duplicate`, `conflicting`, `unknown`, `refused`,
`unreadable`, `too_large`.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import asyncpg

from service.adapters.memory_operations import MemoryOperations
from service.adapters.postgres import Database
from service.adapters.postgres_operations import PostgresOperations
from service.adapters.postgres_sessions import PostgresSessions
from service.http.operations import UNKNOWN_RETRY_SECONDS
from service.model.caller import EVERYONES
from service.model.ids import SessionId
from service.model.operation import OTHER_TASK, NewOperation, Operation
from service.model.task import Claim, Told
from tests.adapters.rabbits import Rabbit
from tests.consumers.ledger import Door
from tests.http.test_operations import Service
from tests.http.wire import Answer, Header
from tests.sessions.endings import ended_with

RENDER: Final = NewOperation("c1", "render", "remote", {"scene": 1}, 3600)


@dataclass(frozen=True, slots=True)
class Message:
    """What a service says, in bytes. Whoever says the same again gives it the same name."""

    name: str
    members: dict[str, Any]
    size: int | None = None
    """So many bytes, by a result that is as long as that."""
    is_cut: bool = False
    """Its last byte is missing."""

    def body(self, operation: Operation) -> bytes:
        """Of this operation, unless it names another. TASK is its task, TURN that of the turn which began it."""
        ids = {"TASK": operation.task_id, "TURN": operation.turn_id}
        said = {name: ids.get(str(value), value) for name, value in self.members.items()}
        said = {"operation_id": operation.id, **said}
        if self.size is not None:
            said["result"] = "x" * (self.size - len(json.dumps(said | {"result": ""})))
        return json.dumps(said).encode()[: -1 if self.is_cut else None]


@dataclass(slots=True)
class _OneConnection:
    """A pool of one connection, which is in a transaction."""

    connection: Any

    async def acquire(self) -> Any:
        return self.connection

    async def release(self, connection: Any) -> None:
        pass


@dataclass(slots=True)
class BothDoors:
    """One service, one consumer."""

    service: Service
    pool: "asyncpg.Pool[asyncpg.Record] | None"
    """Of the database, where it is a PostgreSQL; None: all is in memory."""
    rabbit: Rabbit
    consumer: Door
    key: Header

    @asynccontextmanager
    async def unseen(self, claim: Claim, *, is_deleted: bool) -> AsyncIterator[Operation]:
        """An operation that nobody sees until the block is left; and then its session is deleted already, if it is."""
        desk, sessions = self.service.house.desk, self.service.house.sessions
        if self.pool is None:
            operation = (await desk.begin(claim, RENDER)).operation
            assert isinstance(desk, MemoryOperations)
            row = desk._database.operations.pop(operation.id)
            yield operation
            desk._database.operations[operation.id] = row
            if is_deleted:
                await sessions.delete(EVERYONES, operation.session_id)  # in memory no call waits: nobody comes between
            return
        async with self.pool.acquire() as connection, connection.transaction():
            uncommitted = Database(_OneConnection(connection))  # type: ignore[arg-type]
            operation = (await PostgresOperations(uncommitted).begin(claim, RENDER)).operation
            if is_deleted:
                await PostgresSessions(uncommitted).delete(EVERYONES, operation.session_id)
            yield operation

    async def now(self, operation: Operation) -> Operation:
        """As it stands, though its session be deleted."""
        found = await self.service.house.desk.of_task(operation.task_id)
        assert found is not None
        return found

    async def due(self, session_id: SessionId) -> Sequence[Claim]:
        """What a worker is given of this session."""
        queue = self.service.house.queue
        claims = await queue.claim(1000, 3600)
        await queue.renew([each for each in claims if each.task.session_id != session_id], 0)
        return [each for each in claims if each.task.session_id == session_id]

    async def end(self, claim: Claim) -> None:
        """A task, and its log."""
        queue, end = self.service.house.queue, ended_with(claim, "There.")
        await queue.end(claim, end if claim.task.cancel_requested_at is None else replace(end, status="cancelled"))
        await queue.close(claim)

    async def follow_ups(self, session_id: SessionId) -> int:
        """How often the agent goes on, until nothing is due any more."""
        count, desk = 0, self.service.house.desk
        while claims := await self.due(session_id):
            for claim in claims:
                operation = await desk.of_task(claim.task.id)
                if operation is not None and operation.status == "pending":
                    await desk.told(claim, Told(operation.progress_number))
                else:
                    count += claim.task.status == "running" and claim.task.cancel_requested_at is None
                    await self.end(claim)
        return count

    async def post(self, message: Message, operation: Operation) -> str:
        """What becomes of it over the webhook."""
        operation_id = message.members.get("operation_id", operation.id)
        name = ("Idempotency-Key", message.name)
        return _word_of(await self.service.complete(operation_id, message.body(operation), self.key, name))

    async def publish(self, message: Message, operation: Operation) -> None:
        """Over the broker."""
        await self.rabbit.publish(message.body(operation), message_id=message.name)

    async def parked(self) -> None:
        """Returns when a message is parked."""
        await self.rabbit.until(lambda: "parked" in self.consumer.labels)

    async def settled(self, count: int) -> list[str]:
        """What became of so many over the broker, and of no more, and nothing is left there; then that is forgotten."""

        def labels() -> list[str]:
            return [label for label in self.consumer.labels if label != "parked"]

        await self.rabbit.until(lambda: len(labels()) >= count)
        await self.rabbit.has(ready=0, parked=0, dead=labels().count("dead"))
        letters = await self.rabbit.letters.list(10) if "dead" in labels() else []
        await self.rabbit.line.raw.queue_purge(self.rabbit.names.dead)
        words = [label for label in labels() if label != "dead"]
        self.consumer.labels.clear()
        return words + [letter.reason for letter in letters]


def _word_of(answer: Answer) -> str:
    match answer.status:
        case 200:
            return "duplicate" if answer.json.get("duplicate") else "accepted"
        case 404:
            assert answer.headers["retry-after"] == str(UNKNOWN_RETRY_SECONDS)
            return "unknown"
        case 409:
            return "conflicting"
        case 413:
            return "too_large"
        case 422:
            return "refused" if answer.json["detail"] == OTHER_TASK else "unreadable"
        case other:
            raise AssertionError(f"{other}: {answer.body!r}")
