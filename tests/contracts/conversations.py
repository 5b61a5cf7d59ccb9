"""Conversations as one database keeps them: behind their ports, and what tests do to them and see of them beside."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from itertools import count
from typing import Protocol

import orjson

from service.adapters.memory_database import MemoryDatabase, MessageRow
from service.adapters.memory_messages import MemoryMessages
from service.adapters.memory_operations import MemoryOperations
from service.adapters.memory_sessions import MemorySessions
from service.adapters.memory_tasks import MemoryTasks
from service.adapters.postgres import Database
from service.adapters.postgres_messages import PostgresMessages
from service.adapters.postgres_operations import PostgresOperations
from service.adapters.postgres_sessions import PostgresSessions
from service.adapters.postgres_tasks import PostgresTasks
from service.model import events as e
from service.model.ids import MessageId, SessionId, TaskId
from service.model.task import Claim
from service.operations.ports import OperationDesk, OperationInbox, OperationStore
from service.registry.ports import TaskDirectory
from service.sessions.ports import ChatStore, MessageStore, Removals, SessionStore, StepStore, TaskQueue, TaskStore
from tests.sessions.databases import say


class Tasks(TaskQueue, TaskStore, TaskDirectory, StepStore, Protocol):
    """All that a database knows of tasks."""


class Store(SessionStore, MessageStore, ChatStore, Removals, Protocol):
    """All that a database knows of conversations."""


class _InPostgres(PostgresSessions, PostgresMessages):
    """Both, since both need the database alone."""


class _InMemory(MemorySessions, MemoryMessages):
    """Both, since both need the database alone."""


class Operations(OperationDesk, OperationInbox, OperationStore, Protocol):
    """All that a database knows of operations."""


class Kept(Protocol):
    """One database's."""

    store: Store
    queue: Tasks
    operations: Operations

    async def everything(self) -> list[list[object]]:
        """Every row but when leases end: what a loser must leave as it is. The messages come last."""

    async def counts(self) -> dict[str, int]:
        """How many rows there are."""

    async def say(self, session_id: SessionId, sizes: Sequence[int]) -> list[str]:
        """Put messages into a session, each with so many bytes of parts; answers their ids in their order."""

    async def second_turn_queued(self, claim: Claim) -> TaskId:
        """Another queued turn of a session that has one: no port makes that yet, a mailbox will."""


@dataclass
class InPostgres:
    """In a PostgreSQL."""

    database: Database

    def __post_init__(self) -> None:
        self.store, self.queue = _InPostgres(self.database), PostgresTasks(self.database)
        self.operations: Operations = PostgresOperations(self.database)

    async def everything(self) -> list[list[object]]:
        return [
            [tuple(row) for row in await self.database.fetch(statement)]
            for statement in (
                "SELECT * FROM sessions ORDER BY id",
                "SELECT id, status, usage, ending::text, error_type, log_closed, finished_at FROM tasks ORDER BY id",
                "SELECT task_id, epoch FROM leases ORDER BY task_id",
                "SELECT session_id, id, seq, role, parts::text FROM messages ORDER BY seq",
            )
        ]

    async def counts(self) -> dict[str, int]:
        return {
            table: (await self.database.fetch(f"SELECT count(*) FROM {table}"))[0][0]
            for table in ("sessions", "tasks", "leases", "messages", "pending_messages")
        }

    async def say(self, session_id: SessionId, sizes: Sequence[int]) -> list[str]:
        return await say(self.database, session_id, sizes)

    async def second_turn_queued(self, claim: Claim) -> TaskId:
        (row,) = await self.database.fetch(
            "SELECT playhead_queue_turn($1, 'none', NULL)::text AS id",
            claim.task.session_id,
        )
        return TaskId(row["id"])


def _ticks() -> MemoryDatabase:
    """Each look at the clock is a little later than the one before, as statements are."""
    ticks = count(1)
    return MemoryDatabase(seconds=lambda: next(ticks) / 1_000_000)


@dataclass
class InMemory:
    """In this process."""

    database: MemoryDatabase = field(default_factory=_ticks)

    def __post_init__(self) -> None:
        self.store, self.queue = _InMemory(self.database), MemoryTasks(self.database)
        self.operations: Operations = MemoryOperations(self.database)

    async def everything(self) -> list[list[object]]:
        rows, sessions = self.database.tasks.values(), self.database.sessions.values()
        return [
            [(session.id, session.created_at) for session in sessions],
            [(row.task, row.ending, row.log_closed) for row in rows],
            [(row.task.id, row.epoch) for row in rows],
            [(session.id, *astuple(message)) for session in sessions for message in session.messages],
        ]

    async def counts(self) -> dict[str, int]:
        messages = sum(len(session.messages) for session in self.database.sessions.values())
        tasks, pending = len(self.database.tasks), sum(len(each.pending) for each in self.database.sessions.values())
        return {
            "sessions": len(self.database.sessions),
            "tasks": tasks,
            "leases": tasks,
            "messages": messages,
            "pending_messages": pending,
        }

    async def say(self, session_id: SessionId, sizes: Sequence[int]) -> list[str]:
        frame = len(orjson.dumps([e.TextPart("")]))
        session = self.database.sessions[session_id]
        for n, size in enumerate(sizes, 1):
            parts = orjson.dumps([e.TextPart("x" * max(0, size - frame))])
            role = "user" if n % 2 else "assistant"
            message_id = MessageId(f"{session_id}.{n}")
            session.messages.append(MessageRow(message_id, role, parts, TaskId(f"of {n}"), session.created_at))
        return [message.id for message in session.messages]

    async def second_turn_queued(self, claim: Claim) -> TaskId:
        return self.database.add_turn(claim.task.session_id, MessageId("none")).id
