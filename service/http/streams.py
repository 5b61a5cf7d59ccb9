"""The streams of this process: answering with a log, and cutting all of them at the end."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Final

from aiohttp import web

from service.http.answered import from_the_answer
from service.http.sse import OnGap, answer_stream
from service.http.tracing import Tracer, traced
from service.model.errors import NotFound, StoreUnavailable, UnknownMessage
from service.model.ids import MessageId, SessionId, TaskId
from service.model.position import BEGINNING, Position
from service.registry.follow import Begun, Followed, Follower, Heartbeat
from service.sessions.conversations import Conversations

LOOK_SECONDS: Final = 0.2
MAX_LOOK_SECONDS: Final = 1.0
"""Between two looks whether a message in the mailbox was taken; the pause doubles up to this."""


class Streams:
    """Answers requests with streams."""

    def __init__(
        self,
        follower: Follower,
        conversations: Conversations,
        *,
        heartbeat_seconds: float,
        write_timeout_seconds: float,
        note_gap: Callable[[], None],
        tracer: Tracer | None = None,
    ) -> None:
        self._follower = follower
        self._conversations = conversations
        self._heartbeat_seconds = heartbeat_seconds
        self._write_timeout_seconds = write_timeout_seconds
        self._note_gap = note_gap
        self._tracer = tracer
        self._streaming: set[asyncio.Task[object]] = set()

    @property
    def open_streams(self) -> int:
        """How many readers follow a log here."""
        return len(self._streaming)

    async def answer(
        self, request: web.Request, task_id: TaskId, after: Position, *, on_gap: OnGap
    ) -> web.StreamResponse:
        """The task's log from a position on. That the caller may follow it has been checked."""
        return await self._send(request, self._follower.follow(task_id, after), on_gap)

    async def answer_taken(
        self, request: web.Request, session_id: SessionId, message_id: MessageId, *, on_gap: OnGap = "tell"
    ) -> web.StreamResponse:
        """The whole log of the task that takes a message; heartbeats until it is known which one that is."""
        find = partial(self._conversations.taken_by, session_id, message_id)
        return await self._send(request, self._found(find), on_gap)

    async def answer_answered(
        self, request: web.Request, opening: bytes, task_ids: Sequence[TaskId]
    ) -> web.StreamResponse:
        """Behind `opening` the logs of operations that a person has answered, each from the answer on.

        One stands behind the other, and all have one ending, which is the last one's.
        """
        return await self._send(request, self._answered(task_ids), "cut", opening)

    async def _answered(self, task_ids: Sequence[TaskId]) -> AsyncGenerator[Followed]:
        for task_id in task_ids:
            log = self._found(partial(_known, task_id), has_begun=task_id != task_ids[0])
            async with aclosing(from_the_answer(log, is_last=task_id == task_ids[-1])) as items:
                async for item in items:
                    yield item

    async def _found(
        self, find: Callable[[], Awaitable[TaskId | None]], *, has_begun: bool = False
    ) -> AsyncGenerator[Followed]:
        """The log of the task that is found, once it is.

        Stores that are away are waited for: what is answered as refused would be posted again, and it is taken.
        """
        now = asyncio.get_running_loop().time
        pause, beat_at = LOOK_SECONDS, now() + self._heartbeat_seconds
        while True:
            try:
                task_id = await find()
                if task_id is not None:
                    async with aclosing(self._follower.follow(task_id, BEGINNING)) as items:
                        async for item in items:
                            yield item
                    return
            except StoreUnavailable:
                pass
            except (UnknownMessage, NotFound):
                if not has_begun:
                    raise
                return  # its session was deleted
            if not has_begun:
                yield Begun(None, None)
                has_begun = True
            elif now() >= beat_at:
                yield Heartbeat()
                beat_at = now() + self._heartbeat_seconds
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_LOOK_SECONDS)

    async def _send(
        self, request: web.Request, items: AsyncGenerator[Followed], on_gap: OnGap, opening: bytes = b""
    ) -> web.StreamResponse:
        with self._cut_at_the_end():
            return await answer_stream(
                request,
                items if self._tracer is None else traced(items, self._tracer),
                on_gap=on_gap,
                write_timeout_seconds=self._write_timeout_seconds,
                note_gap=self._note_gap,
                opening=opening,
            )

    @contextmanager
    def _cut_at_the_end(self) -> Iterator[None]:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request is handled by a task")
        self._streaming.add(task)
        try:
            yield
        finally:
            self._streaming.discard(task)

    async def cut(self, app: web.Application) -> None:
        """Cut every reader off, in mid-stream, as a lost connection does: so it knows that it has to come back."""
        for task in self._streaming:
            task.cancel()


async def _known(task_id: TaskId) -> TaskId:
    return task_id
