"""Creating conversations, reading them, and posting to them."""

from collections.abc import Sequence

import orjson

from service.model.errors import InvalidInput, NotFound
from service.model.events import InputPart, TextPart
from service.model.ids import MessageId, SessionId, TaskId
from service.model.session import MAX_MESSAGE_BYTES, MAX_MESSAGE_JSON_BYTES, Posted, Session
from service.model.task import CancelRequested, Task, TaskDue
from service.sessions.ports import Doorbell, SessionStore, TaskStore


class BlankMessage(InvalidInput):
    """A message needs some text."""


class MessageTooLarge(InvalidInput):
    """A message may have 128 KiB of text."""

    error_type = "message_too_large"


class Conversations:
    """What a door can ask of sessions and their tasks."""

    def __init__(self, store: SessionStore, tasks: TaskStore, doorbell: Doorbell) -> None:
        self._store = store
        self._tasks = tasks
        self._doorbell = doorbell

    async def create(self) -> Session:
        """A new, empty session."""
        return await self._store.create()

    async def read(self, session_id: SessionId, before: MessageId | None = None) -> Session:
        """The session with a page of its messages: the newest, or the newest before one of them.

        Raises NotFound, UnknownMessage.
        """
        session = await self._store.read(session_id, before)
        if session is None:
            raise NotFound
        return session

    async def post(self, session_id: SessionId, parts: Sequence[InputPart]) -> Posted:
        """Accept a message and queue its turn; workers are told.

        Raises BlankMessage, MessageTooLarge, NotFound, SessionBusy; then nothing has changed.
        """
        texts = [part.text for part in parts if isinstance(part, TextPart)]
        if not any(text.strip() for text in texts):
            raise BlankMessage
        if (
            sum(len(text.encode()) for text in texts) > MAX_MESSAGE_BYTES
            or sum(len(orjson.dumps(text)) for text in texts) > MAX_MESSAGE_JSON_BYTES
        ):
            raise MessageTooLarge
        posted = await self._store.post(session_id, parts)
        await self._doorbell.ring(TaskDue())
        return posted

    async def task(self, task_id: TaskId) -> Task:
        """The task as it stands. Raises NotFound."""
        return _there(await self._tasks.read(task_id))

    async def cancel(self, task_id: TaskId) -> Task:
        """Have the task ended as cancelled, unless it has ended; workers are told. Answers the task as it stands.

        Its log says when it has ended: within seconds where its worker lives and reaches both stores; where it is dead,
        when its lease has lapsed. A repeat is harmless. Raises NotFound.
        """
        task = _there(await self._tasks.cancel(task_id))
        if not task.has_ended:
            await self._doorbell.ring(CancelRequested(task_id))
        return task


def _there(task: Task | None) -> Task:
    if task is None:
        raise NotFound
    return task
