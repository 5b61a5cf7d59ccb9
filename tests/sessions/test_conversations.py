"""Conversations: what is refused before a database is asked, and when workers are told."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager

import pytest

from service.adapters.postgres import Database
from service.adapters.postgres_messages import PostgresMessages
from service.adapters.postgres_sessions import PostgresSessions
from service.adapters.postgres_tasks import PostgresTasks
from service.model.caller import EVERYONES
from service.model.errors import NotFound, PlayheadError
from service.model.events import TextPart
from service.model.ids import SessionId, TaskId
from service.model.session import UNSET, NewMessage, Session
from service.model.task import CancelRequested, Rung, TaskDue
from service.sessions.conversations import BlankMessage, Conversations, MessageTooLarge
from service.sessions.tasks import Tasks

KIB = 1024


class Bell:
    """The port `Doorbell`: notes what was rung, and what the database held then."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.queued: list[int] = []
        self.to_be_cancelled: list[int] = []
        self.rung: list[Rung] = []

    async def ring(self, rung: Rung) -> None:
        self.rung.append(rung)
        rows = await self._database.fetch("SELECT count(*) FROM tasks WHERE cancel_requested_at IS NOT NULL")
        self.to_be_cancelled.append(rows[0][0])
        rows = await self._database.fetch("SELECT count(*) FROM tasks WHERE status = 'queued'")
        self.queued.append(rows[0][0])

    def listen(self) -> AbstractAsyncContextManager[AsyncGenerator[Rung]]:
        raise NotImplementedError


@pytest.fixture
def bell(database: Database) -> Bell:
    return Bell(database)


@pytest.fixture
def conversations(database: Database, bell: Bell) -> Conversations:
    messages = PostgresMessages(database)
    return Conversations(PostgresSessions(database), messages, messages, bell)


@pytest.fixture
def tasks(database: Database, bell: Bell) -> Tasks:
    return Tasks(PostgresTasks(database), bell)


def said(*texts: str) -> NewMessage:
    return NewMessage(tuple(TextPart(text) for text in texts))


async def test_workers_are_told_after_the_message_is_stored(conversations: Conversations, bell: Bell) -> None:
    session = await conversations.create(None, UNSET)
    await conversations.post(EVERYONES, session.id, said("Hi"))
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
    session = await conversations.create(None, UNSET)
    with pytest.raises(error):
        await conversations.post(EVERYONES, session.id, said(*texts))
    assert await conversations.read(EVERYONES, session.id) == Session(session, (), (), earlier=False)
    assert bell.queued == []


@pytest.mark.parametrize("texts", FITTING.values(), ids=FITTING.keys())
async def test_what_just_fits_is_stored_whole(conversations: Conversations, texts: list[str]) -> None:
    session = await conversations.create(None, UNSET)
    await conversations.post(EVERYONES, session.id, said(*texts))
    (message,) = (await conversations.read(EVERYONES, session.id)).messages
    assert [part["text"] for part in message.parts] == texts


async def test_nobody_is_told_of_a_message_that_waits(conversations: Conversations, bell: Bell) -> None:
    session = await conversations.create(None, UNSET)
    await conversations.post(EVERYONES, session.id, said("Hi"))
    assert (await conversations.post(EVERYONES, session.id, said("Hi"))).status == "pending"
    assert len(bell.queued) == 1


async def test_a_blank_message_is_no_other_wording(conversations: Conversations, bell: Bell) -> None:
    session = await conversations.create(None, UNSET)
    posted = await conversations.post(EVERYONES, session.id, said("Hi"))
    with pytest.raises(BlankMessage):
        await conversations.answer_again(EVERYONES, session.id, posted.message_id, said(" "))


async def test_what_runs_of_a_deleted_session_is_to_be_cancelled(conversations: Conversations, bell: Bell) -> None:
    session = await conversations.create(None, UNSET)
    posted = await conversations.post(EVERYONES, session.id, said("Hi"))
    await conversations.delete(EVERYONES, session.id)
    assert bell.rung == [TaskDue(), CancelRequested(posted.task_id)]
    assert bell.to_be_cancelled == [0, 1]
    with pytest.raises(NotFound):
        await conversations.delete(EVERYONES, session.id)


async def test_what_does_not_exist_is_not_found(conversations: Conversations, tasks: Tasks, bell: Bell) -> None:
    with pytest.raises(NotFound):
        await conversations.read(EVERYONES, SessionId("nobody's"))
    with pytest.raises(NotFound):
        await conversations.post(EVERYONES, SessionId("nobody's"), said("Hi"))
    with pytest.raises(NotFound):
        await tasks.read(EVERYONES, TaskId("01890000-0000-7000-8000-000000000000"))
    assert bell.queued == []


async def test_workers_are_told_of_a_cancellation_after_it_is_stored(
    conversations: Conversations, tasks: Tasks, bell: Bell
) -> None:
    session = await conversations.create(None, UNSET)
    posted = await conversations.post(EVERYONES, session.id, said("Hi"))
    await tasks.cancel(EVERYONES, posted.task_id)
    assert bell.rung == [TaskDue(), CancelRequested(posted.task_id)]
    assert bell.to_be_cancelled == [0, 1]


async def test_nobody_is_told_to_cancel_what_has_ended(
    conversations: Conversations, tasks: Tasks, bell: Bell, database: Database
) -> None:
    session = await conversations.create(None, UNSET)
    posted = await conversations.post(EVERYONES, session.id, said("Hi"))
    await database.fetch("UPDATE tasks SET status = 'succeeded', ending = '[]'")
    assert (await tasks.cancel(EVERYONES, posted.task_id)).has_ended
    assert bell.rung == [TaskDue()]
