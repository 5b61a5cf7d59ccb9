"""The routes of the AI SDK: what `useChat({resume: true})` of npm `ai` 7 asks.

A chat's id is its owner's name for a session. One stream carries one message, whole or not at all: the hook takes what
ends for finished, and cannot begin in the middle. It shows the body of an error as it is, so that is plain text.
"""

from contextlib import suppress
from typing import Final, assert_never

import orjson
from aiohttp import web

from service.http import auth, bodies, paths
from service.http.chat_bodies import MAX_CHAT_BYTES, Again, Answered, GoOn, NewestAgain, Submit, parse_chat
from service.http.problems import MEDIA_TYPE, Handler, Problem
from service.http.sse import DONE, HEADERS
from service.http.streams import Streams
from service.model.encoding import plain
from service.model.errors import InvalidInput, MessageExists, NotAsked, NotFound, SessionBusy
from service.model.ids import MessageId, SessionId, TaskId
from service.model.operation import Delivery
from service.model.position import BEGINNING
from service.model.session import NewMessage, Session
from service.operations.operations import Operations
from service.sessions.conversations import Conversations, check_said
from service.sessions.tasks import Tasks

CHAT: Final = "/api/chat"

NO_APPROVAL: Final = (
    "This operation does not wait for a yes or a no. A question of the tool `ask` is answered with "
    '`POST /operations/{operation_id}/approve` and `{"answer": …}`.'
)


class ChatRoutes:
    """Post, answer, follow what runs, stop it."""

    def __init__(self, conversations: Conversations, tasks: Tasks, operations: Operations, streams: Streams) -> None:
        self._conversations = conversations
        self._tasks = tasks
        self._operations = operations
        self._streams = streams

    async def post(self, request: web.Request) -> web.StreamResponse:
        match parse_chat(await bodies.read_body(request, MAX_CHAT_BYTES)):
            case GoOn(answer_id):
                return _interrupted(answer_id)  # nothing in it was answered
            case Answered() as answered:
                return await self._go_on(request, answered)
            case Submit() as submit:
                session_id = await self._open(request, submit.chat_id, submit.message)
                reach, key = auth.reach(request), submit.key
                message_id = (await self._conversations.post(reach, session_id, submit.message, key)).message_id
            case Again() as again:
                session_id = await self._open(request, again.chat_id, again.message)
                message_id = await self._answer_again(request, session_id, again)
            case NewestAgain(chat_id):
                session_id, message_id = await self._answer_newest(request, chat_id)
            case other:
                assert_never(other)
        return await self._streams.answer_taken(request, session_id, message_id, on_gap="cut")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        running = await self._running(request)
        if running is None:
            return _nothing()
        try:
            return await self._streams.answer(request, running, BEGINNING, on_gap="cut")
        except NotFound:
            return _nothing()
        except Problem as problem:
            if problem.error_type != "gap":
                raise
            return _nothing()

    async def stop(self, request: web.Request) -> web.Response:
        running = await self._running(request)
        if running is not None:
            with suppress(NotFound):
                await self._tasks.cancel(auth.reach(request), running)
        return _nothing()

    async def _go_on(self, request: web.Request, answered: Answered) -> web.StreamResponse:
        """The message that asked goes on with what comes of the answers."""
        caller, reach = auth.caller(request), auth.reach(request)
        session_id = await self._conversations.find_chat(caller.owner, answered.chat_id)
        if session_id is None:
            raise NotFound
        delivery = Delivery("http", caller.name)
        try:
            receipts = await self._operations.answer_all(reach, session_id, answered.approvals, delivery)
        except NotAsked:
            raise NotAsked(NO_APPROVAL) from None
        task_ids = [receipt.task_id for receipt in receipts]
        return await self._streams.answer_answered(request, _start(answered.message_id), task_ids)

    async def _open(self, request: web.Request, chat_id: str, message: NewMessage) -> SessionId:
        check_said(message.parts)  # before a chat is made for it
        return await self._conversations.open_chat(auth.caller(request).owner, chat_id)

    async def _answer_again(self, request: web.Request, session_id: SessionId, again: Again) -> MessageId:
        """What was given back is posted again. What stands there last, in these words, is being answered already."""
        reach, message = auth.reach(request), again.message
        try:
            instead = message if again.is_edited else None
            posted = await self._conversations.answer_again(reach, session_id, message.id, instead)
            if posted is None:
                posted = await self._conversations.post(reach, session_id, message)
        except (SessionBusy, MessageExists):
            message_id = _standing_last(await self._conversations.read(reach, session_id), message)
            if message_id is None:
                raise
            return message_id
        return posted.message_id

    async def _answer_newest(self, request: web.Request, chat_id: str) -> tuple[SessionId, MessageId]:
        session_id = await self._conversations.find_chat(auth.caller(request).owner, chat_id)
        if session_id is not None:
            posted = await self._conversations.answer_again(auth.reach(request), session_id, None)
            if posted is not None:
                return session_id, posted.message_id
        raise InvalidInput("There is no message in this chat that could be answered again.")

    async def _running(self, request: web.Request) -> TaskId | None:
        """What runs in the path's chat, or is queued there. None also where there is no such chat."""
        chat_id = paths.chat_id(request)
        if chat_id is None:
            return None
        session_id = await self._conversations.find_chat(auth.caller(request).owner, chat_id)
        if session_id is None:
            return None
        try:
            return await self._conversations.current(auth.reach(request), session_id)
        except NotFound:
            return None


def _standing_last(session: Session, message: NewMessage) -> MessageId | None:
    """The message's id, if the last thing that the user said in this session is this message in these words."""
    said = [(each.id, each.parts) for each in session.messages if each.role == "user"]
    said += [(each.id, each.parts) for each in session.pending]
    stands = said[-1:] == [(message.id, tuple(plain(part) for part in message.parts))]
    return said[-1][0] if stands else None


def _nothing() -> web.Response:
    return web.Response(status=204)


def _interrupted(answer_id: str) -> web.Response:
    """A stream that adds nothing to an answer, and after which the hook does not post by itself."""
    finish = _frame({"type": "finish", "finishReason": "interrupted"})
    return web.Response(body=_start(answer_id) + finish + DONE, headers=HEADERS)


def _start(answer_id: str) -> bytes:
    return _frame({"type": "start", "messageId": answer_id})


def _frame(chunk: dict[str, str]) -> bytes:
    """What is no event of a log, and so has no position."""
    return b"data: %b\n\n" % orjson.dumps(chunk)


@web.middleware
async def plain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Problems of these routes as plain text, with the same status and headers."""
    answer = await handler(request)
    is_asked = request.path == CHAT or request.path.startswith(f"{CHAT}/")
    if is_asked and isinstance(answer, web.Response) and answer.content_type == MEDIA_TYPE:
        problem = orjson.loads(answer.text or "")
        fields = [f"{error['field']}: {error['message']}" for error in problem.get("errors", [])]
        answer.content_type, answer.charset = "text/plain", "utf-8"
        answer.text = " ".join([problem["detail"], *fields])
    return answer
