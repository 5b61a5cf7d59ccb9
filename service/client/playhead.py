"""What can be asked of a service."""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from types import TracebackType
from typing import Any, Final, Literal, assert_never

import aiohttp
from yarl import URL

from service.client.answers import objects_in
from service.client.asking import Asking
from service.client.errors import NotUnderstood
from service.client.exporting import exported
from service.client.following import Event, Following, Pace, Patience
from service.model.errors import InvalidInput
from service.model.events import Json
from service.model.ids import MessageId, OperationId, SessionId, TaskId
from service.model.intake import MAX_LETTERS, DeadReason
from service.model.operation import (
    EVERY_OPERATION,
    Approval,
    Failed,
    OperationFilter,
    PersonsAnswer,
    Reply,
    Succeeded,
)
from service.model.position import BEGINNING, Position
from service.model.session import UNSET, Posted, SessionSettings
from service.model.task import EVERY_TASK, TaskFilter

PROOF_SECONDS: Final = 600.0
"""So long a proof may take, which reads a whole log."""

REDRIVE_SECONDS: Final = 300.0
"""So long it may take to send all dead letters again, one by one."""

_KEY: Final = re.compile(r"[!-~]{1,128}", re.ASCII)


class Playhead:
    """A service, for the time of an `async with` block.

    `url` is where it stands, without user and password; `token` is an API key or a JWT, sent as `Authorization: Bearer`
    and shown nowhere. Every call raises Refused, Unreachable or NotUnderstood; none but `follow` is tried again.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        patience: Patience = Patience(),  # noqa: B008 - a frozen value
        pace: Pace = Pace(),  # noqa: B008
    ) -> None:
        """Raises InvalidInput for what is no such URL, or a token that no header can hold; neither is repeated."""
        self._url = _checked(url)
        self._headers = _headers(token)
        self._patience = patience
        self._pace = pace
        self._asking: Asking | None = None

    async def __aenter__(self) -> "Playhead":
        http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # one connection for each log that is followed
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            headers=self._headers,
        )
        self._asking = Asking(http, self._url, self._patience.silence_seconds)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._asking is not None:
            await self._asking.http.close()
        self._asking = None

    async def ready(self) -> dict[str, Any]:
        """What `GET /readyz` answers, also where the service is not ready: its `status`, and its `dependencies`."""
        return await self._open().object("GET", "readyz", takes=503)

    async def create_session(self, settings: SessionSettings = UNSET) -> SessionId:
        """A new, empty session."""
        body = {name: value for name, value in asdict(settings).items() if value is not None}
        return SessionId(_text(await self._open().object("POST", "sessions", body=body), "id"))

    def sessions(self, limit: int | None = None) -> AsyncGenerator[dict[str, Any]]:
        """The newest sessions first, as `GET /sessions` answers them: so many, or all, asked for page by page."""
        return self._open().listed("sessions", {}, limit)

    async def session(self, session_id: SessionId) -> dict[str, Any]:
        """The session with its newest messages, as `GET /sessions/{id}` answers it."""
        answer = await self._open().object("GET", "sessions", session_id)
        for name in ("messages", "pending"):
            objects_in(answer, name)
        return answer

    async def delete_session(self, session_id: SessionId) -> None:
        """Have nobody find the session any more; what runs of it is cancelled."""
        async with self._open().answered("DELETE", "sessions", session_id):
            pass

    async def post(
        self, session_id: SessionId, message: str | Sequence[Mapping[str, Any]], idempotency_key: str | None = None
    ) -> Posted:
        """Post a message, a text or its parts; answers the task that works on it, or in whose mailbox it waits.

        After Unreachable nobody knows whether it was taken: ask the session. Raises InvalidInput for a key that no
        service takes, or a message that JSON cannot say.
        """
        body = {"text": message} if isinstance(message, str) else {"parts": list(message)}
        headers = _named(idempotency_key)
        answer = await self._open().object("POST", "sessions", session_id, "messages", body=body, headers=headers)
        status: Literal["accepted", "pending"] = "pending" if _text(answer, "status") == "pending" else "accepted"
        return Posted(TaskId(_text(answer, "task_id")), MessageId(_text(answer, "message_id")), status)

    def tasks(self, wanted: TaskFilter = EVERY_TASK, limit: int | None = None) -> AsyncGenerator[dict[str, Any]]:
        """The newest tasks that are wanted first, as `GET /tasks` answers them: so many, or all, page by page."""
        asked = {"status": wanted.status, "kind": wanted.kind, "session": wanted.session_id, "owner": wanted.owner}
        query = {name: value for name, value in asked.items() if value is not None}
        return self._open().listed("tasks", query, limit)

    async def task(self, task_id: TaskId) -> dict[str, Any]:
        """The task as it stands, as `GET /tasks/{id}` answers it."""
        return await self._open().object("GET", "tasks", task_id)

    async def cancel(self, task_id: TaskId) -> dict[str, Any]:
        """Have the task ended as cancelled; answers it as it stands. Its log says when it has ended."""
        return await self._open().object("POST", "tasks", task_id, "cancel", body={})

    def operations(
        self, wanted: OperationFilter = EVERY_OPERATION, limit: int | None = None
    ) -> AsyncGenerator[dict[str, Any]]:
        """The newest operations that are wanted first, as `GET /operations` answers them: so many, or all."""
        asked = {
            "status": wanted.status,
            "executor": wanted.executor,
            "tool": wanted.tool,
            "session": wanted.session_id,
            "stuck": "1" if wanted.is_stuck else None,
        }
        query = {name: value for name, value in asked.items() if value is not None}
        return self._open().listed("operations", query, limit)

    async def operation(self, operation_id: OperationId) -> dict[str, Any]:
        """The operation and what came about its end, as `GET /operations/{id}` answers it."""
        answer = await self._open().object("GET", "operations", operation_id)
        objects_in(answer, "deliveries")
        return answer

    async def complete(
        self, operation_id: OperationId, outcome: Succeeded | Failed, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Say how an operation ended; answers the receipt, with `duplicate` where that was known before.

        After Unreachable nobody knows whether it was taken: say it again, which is harmless. Raises NoSuchThing where
        there is no such operation, or not yet; Refused with `conflicting` where it has ended otherwise; InvalidInput
        for a key that no service takes, or what JSON cannot say.
        """
        answer = await self._report(operation_id, completion_of(outcome), idempotency_key)
        _text(answer, "completion_id")
        return answer

    async def report_progress(
        self, operation_id: OperationId, progress: Json, idempotency_key: str | None = None
    ) -> None:
        """Say how far an operation is: any JSON of up to 16 KiB. Raises as `complete` does."""
        await self._report(operation_id, {"progress": progress}, idempotency_key)

    async def answer(self, operation_id: OperationId, said: PersonsAnswer) -> dict[str, Any]:
        """Answer as the person who was asked; answers the receipt. Said again it is harmless. Raises as `complete`
        does, and Refused where nobody was asked, or not that.
        """
        answer = await self._open().object("POST", "operations", operation_id, "approve", body=_answer(said))
        _text(answer, "completion_id")
        return answer

    async def cancel_operation(self, operation_id: OperationId) -> dict[str, Any]:
        """Have the operation ended as cancelled, unless it has ended; answers it as it stands then."""
        return await self._open().object("POST", "operations", operation_id, "cancel", body={})

    async def redrive(self, operation_id: OperationId) -> dict[str, Any]:
        """Have a follow-up that failed tried again; answers the task that does, which is the same for a repeat.

        Raises Refused with `nothing_failed` where none has.
        """
        answer = await self._open().object("POST", "operations", operation_id, "redrive", body={})
        _text(answer, "task_id")
        return answer

    async def dead_letters(self, limit: int = MAX_LETTERS) -> Sequence[dict[str, Any]]:
        """What came over the message broker and nobody could take, the oldest first: so many, MAX_LETTERS at most.

        Raises NoSuchThing where the service has no broker.
        """
        answer = await self._open().object("GET", "dead-letters", query={"limit": str(limit)})
        return objects_in(answer, "dead_letters")

    async def redrive_letters(self, *, reason: DeadReason | None = None, letter_id: str | None = None) -> int:
        """Have dead letters sent again: those of a reason, the one with this id, or all; answers how many.

        After Unreachable some may have been. Raises NoSuchThing where the service has no broker.
        """
        wanted = {"reason": reason, "id": letter_id}
        body = {name: value for name, value in wanted.items() if value is not None}
        answer = await self._open().object("POST", "dead-letters", "redrive", body=body, seconds=REDRIVE_SECONDS)
        count = answer.get("redriven")
        if not isinstance(count, int):
            raise NotUnderstood("What answers does not say how many.")
        return count

    async def _report(
        self, operation_id: OperationId, body: Mapping[str, Any], idempotency_key: str | None
    ) -> dict[str, Any]:
        headers = _named(idempotency_key)
        return await self._open().object("POST", "operations", operation_id, "complete", body=body, headers=headers)

    async def follow(self, task_id: TaskId, after: Position = BEGINNING) -> AsyncGenerator[Event]:
        """The events of a log behind a position, each once and in its order, until the terminal one; then it ends.

        It ends at once where `after` is the terminal event. Connections that break are replaced (`Patience` says how
        long). Who does not take the next event holds the service up, and no memory. Raises Gap where an event is
        missing, Gone where the log is, Refused, NotUnderstood, and Unreachable when patience is at its end. Leave it by
        `aclosing`, which closes the connection.
        """
        asking = self._open()
        following = Following(asking.http, asking.at("tasks", task_id, "stream"), after, self._patience, self._pace)
        async with aclosing(following.events()) as events:
            async for event in events:
                yield event

    async def verify(self, task_id: TaskId) -> dict[str, Any]:
        """The proof of its log, as `GET /tasks/{id}/verify` answers it."""
        answer = await self._open().object("GET", "tasks", task_id, "verify", seconds=PROOF_SECONDS)
        objects_in(answer, "findings")
        return answer

    async def export(self, task_id: TaskId, *, redact: bool = False) -> AsyncGenerator[bytes]:
        """The lines of its closed log as a file, each with its line feed, as they come; with `redact` without texts.

        Whoever is given the end of it has all of it, byte for byte: else it raises, Unreachable where the connection
        breaks or is silent for too long, Incomplete where the lines do not make one whole export.
        """
        query = {"redact": "1"} if redact else {}
        async with (
            self._open().answered("GET", "tasks", task_id, "export", query=query, seconds=None) as response,
            aclosing(exported(response, task_id, self._patience.silence_seconds)) as lines,
        ):
            async for line in lines:
                yield line

    def _open(self) -> Asking:
        if self._asking is None:
            raise RuntimeError("a Playhead is used inside its `async with` block")
        return self._asking


def _named(idempotency_key: str | None) -> dict[str, str]:
    if idempotency_key is None:
        return {}
    if not _KEY.fullmatch(idempotency_key):
        raise InvalidInput("An idempotency key has 1 to 128 printable ASCII characters, and no spaces.")
    return {"Idempotency-Key": idempotency_key}


def completion_of(outcome: Succeeded | Failed) -> dict[str, Json]:
    """An outcome as it is said, over whichever door."""
    match outcome:
        case Succeeded(result):
            return {"success": True, "result": result}
        case Failed(error_type, message, details):
            said: dict[str, Json] = {"success": False, "error_type": error_type, "error": message}
            return said if details is None else {**said, "details": details}
        case other:
            assert_never(other)


def _answer(said: PersonsAnswer) -> dict[str, Json]:
    match said:
        case Reply(answer):
            return {"answer": answer}
        case Approval(approved, None):
            return {"approved": approved}
        case Approval(approved, reason):
            return {"approved": approved, "reason": reason}
        case other:
            assert_never(other)


def _checked(url: str) -> str:
    try:
        parts = URL(url)
        fits = parts.scheme in ("http", "https") and bool(parts.host) and 0 < (parts.port or 0) < 65536
        fits = fits and parts.user is None and parts.password is None
    except ValueError:
        fits = False
    if not fits or parts.query_string or parts.fragment:
        raise InvalidInput("A service's URL is expected, http:// or https://, without user, password and query.")
    return str(parts).rstrip("/")


def _headers(token: str | None) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity"}
    if token:
        if not (token.isascii() and token.isprintable() and " " not in token):
            raise InvalidInput("A token has printable ASCII characters only, and no spaces.")
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _text(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str):
        raise NotUnderstood(f"What answers says no {name}.")
    return value
