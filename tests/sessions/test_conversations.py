"""Conversations: what is refused before a database is asked, and when workers are told."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager

import pytest

from service.adapters.postgres import Database
from service.adapters.postgres_sessions import PostgresSessions
from service.model.errors import NotFound, PlayheadError, SessionBusy
from service.model.events import TextPart
from service.model.ids import SessionId, TaskId
from service.sessions.conversations import BlankMessage, Conversations, MessageTooLarge

KIB = 1024


class Bell:
    """The port `Doorbell`: notes what the database held when it rang."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.queued: list[int] = []

    async def ring(self) -> None:
        rows = await self._database.fetch("SELECT count(*) FROM tasks WHERE status = 'queued'")
        self.queued.append(rows[0][0])

    def listen(self) -> AbstractAsyncContextManager[AsyncGenerator[None]]:
        raise NotImplementedError


@pytest.fixture
def bell(database: Database) -> Bell:
    return Bell(database)


@pytest.fixture
def conversations(database: Database, bell: Bell) -> Conversations:
    return Conversations(PostgresSessions(database), bell)


async def test_workers_are_told_after_the_message_is_stored(conversations: Conversations, bell: Bell) -> None:
    session = await conversations.create()
    await conversations.post(session.id, [TextPart("Hi")])
    assert bell.queued == [1]


BLANK = ["", " ", "\t\r\n", "\u00a0\u2003\u3000", "\x1c\x1d\x85"]
TOO_LARGE = {
    "a byte too many": ["x" * (128 * KIB + 1)],
    "in several parts": ["x" * 64 * KIB, "x" * 64 * KIB, "x"],
    "in UTF-8": ["\u20ac" * (128 * KIB // 3 + 1)],
    "as JSON": ["\x00" * 32 * KIB],
    "quotes as JSON": ['"' * 100 * KIB],
}
FITTING = {
    "exactly": ["x" * 128 * KIB],
    "exactly, in two parts": ["x" * 64 * KIB, "x" * 64 * KIB],
    "exactly, in UTF-8": ["\U0001f680" * 32 * KIB],
    "almost 192 KiB as JSON": ["\x00" * (32 * KIB - 1)],
    "one part is blank": ["", "x"],
}
REFUSED: list[tuple[Sequence[str], type[PlayheadError]]] = [
    *(([text], BlankMessage) for text in BLANK),
    (BLANK, BlankMessage),
    ([], BlankMessage),
    *((texts, MessageTooLarge) for texts in TOO_LARGE.values()),
]


@pytest.mark.parametrize(("texts", "error"), REFUSED)
async def test_what_is_refused_is_not_stored_and_nobody_is_told(
    conversations: Conversations, bell: Bell, texts: list[str], error: type[PlayheadError]
) -> None:
    session = await conversations.create()
    with pytest.raises(error):
        await conversations.post(session.id, [TextPart(text) for text in texts])
    assert await conversations.read(session.id) == session
    assert bell.queued == []


@pytest.mark.parametrize("texts", FITTING.values(), ids=FITTING.keys())
async def test_what_just_fits_is_stored_whole(conversations: Conversations, texts: list[str]) -> None:
    session = await conversations.create()
    await conversations.post(session.id, [TextPart(text) for text in texts])
    (message,) = (await conversations.read(session.id)).messages
    assert [part["text"] for part in message.parts] == texts


async def test_a_busy_session_refuses_and_nobody_is_told(conversations: Conversations, bell: Bell) -> None:
    session = await conversations.create()
    await conversations.post(session.id, [TextPart("Hi")])
    with pytest.raises(SessionBusy):
        await conversations.post(session.id, [TextPart("Hi")])
    assert len(bell.queued) == 1


async def test_what_does_not_exist_is_not_found(conversations: Conversations, bell: Bell) -> None:
    with pytest.raises(NotFound):
        await conversations.read(SessionId("nobody's"))
    with pytest.raises(NotFound):
        await conversations.post(SessionId("nobody's"), [TextPart("Hi")])
    with pytest.raises(NotFound):
        await conversations.task(TaskId("01890000-0000-7000-8000-000000000000"))
    assert bell.queued == []
