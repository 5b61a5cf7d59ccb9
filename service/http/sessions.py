"""The routes of sessions."""

from aiohttp import web

from service.http import bodies, paths
from service.sessions.conversations import Conversations


class SessionRoutes:
    """Create, read, post."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    async def create(self, request: web.Request) -> web.Response:
        await bodies.parse_body(request, bodies.CreateSession)
        session = await self._conversations.create()
        return bodies.answer(bodies.session_body(session), status=201)

    async def read(self, request: web.Request) -> web.Response:
        session = await self._conversations.read(paths.session_id(request), paths.before(request))
        return bodies.answer(bodies.session_body(session))

    async def post(self, request: web.Request) -> web.Response:
        session_id = paths.session_id(request)
        message = await bodies.parse_body(request, bodies.PostMessage)
        posted = await self._conversations.post(session_id, message.input_parts())
        body = {
            "task_id": posted.task_id,
            "message_id": posted.message_id,
            "status": "accepted",
            "stream": bodies.stream_path(posted.task_id),
        }
        return bodies.answer(body, status=202)
