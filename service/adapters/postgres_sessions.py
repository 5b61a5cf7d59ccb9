"""Conversations in PostgreSQL."""

from collections.abc import Sequence
from typing import Final

from service.adapters.postgres import Database, statements
from service.adapters.postgres_tasks import task_from
from service.model.encoding import plain
from service.model.errors import NotFound, SessionBusy
from service.model.events import InputPart
from service.model.ids import MessageId, SessionId, TaskId
from service.model.session import Message, Posted, Session
from service.model.task import Task

_SQL: Final = statements("sessions")
_TASKS: Final = statements("tasks")


class PostgresSessions:
    """The port `SessionStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self) -> Session:
        (row,) = await self._database.fetch(_SQL["create"])
        return Session(SessionId(row["id"]), row["created_at"], (), busy=False)

    async def read(self, session_id: SessionId) -> Session | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_SQL["read"], session_id)
            if row is None:
                return None
            messages = await connection.fetch(_SQL["messages"], session_id)
        return Session(
            session_id,
            row["created_at"],
            tuple(
                Message(MessageId(m["id"]), m["role"], tuple(m["parts"]), TaskId(m["task_id"]), m["created_at"])
                for m in messages
            ),
            busy=row["busy"],
        )

    async def post(self, session_id: SessionId, parts: Sequence[InputPart]) -> Posted:
        (row,) = await self._database.fetch(_SQL["post"], session_id, [plain(part) for part in parts])
        if not row["is_known"]:
            raise NotFound
        if row["task_id"] is None:
            raise SessionBusy
        return Posted(TaskId(row["task_id"]), MessageId(row["input_id"]))

    async def task(self, task_id: TaskId) -> Task | None:
        row = await self._database.fetchrow(_TASKS["read"], task_id)
        return None if row is None else task_from(row)
