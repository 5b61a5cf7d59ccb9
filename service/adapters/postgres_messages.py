"""What is said in conversations, and what chat clients call them, in PostgreSQL."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import asyncpg
import orjson

from service.adapters.postgres import Database, reached, statements
from service.model.caller import Reach
from service.model.encoding import plain
from service.model.errors import (
    DatabaseUnavailable,
    KeyReused,
    MailboxFull,
    MessageExists,
    NotFound,
    SessionBusy,
    UnknownMessage,
)
from service.model.ids import MessageId, OwnerId, SessionId, TaskId
from service.model.session import (
    HISTORY_BYTES,
    KEY_SECONDS,
    MAILBOX_MESSAGES,
    History,
    IdempotencyKey,
    Message,
    NewMessage,
    Posted,
    SessionSettings,
)
from service.model.trace import TraceParent

if TYPE_CHECKING:
    from service.adapters.postgres import Connection

HISTORY_MESSAGES: Final = 1000
"""Of a long history, so many are fetched at once."""

SQL: Final = statements("messages")


class PostgresMessages:
    """The ports `MessageStore` and `ChatStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def history(self, session_id: SessionId) -> History:
        newest_first: list[Message] = []
        size, place = 0, None
        async with self._database.connection() as connection:
            settings = settings_from(await connection.fetchval(SQL["settings"], session_id) or "{}")
            while True:
                page = await page_of(connection, session_id, place, HISTORY_MESSAGES, HISTORY_BYTES)
                for row in page:
                    size += row["bytes"]
                    if newest_first and size > HISTORY_BYTES:
                        return History(settings, tuple(newest_first[::-1]))
                    newest_first.append(message_from(row))
                if not has_earlier(page):
                    return History(settings, tuple(newest_first[::-1]))
                place = page[-1]["seq"]

    async def post(
        self,
        reach: Reach,
        session_id: SessionId,
        message: NewMessage,
        key: IdempotencyKey | None = None,
        trace: TraceParent | None = None,
    ) -> Posted:
        name, body_hash = key_columns(key)
        try:
            (row,) = await self._database.fetch(
                SQL["post"],
                session_id,
                *reached(reach),
                [plain(part) for part in message.parts],
                message.id,
                MAILBOX_MESSAGES,
                *("", f"POST /sessions/{session_id}/messages", name, body_hash, float(KEY_SECONDS)),
                trace,
            )
        except asyncpg.UniqueViolationError as error:  # the safety net under the lock of the session
            raise DatabaseUnavailable from error
        match row["outcome"]:
            case "accepted" | "pending" as status:
                return Posted(TaskId(row["task"]), MessageId(row["input"]), status)
            case "repeated":
                return Posted(**row["known"])
            case refused:
                raise _REFUSALS[refused]

    async def answer_again(
        self,
        reach: Reach,
        session_id: SessionId,
        message_id: MessageId | None,
        instead: NewMessage | None = None,
        trace: TraceParent | None = None,
    ) -> Posted | None:
        said = None if instead is None else [plain(part) for part in instead.parts]
        (row,) = await self._database.fetch(SQL["answer_again"], session_id, *reached(reach), said, message_id, trace)
        match row["outcome"]:
            case "accepted":
                return Posted(TaskId(row["task"]), MessageId(row["input"]))
            case "missing":
                return None
            case refused:
                raise _REFUSALS[refused]

    async def taken_by(self, session_id: SessionId, message_id: MessageId) -> TaskId | None:
        row = await self._database.fetchrow(SQL["taken_by"], session_id, message_id)
        if row is None:
            raise UnknownMessage
        return None if row["task_id"] is None else TaskId(row["task_id"])

    async def current(self, reach: Reach, session_id: SessionId) -> TaskId | None:
        row = await self._database.fetchrow(SQL["current"], session_id, *reached(reach))
        if row is None:
            raise NotFound
        return None if row["task"] is None else TaskId(row["task"])

    async def open(self, owner: OwnerId | None, chat_id: str) -> SessionId:
        while (found := await self.find(owner, chat_id)) is None:
            if rows := await self._database.fetch(SQL["make_chat"], owner, chat_id):
                return SessionId(rows[0]["id"])
        return found

    async def find(self, owner: OwnerId | None, chat_id: str) -> SessionId | None:
        row = await self._database.fetchrow(SQL["find_chat"], owner, chat_id)
        return None if row is None else SessionId(row["id"])


_REFUSALS: Final[Mapping[str, type[Exception]]] = {
    "unknown": NotFound,
    "mismatched": KeyReused,
    "taken": MessageExists,
    "full": MailboxFull,
    "busy": SessionBusy,
}
"""What the functions of the schema say of what they have not done."""


def key_columns(key: IdempotencyKey | None) -> tuple[str | None, bytes | None]:
    """A key's name and its body's hash, as statements take them."""
    return (None, None) if key is None else (key.name, key.body_sha256)


def settings_from(text: str) -> SessionSettings:
    """Settings as they are stored."""
    stored = orjson.loads(text)
    tools = stored.pop("tools", None)
    return SessionSettings(**stored, tools=None if tools is None else tuple(tools))


async def page_of(
    connection: "Connection", session_id: SessionId, place: int | None, messages: int, size_bytes: int
) -> list[asyncpg.Record]:
    """The newest messages before a place, or of all, the newest first."""
    return await connection.fetch(SQL["page"], session_id, place, messages, size_bytes)


def has_earlier(page: Sequence[asyncpg.Record]) -> bool:
    """Whether there are messages before those of a page."""
    return bool(page) and page[0]["seen"] > len(page)


def message_from(row: asyncpg.Record) -> Message:
    """The message that a row says."""
    return Message(MessageId(row["id"]), row["role"], tuple(row["parts"]), TaskId(row["task_id"]), row["created_at"])
