"""Conversations in PostgreSQL."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import asyncpg

from service.adapters.postgres import Database, statements
from service.model.encoding import plain
from service.model.errors import NotFound, SessionBusy, UnknownMessage
from service.model.events import InputPart
from service.model.ids import MessageId, SessionId, TaskId
from service.model.session import HISTORY_BYTES, PAGE_BYTES, PAGE_MESSAGES, Message, Posted, Session

if TYPE_CHECKING:
    from service.adapters.postgres import Connection

HISTORY_MESSAGES: Final = 1000
"""Of a long history, so many are fetched at once."""

_SQL: Final = statements("sessions")


class PostgresSessions:
    """The port `SessionStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self) -> Session:
        (row,) = await self._database.fetch(_SQL["create"])
        return Session(SessionId(row["id"]), row["created_at"], (), busy=False, earlier=False)

    async def read(self, session_id: SessionId, before: MessageId | None = None) -> Session | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_SQL["read"], session_id)
            if row is None:
                return None
            place = None
            if before is not None:
                place = await connection.fetchval(_SQL["place"], session_id, before)
                if place is None:
                    raise UnknownMessage
            page = await _page(connection, session_id, place, PAGE_MESSAGES, PAGE_BYTES)
        messages = tuple(_message_from(each) for each in reversed(page))
        return Session(session_id, row["created_at"], messages, busy=row["busy"], earlier=_has_earlier(page))

    async def history(self, session_id: SessionId) -> Sequence[Message]:
        newest_first: list[Message] = []
        size, place = 0, None
        async with self._database.connection() as connection:
            while True:
                page = await _page(connection, session_id, place, HISTORY_MESSAGES, HISTORY_BYTES)
                for row in page:
                    size += row["bytes"]
                    if newest_first and size > HISTORY_BYTES:
                        return newest_first[::-1]
                    newest_first.append(_message_from(row))
                if not _has_earlier(page):
                    return newest_first[::-1]
                place = page[-1]["seq"]

    async def post(self, session_id: SessionId, parts: Sequence[InputPart]) -> Posted:
        try:
            (row,) = await self._database.fetch(_SQL["post"], session_id, [plain(part) for part in parts])
        except asyncpg.UniqueViolationError as error:  # the safety net: another post was faster
            raise SessionBusy from error
        if not row["is_known"]:
            raise NotFound
        if row["task_id"] is None:
            raise SessionBusy
        return Posted(TaskId(row["task_id"]), MessageId(row["input_id"]))


async def _page(
    connection: "Connection", session_id: SessionId, place: int | None, messages: int, size_bytes: int
) -> list[asyncpg.Record]:
    """The newest messages before a place, or of all, the newest first."""
    return await connection.fetch(_SQL["messages"], session_id, place, messages, size_bytes)


def _has_earlier(page: list[asyncpg.Record]) -> bool:
    return bool(page) and page[0]["seen"] > len(page)


def _message_from(row: asyncpg.Record) -> Message:
    return Message(MessageId(row["id"]), row["role"], tuple(row["parts"]), TaskId(row["task_id"]), row["created_at"])
