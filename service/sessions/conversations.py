"""Creating conversations, reading them, and posting to them."""

from collections.abc import Sequence

import orjson

from service.model.caller import Reach
from service.model.errors import InvalidInput, NotFound
from service.model.events import InputPart, TextPart
from service.model.ids import MessageId, OwnerId, SessionId, TaskId
from service.model.session import (
    MAX_MESSAGE_BYTES,
    MAX_MESSAGE_JSON_BYTES,
    IdempotencyKey,
    NewMessage,
    Posted,
    Session,
    SessionChange,
    SessionEntry,
    SessionSettings,
)
from service.model.task import CancelRequested, TaskDue
from service.model.trace import CurrentTrace, untraced
from service.sessions.ports import ChatStore, Doorbell, MessageStore, SessionStore


class BlankMessage(InvalidInput):
    """A message needs some text."""


class MessageTooLarge(InvalidInput):
    """A message may have 128 KiB of text."""

    error_type = "message_too_large"


class Conversations:
    """What a door can ask of sessions. What is outside of a caller's reach is NotFound, like what does not exist."""

    def __init__(
        self,
        sessions: SessionStore,
        messages: MessageStore,
        chats: ChatStore,
        doorbell: Doorbell,
        current_trace: CurrentTrace = untraced,
    ) -> None:
        self._sessions = sessions
        self._messages = messages
        self._chats = chats
        self._doorbell = doorbell
        self._current_trace = current_trace

    async def create(
        self, owner: OwnerId | None, settings: SessionSettings, key: IdempotencyKey | None = None
    ) -> SessionEntry:
        """A new, empty session; the same one for a repeat with the same key.

        Raises KeyReused, NotFound (given away).
        """
        return await self._sessions.create(owner, settings, key)

    async def read(self, reach: Reach, session_id: SessionId, before: MessageId | None = None) -> Session:
        """The session with a page of its messages: the newest, or the newest before one of them.

        Raises NotFound, UnknownMessage.
        """
        session = await self._sessions.read(reach, session_id, before)
        if session is None:
            raise NotFound
        return session

    async def newest(self, reach: Reach, limit: int, before: int | None) -> Sequence[SessionEntry]:
        """The newest sessions, of those with a lower number than `before`; the newest first."""
        return await self._sessions.newest(reach, limit, before)

    async def change(self, reach: Reach, session_id: SessionId, change: SessionChange) -> None:
        """Change its settings, or give it its owner. Raises NotFound, SessionOwned; then nothing has changed.

        A turn that is under way goes on as it began.
        """
        if not await self._sessions.change(reach, session_id, change):
            raise NotFound

    async def delete(self, reach: Reach, session_id: SessionId) -> None:
        """Delete the session: from now on nobody finds it, what runs of it is cancelled, and its data goes.

        Raises NotFound, for a repeat too.
        """
        open_tasks = await self._sessions.delete(reach, session_id)
        if open_tasks is None:
            raise NotFound
        for task_id in open_tasks:
            await self._doorbell.ring(CancelRequested(task_id))

    async def post(
        self, reach: Reach, session_id: SessionId, message: NewMessage, key: IdempotencyKey | None = None
    ) -> Posted:
        """Accept a message: queue its turn, and tell workers; or keep it in the mailbox while there is a turn.

        A repeat with the same key changes nothing and is answered alike. Raises BlankMessage, MessageTooLarge,
        NotFound, MailboxFull, MessageExists, KeyReused; then nothing has changed.
        """
        check_said(message.parts)
        posted = await self._messages.post(reach, session_id, message, key, self._current_trace())
        if posted.status == "accepted":
            await self._doorbell.ring(TaskDue())
        return posted

    async def answer_again(
        self, reach: Reach, session_id: SessionId, message_id: MessageId | None, instead: NewMessage | None = None
    ) -> Posted | None:
        """Queue a turn for a message that is there, or the newest of the user's; with other words, if given.

        What came after it is set aside. None where there is no such message. Raises BlankMessage, MessageTooLarge,
        NotFound, SessionBusy; then nothing has changed.
        """
        if instead is not None:
            check_said(instead.parts)
        trace = self._current_trace()
        posted = await self._messages.answer_again(reach, session_id, message_id, instead, trace)
        if posted is not None:
            await self._doorbell.ring(TaskDue())
        return posted

    async def taken_by(self, session_id: SessionId, message_id: MessageId) -> TaskId | None:
        """The task that works on a message, or has; None while it waits in the mailbox. Raises UnknownMessage."""
        return await self._messages.taken_by(session_id, message_id)

    async def current(self, reach: Reach, session_id: SessionId) -> TaskId | None:
        """The session's task that runs, or else the one that is queued; None where it is idle. Raises NotFound."""
        return await self._messages.current(reach, session_id)

    async def open_chat(self, owner: OwnerId | None, chat_id: str) -> SessionId:
        """The owner's session that a chat client calls so, or that has this id; made where there is none."""
        return await self._chats.open(owner, chat_id)

    async def find_chat(self, owner: OwnerId | None, chat_id: str) -> SessionId | None:
        """The same where there is one."""
        return await self._chats.find(owner, chat_id)


def check_said(parts: Sequence[InputPart]) -> None:
    """Raises BlankMessage, MessageTooLarge."""
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    if not any(text.strip() for text in texts):
        raise BlankMessage
    if (
        sum(len(text.encode()) for text in texts) > MAX_MESSAGE_BYTES
        or sum(len(orjson.dumps(text)) for text in texts) > MAX_MESSAGE_JSON_BYTES
    ):
        raise MessageTooLarge
