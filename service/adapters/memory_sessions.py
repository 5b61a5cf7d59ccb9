"""Conversations in memory: the same promises within one process, for embedding and for tests."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from service.adapters.memory_database import KeyRow, MemoryDatabase, OperationRow, SessionRow
from service.adapters.memory_messages import newest_that_fit
from service.model.caller import Own, Reach
from service.model.errors import KeyReused, NotFound, SessionOwned, UnknownMessage
from service.model.ids import MessageId, OwnerId, SessionId, TaskId
from service.model.session import (
    KEY_SECONDS,
    PAGE_BYTES,
    PAGE_MESSAGES,
    UNSET,
    IdempotencyKey,
    Session,
    SessionChange,
    SessionEntry,
    SessionSettings,
)


class MemorySessions:
    """The ports `SessionStore` and `Removals`. Every call is atomic, since nothing in it waits."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    async def create(
        self, owner: OwnerId | None, settings: SessionSettings = UNSET, key: IdempotencyKey | None = None
    ) -> SessionEntry:
        database = self._database
        if key is None:
            return self._entry(database.add_session(owner, settings))
        known = database.keys.get((owner, key.name))
        if known is None or known.created_at < database.now() - timedelta(seconds=KEY_SECONDS):
            row = database.add_session(owner, settings)
            database.keys[owner, key.name] = KeyRow(key.body_sha256, row.id, database.now())
            return self._entry(row)
        if known.body_sha256 != key.body_sha256 or not isinstance(known.answer, str):
            raise KeyReused
        made = database.session(Own(owner), known.answer)
        if made is None:
            raise NotFound
        return self._entry(made)

    def _entry(self, row: SessionRow) -> SessionEntry:
        busy = self._database.open_turn(row.id) is not None
        return SessionEntry(row.id, row.number, row.owner, row.settings, row.created_at, busy)

    async def read(self, reach: Reach, session_id: SessionId, before: MessageId | None = None) -> Session | None:
        row = self._database.session(reach, session_id)
        if row is None:
            return None
        end = len(row.messages)
        if before is not None:
            place = next((i for i, message in enumerate(row.messages) if message.id == before), None)
            if place is None:
                raise UnknownMessage
            end = place
        page = newest_that_fit(row.messages[max(0, end - PAGE_MESSAGES) : end], PAGE_BYTES)
        return Session(self._entry(row), page, tuple(each.message for each in row.pending), earlier=len(page) < end)

    async def newest(self, reach: Reach, limit: int, before: int | None) -> Sequence[SessionEntry]:
        rows = reversed(self._database.sessions.values())
        found = [row for row in rows if row.is_within(reach) and (before is None or row.number < before)]
        return [self._entry(row) for row in found[:limit]]

    async def change(self, reach: Reach, session_id: SessionId, change: SessionChange) -> bool:
        row = self._database.session(reach, session_id)
        if row is None:
            return False
        if change.owner is not None and row.owner is not None:
            raise SessionOwned
        if change.owner is not None:
            others = {each.chat_id for each in self._database.sessions.values() if each.is_within(Own(change.owner))}
            row.owner, row.chat_id = change.owner, None if row.chat_id in others else row.chat_id
            for each in self._operations_of(session_id):
                each.operation = replace(each.operation, owner=change.owner)
        wanted = {name: getattr(change.settings, name) for name in SessionSettings.__dataclass_fields__}
        changed = {name: value for name, value in wanted.items() if value is not None or name in change.cleared}
        row.settings = replace(row.settings, **changed)
        return True

    async def delete(self, reach: Reach, session_id: SessionId) -> Sequence[TaskId] | None:
        database = self._database
        row = database.session(reach, session_id)
        if row is None:
            return None
        row.deleted_at = database.now()
        row.pending.clear()
        database.keys = {name: key for name, key in database.keys.items() if key.answer != session_id}
        for operation in self._operations_of(session_id):
            database.cancel_operation(operation.operation.task_id, "session deleted")
        tasks = [each for each in database.unclosed.values() if each.task.session_id == session_id]
        tasks = [each for each in tasks if not each.task.has_ended]
        for each in tasks:
            wanted_at = each.task.cancel_requested_at or database.now()
            each.task = replace(each.task, cancel_requested_at=wanted_at)
        return [each.task.id for each in tasks]

    async def due(self, limit: int, deleted_for_seconds: float) -> Sequence[tuple[SessionId, Sequence[TaskId]]]:
        latest = self._database.now() - timedelta(seconds=deleted_for_seconds)
        rows = self._database.sessions.values()
        deleted = [row.id for row in rows if row.deleted_at is not None and row.deleted_at <= latest]
        tasks = {session_id: self._tasks_of(session_id) for session_id in deleted}
        closed = [(each, ids) for each, ids in tasks.items() if not any(i in self._database.unclosed for i in ids)]
        return closed[:limit]

    def _operations_of(self, session_id: SessionId) -> list[OperationRow]:
        return [row for row in self._database.operations.values() if row.operation.session_id == session_id]

    def _tasks_of(self, session_id: SessionId) -> list[TaskId]:
        return [task_id for task_id, row in self._database.tasks.items() if row.task.session_id == session_id]

    async def remove(self, session_id: SessionId) -> None:
        if any(session_id == due for due, _ in await self.due(len(self._database.sessions), 0)):
            for task_id in self._tasks_of(session_id):
                del self._database.tasks[task_id]
            del self._database.sessions[session_id]
            for row in self._operations_of(session_id):
                row.inbox.clear()
                row.key = None
                row.operation = replace(row.operation, arguments=None, outcome=None, progress=None)

    async def forget_keys(self, limit: int) -> bool:
        oldest = self._database.now() - timedelta(seconds=KEY_SECONDS)
        database = self._database
        database.keys = {name: key for name, key in database.keys.items() if key.created_at >= oldest}
        for row in database.sessions.values():
            row.keys = {name: key for name, key in row.keys.items() if key.created_at >= oldest}
        return False
