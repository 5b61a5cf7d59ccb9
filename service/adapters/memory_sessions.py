"""Conversations in memory: the same promises within one process, for embedding and for tests."""

from collections.abc import Sequence
from itertools import islice

from service.adapters.memory_database import MemoryDatabase, MessageRow
from service.model.errors import NotFound, SessionBusy, UnknownMessage
from service.model.events import InputPart
from service.model.ids import MessageId, SessionId
from service.model.session import HISTORY_BYTES, PAGE_BYTES, PAGE_MESSAGES, Message, Posted, Session


class MemorySessions:
    """The port `SessionStore`. Every call is atomic, since nothing in it waits."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    async def create(self) -> Session:
        row = self._database.add_session()
        return Session(row.id, row.created_at, (), busy=False, earlier=False)

    async def read(self, session_id: SessionId, before: MessageId | None = None) -> Session | None:
        row = self._database.sessions.get(session_id)
        if row is None:
            return None
        end = len(row.messages)
        if before is not None:
            place = next((i for i, message in enumerate(row.messages) if message.id == before), None)
            if place is None:
                raise UnknownMessage
            end = place
        page = _newest(row.messages[max(0, end - PAGE_MESSAGES) : end], PAGE_BYTES)
        busy = self._database.is_busy(session_id)
        return Session(session_id, row.created_at, page, busy=busy, earlier=len(page) < end)

    async def history(self, session_id: SessionId) -> Sequence[Message]:
        row = self._database.sessions.get(session_id)
        return [] if row is None else _newest(row.messages, HISTORY_BYTES)

    async def post(self, session_id: SessionId, parts: Sequence[InputPart]) -> Posted:
        database = self._database
        if session_id not in database.sessions:
            raise NotFound
        if database.is_busy(session_id):
            raise SessionBusy
        task = database.add_turn(session_id)
        database.add_message(task.input_id, "user", parts, task)
        return Posted(task.id, task.input_id)


def _newest(rows: Sequence[MessageRow], size_bytes: int) -> tuple[Message, ...]:
    """The newest that fit into so many bytes together, but one in any case; in their order."""
    fitting = 0
    for row in reversed(rows):
        size_bytes -= len(row.parts)
        if size_bytes < 0 and fitting:
            break
        fitting += 1
    return tuple(row.message for row in islice(rows, len(rows) - fitting, None))
