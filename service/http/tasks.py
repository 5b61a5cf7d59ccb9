"""The routes of tasks."""

from aiohttp import web

from service.http import bodies, paths
from service.http.problems import Problem
from service.http.sse import answer_stream
from service.model.errors import NotFound
from service.registry.follow import Follower
from service.registry.ports import TaskDirectory
from service.sessions.conversations import Conversations


class TaskRoutes:
    """Read, follow."""

    def __init__(
        self,
        conversations: Conversations,
        directory: TaskDirectory,
        follower: Follower,
        *,
        write_timeout_seconds: float,
    ) -> None:
        self._conversations = conversations
        self._directory = directory
        self._follower = follower
        self._write_timeout_seconds = write_timeout_seconds

    async def read(self, request: web.Request) -> web.Response:
        return bodies.answer(bodies.task_body(await self._conversations.task(paths.task_id(request))))

    async def stream(self, request: web.Request) -> web.StreamResponse:
        task_id, after = paths.task_id(request), paths.position(request)
        on_gap = request.query.getall("on_gap", ["tell"])
        if on_gap not in (["tell"], ["refuse"]):
            raise Problem(422, "validation_error", "on_gap is `tell` or `refuse`.")
        if await self._directory.facts(task_id) is None:
            raise NotFound
        return await answer_stream(
            request,
            self._follower.follow(task_id, after),
            refuse_gaps=on_gap == ["refuse"],
            write_timeout_seconds=self._write_timeout_seconds,
        )
