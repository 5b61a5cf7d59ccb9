"""The routes of tasks."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from service.access.callers import Callers
from service.http import auth, bodies, paths
from service.http.problems import Problem
from service.http.sse import answer_stream
from service.registry.follow import Follower
from service.sessions.conversations import Conversations


class TaskRoutes:
    """Read, follow, cancel; and a token to follow with."""

    def __init__(
        self, conversations: Conversations, follower: Follower, callers: Callers, *, write_timeout_seconds: float
    ) -> None:
        self._conversations = conversations
        self._follower = follower
        self._callers = callers
        self._write_timeout_seconds = write_timeout_seconds
        self._streaming: set[asyncio.Task[object]] = set()

    async def read(self, request: web.Request) -> web.Response:
        return bodies.answer(bodies.task_body(await self._conversations.task(paths.task_id(request))))

    async def cancel(self, request: web.Request) -> web.Response:
        task_id = paths.task_id(request)
        await bodies.parse_body(request, bodies.CancelTask)
        task = await self._conversations.cancel(task_id)
        return bodies.answer(bodies.task_body(task), status=200 if task.has_ended else 202)

    async def token(self, request: web.Request) -> web.Response:
        task_id = paths.task_id(request)
        await bodies.parse_body(request, bodies.MintToken)
        task = await self._conversations.task(task_id)
        token = await self._callers.stream_token(auth.caller(request), task.id)
        return bodies.answer(bodies.token_body(task.id, token), status=201)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        task_id, after = paths.task_id(request), paths.position(request)
        on_gap = request.query.getall("on_gap", ["tell"])
        if on_gap not in (["tell"], ["refuse"]):
            raise Problem(422, "validation_error", "on_gap is `tell` or `refuse`.")
        with self._cut_at_the_end():
            return await answer_stream(
                request,
                self._follower.follow(task_id, after),
                refuse_gaps=on_gap == ["refuse"],
                write_timeout_seconds=self._write_timeout_seconds,
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

    async def cut_streams(self, app: web.Application) -> None:
        """Cut every reader off, in mid-stream, as a lost connection does: so it knows that it has to come back."""
        for task in self._streaming:
            task.cancel()
