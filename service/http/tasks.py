"""The routes of tasks."""

from typing import get_args

from aiohttp import web

from service.access.callers import Callers
from service.http import answers, auth, bodies, paths
from service.http.streams import Streams
from service.model.ids import OwnerId, SessionId
from service.model.task import TaskFilter, TaskKind, TaskStatus
from service.sessions.tasks import Tasks


class TaskRoutes:
    """List, read, follow, cancel; and a token to follow with."""

    def __init__(self, tasks: Tasks, streams: Streams, callers: Callers) -> None:
        self._tasks = tasks
        self._streams = streams
        self._callers = callers

    async def newest(self, request: web.Request) -> web.Response:
        limit, before, wanted = paths.limit(request), paths.number(request, "before"), _wanted(request)
        tasks = await self._tasks.newest(auth.reach(request), wanted, limit, before)
        earlier = None
        if len(tasks) == limit:
            earlier = str(request.rel_url.update_query(limit=str(limit), before=str(tasks[-1].number)))
        listed: answers.TaskList = {"tasks": [bodies.task_body(task) for task in tasks], "earlier": earlier}
        return bodies.answer(listed)

    async def read(self, request: web.Request) -> web.Response:
        return bodies.answer(bodies.task_body(await self._tasks.read(auth.reach(request), paths.task_id(request))))

    async def cancel(self, request: web.Request) -> web.Response:
        task_id = paths.task_id(request)
        await bodies.parse_body(request, bodies.CancelTask)
        task = await self._tasks.cancel(auth.reach(request), task_id)
        return bodies.answer(bodies.task_body(task), status=200 if task.has_ended else 202)

    async def token(self, request: web.Request) -> web.Response:
        task_id = paths.task_id(request)
        await bodies.parse_body(request, bodies.MintToken)
        task = await self._tasks.read(auth.reach(request), task_id)
        token = await self._callers.stream_token(auth.caller(request), task.id)
        return bodies.answer(bodies.token_body(task.id, token), status=201)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        task_id, after = paths.task_id(request), paths.position(request)
        on_gap = paths.choice(request, "on_gap", ("tell", "refuse"))
        await self._tasks.check_reach(auth.reach(request), task_id)
        return await self._streams.answer(request, task_id, after, on_gap="refuse" if on_gap == "refuse" else "tell")


def _wanted(request: web.Request) -> TaskFilter:
    status = paths.choice(request, "status", get_args(TaskStatus))
    kind = paths.choice(request, "kind", get_args(TaskKind))
    session_id, owner = paths.text(request, "session"), paths.text(request, "owner")
    return TaskFilter(
        next((each for each in get_args(TaskStatus) if each == status), None),
        next((each for each in get_args(TaskKind) if each == kind), None),
        None if session_id is None else SessionId(session_id),
        None if owner is None else OwnerId(owner),
    )
