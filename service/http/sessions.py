"""The routes of sessions."""

from aiohttp import web

from service.http import answers, auth, bodies, paths
from service.http.streams import Streams
from service.model.position import BEGINNING
from service.sessions.conversations import Conversations
from service.sessions.tasks import Tasks


class SessionRoutes:
    """Create, list, read, change, delete; post; follow what runs."""

    def __init__(self, conversations: Conversations, tasks: Tasks, streams: Streams) -> None:
        self._conversations = conversations
        self._tasks = tasks
        self._streams = streams

    async def create(self, request: web.Request) -> web.Response:
        raw = await bodies.read_body(request)
        settings = bodies.parse(raw, bodies.CreateSession).settings()
        entry = await self._conversations.create(
            auth.caller(request).owner, settings, paths.idempotency_key(request, raw)
        )
        return bodies.answer(bodies.settled_body(entry), status=201)

    async def newest(self, request: web.Request) -> web.Response:
        limit, before = paths.limit(request), paths.number(request, "before")
        entries = await self._conversations.newest(auth.reach(request), limit, before)
        earlier = f"/sessions?limit={limit}&before={entries[-1].number}" if len(entries) == limit else None
        listed: answers.SessionList = {"sessions": [bodies.entry_body(entry) for entry in entries], "earlier": earlier}
        return bodies.answer(listed)

    async def read(self, request: web.Request) -> web.Response:
        session_id, before = paths.session_id(request), paths.before(request)
        return bodies.answer(
            bodies.session_body(await self._conversations.read(auth.reach(request), session_id, before))
        )

    async def change(self, request: web.Request) -> web.Response:
        session_id = paths.session_id(request)
        change = (await bodies.parse_body(request, bodies.ChangeSession)).change()
        await self._conversations.change(auth.reach(request), session_id, change)
        return web.Response(status=204)

    async def delete(self, request: web.Request) -> web.Response:
        await self._conversations.delete(auth.reach(request), paths.session_id(request))
        return web.Response(status=204)

    async def post(self, request: web.Request) -> web.StreamResponse:
        session_id, streams = paths.session_id(request), paths.choice(request, "stream", ("1",)) is not None
        raw = await bodies.read_body(request)
        message, key = bodies.parse(raw, bodies.PostMessage).message(), paths.idempotency_key(request, raw)
        posted = await self._conversations.post(auth.reach(request), session_id, message, key)
        if streams:
            return await self._streams.answer_taken(request, session_id, posted.message_id)
        return bodies.answer(bodies.posted_body(posted), status=202)

    async def tasks(self, request: web.Request) -> web.Response:
        session_id, limit, after = paths.session_id(request), paths.limit(request), paths.number(request, "after") or 0
        tasks = await self._tasks.of_session(auth.reach(request), session_id, limit, after)
        cursor = tasks[-1].number if tasks else after
        body: answers.SessionTasks = {
            "tasks": [bodies.task_body(task) for task in tasks],
            "later": f"/sessions/{session_id}/tasks?limit={limit}&after={cursor}",
        }
        return bodies.answer(body)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        session_id = paths.session_id(request)
        task_id = await self._conversations.current(auth.reach(request), session_id)
        if task_id is None:
            return web.Response(status=204)
        return await self._streams.answer(request, task_id, BEGINNING, on_gap="tell")
