"""Conversations in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import timedelta
from typing import Final

import asyncpg
import orjson

from service.adapters.postgres import Database, reached, statements
from service.adapters.postgres_messages import has_earlier, key_columns, message_from, page_of, settings_from
from service.model.caller import Own, Reach
from service.model.errors import DatabaseUnavailable, KeyReused, NotFound, SessionOwned, UnknownMessage
from service.model.ids import MessageId, OwnerId, SessionId, TaskId
from service.model.session import (
    KEY_SECONDS,
    PAGE_BYTES,
    PAGE_MESSAGES,
    UNSET,
    IdempotencyKey,
    PendingMessage,
    Session,
    SessionChange,
    SessionEntry,
    SessionSettings,
)

REMOVAL_SECONDS: Final = 60.0
"""The deadline of a removal, which deletes every event of a conversation."""

_SQL: Final = statements("sessions")


class PostgresSessions:
    """The ports `SessionStore` and `Removals`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, owner: OwnerId | None, settings: SessionSettings = UNSET, key: IdempotencyKey | None = None
    ) -> SessionEntry:
        arguments = owner, _patch(settings), "POST /sessions", *key_columns(key), float(KEY_SECONDS)
        try:
            (row,) = await self._database.fetch(_SQL["create"], *arguments)
        except asyncpg.UniqueViolationError:  # another was faster with the same key, and is there now
            (row,) = await self._database.fetch(_SQL["create"], *arguments)
        if row["outcome"] == "mismatched":
            raise KeyReused
        made = await self._database.fetchrow(_SQL["read"], row["known"], *reached(Own(owner)))
        if made is None:  # another's by now, or deleted
            raise NotFound
        return _entry_from(made)

    async def read(self, reach: Reach, session_id: SessionId, before: MessageId | None = None) -> Session | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_SQL["read"], session_id, *reached(reach))
            if row is None:
                return None
            place = None
            if before is not None:
                place = await connection.fetchval(_SQL["place"], session_id, before)
                if place is None:
                    raise UnknownMessage
            # The mailbox first: what a turn takes meanwhile is then in both, where it would be in neither.
            waiting = await connection.fetch(_SQL["pending"], session_id) if row["busy"] else []
            page = await page_of(connection, session_id, place, PAGE_MESSAGES, PAGE_BYTES)
        said = {each["id"] for each in page}
        pending = [each for each in waiting if each["id"] not in said]
        return Session(
            entry=_entry_from(row),
            messages=tuple(message_from(each) for each in reversed(page)),
            pending=tuple(PendingMessage(MessageId(p["id"]), tuple(p["parts"]), p["created_at"]) for p in pending),
            earlier=has_earlier(page),
        )

    async def newest(self, reach: Reach, limit: int, before: int | None) -> Sequence[SessionEntry]:
        match reach:
            case Own(None):
                rows = await self._database.fetch(_SQL["newest_of_nobody"], limit, before)
            case Own(owner):
                rows = await self._database.fetch(_SQL["newest_of_owner"], limit, before, owner)
            case _:
                rows = await self._database.fetch(_SQL["newest"], limit, before)
        return [_entry_from(row) for row in rows]

    async def change(self, reach: Reach, session_id: SessionId, change: SessionChange) -> bool:
        patch = _patch(change.settings, change.cleared)
        try:
            (row,) = await self._database.fetch(_SQL["change"], session_id, *reached(reach), patch, change.owner)
        except asyncpg.UniqueViolationError as error:  # its new owner gives the same name to a chat at this moment
            raise DatabaseUnavailable from error
        if row["outcome"] == "owned":
            raise SessionOwned
        return bool(row["outcome"] == "changed")

    async def delete(self, reach: Reach, session_id: SessionId) -> Sequence[TaskId] | None:
        (row,) = await self._database.fetch(_SQL["delete"], session_id, *reached(reach))
        return None if row["open_tasks"] is None else [TaskId(task_id) for task_id in row["open_tasks"]]

    async def due(self, limit: int, deleted_for_seconds: float) -> Sequence[tuple[SessionId, Sequence[TaskId]]]:
        rows = await self._database.fetch(_SQL["removable"], limit, timedelta(seconds=deleted_for_seconds))
        return [(SessionId(row["id"]), [TaskId(task_id) for task_id in row["tasks"]]) for row in rows]

    async def remove(self, session_id: SessionId) -> None:
        async with self._database.connection(seconds=REMOVAL_SECONDS) as connection:
            await connection.fetch(_SQL["remove"], session_id, timeout=REMOVAL_SECONDS)

    async def forget_keys(self, limit: int) -> bool:
        return len(await self._database.fetch(_SQL["forget_keys"], timedelta(seconds=KEY_SECONDS), limit)) == limit


def _patch(settings: SessionSettings, cleared: frozenset[str] = frozenset()) -> str:
    """Settings as a JSON object that is laid over another one: null is unset."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return orjson.dumps({name: v for name, v in values.items() if v is not None} | dict.fromkeys(cleared)).decode()


def _entry_from(row: asyncpg.Record) -> SessionEntry:
    owner = None if row["owner"] is None else OwnerId(row["owner"])
    return SessionEntry(
        SessionId(row["id"]), row["seq"], owner, settings_from(row["settings"]), row["created_at"], row["busy"]
    )
