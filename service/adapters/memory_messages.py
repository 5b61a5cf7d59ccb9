"""What is said in conversations, and what chat clients call them, in memory."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import islice

from service.adapters.memory_database import KeyRow, MemoryDatabase, MessageRow, PendingRow, SessionRow, stored
from service.model.caller import Reach
from service.model.errors import KeyReused, MailboxFull, MessageExists, NotFound, SessionBusy, UnknownMessage
from service.model.ids import MessageId, OwnerId, SessionId, TaskId
from service.model.session import (
    HISTORY_BYTES,
    KEY_SECONDS,
    MAILBOX_MESSAGES,
    UNSET,
    History,
    IdempotencyKey,
    Message,
    NewMessage,
    Posted,
)
from service.model.trace import TraceParent


class MemoryMessages:
    """The ports `MessageStore` and `ChatStore`. Every call is atomic, since nothing in it waits."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    async def history(self, session_id: SessionId) -> History:
        row = self._database.sessions.get(session_id)
        return (
            History(UNSET, ()) if row is None else History(row.settings, newest_that_fit(row.messages, HISTORY_BYTES))
        )

    async def post(
        self,
        reach: Reach,
        session_id: SessionId,
        message: NewMessage,
        key: IdempotencyKey | None = None,
        trace: TraceParent | None = None,
    ) -> Posted:
        row = self._found(reach, session_id)
        if key is None:
            return self._post(row, message, trace)
        known, now = row.keys.get(key.name), self._database.now()
        if known is None or known.created_at < now - timedelta(seconds=KEY_SECONDS):
            row.keys[key.name] = known = KeyRow(key.body_sha256, self._post(row, message, trace), now)
        if known.body_sha256 != key.body_sha256 or not isinstance(known.answer, Posted):
            raise KeyReused
        return known.answer

    def _found(self, reach: Reach, session_id: SessionId) -> SessionRow:
        row = self._database.session(reach, session_id)
        if row is None:
            raise NotFound
        return row

    def _post(self, row: SessionRow, message: NewMessage, trace: TraceParent | None) -> Posted:
        database = self._database
        message_id = message.id or MessageId(database.new_id())
        turn = database.open_turn(row.id)
        taken = {*(said.id for said in row.messages), *(waiting.id for waiting in row.pending)}
        if message_id in taken | {task.answer_id for task in database.open_tasks(row.id)}:
            raise MessageExists
        if turn is None:
            begun = database.begin_turn(row.id, message_id, stored(message.parts), database.now(), trace)
            return Posted(begun.id, message_id, "accepted")
        if len(row.pending) >= MAILBOX_MESSAGES:
            raise MailboxFull
        row.pending.append(PendingRow(message_id, stored(message.parts), database.now(), trace))
        return Posted(turn.id, message_id, "pending")

    async def answer_again(
        self,
        reach: Reach,
        session_id: SessionId,
        message_id: MessageId | None,
        instead: NewMessage | None = None,
        trace: TraceParent | None = None,
    ) -> Posted | None:
        database, row = self._database, self._found(reach, session_id)
        if database.open_turn(session_id) is not None:
            raise SessionBusy
        asked = [each for each in row.messages if each.role == "user" and message_id in (None, each.id)]
        if not asked:
            return None
        said = asked[-1]
        place = row.messages.index(said)
        parts, said_at = (said.parts, said.created_at) if instead is None else (stored(instead.parts), database.now())
        set_aside = row.messages[place:]
        del row.messages[place:]
        task = database.begin_turn(session_id, said.id, parts, said_at, trace)
        row.set_aside[task.id] = set_aside
        return Posted(task.id, said.id)

    async def taken_by(self, session_id: SessionId, message_id: MessageId) -> TaskId | None:
        row = self._database.sessions.get(session_id)
        if row is not None and any(waiting.id == message_id for waiting in row.pending):
            return None
        said = {} if row is None else {message.id: message.task_id for message in row.messages}
        answering = [
            task.task.id
            for task in self._database.tasks.values()
            if (task.task.session_id, task.task.input_id) == (session_id, message_id)
        ]
        if message_id not in said and not answering:
            raise UnknownMessage
        return said.get(message_id) or answering[-1]

    async def current(self, reach: Reach, session_id: SessionId) -> TaskId | None:
        turn = self._database.open_turn(self._found(reach, session_id).id)
        return None if turn is None else turn.id

    async def open(self, owner: OwnerId | None, chat_id: str) -> SessionId:
        return await self.find(owner, chat_id) or self._database.add_session(owner, UNSET, chat_id).id

    async def find(self, owner: OwnerId | None, chat_id: str) -> SessionId | None:
        own = [row for row in self._database.sessions.values() if row.owner == owner and row.deleted_at is None]
        named = [row for row in own if row.chat_id == chat_id] or [row for row in own if row.id == chat_id]
        return named[0].id if named else None


def newest_that_fit(rows: Sequence[MessageRow], size_bytes: int) -> tuple[Message, ...]:
    """The newest that fit into so many bytes together, but one in any case; in their order."""
    fitting = 0
    for row in reversed(rows):
        size_bytes -= len(row.parts)
        if size_bytes < 0 and fitting:
            break
        fitting += 1
    return tuple(row.message for row in islice(rows, len(rows) - fitting, None))
