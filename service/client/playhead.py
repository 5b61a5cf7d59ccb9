"""What can be asked of a service."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from service.client.answers import object_of, refusal_of
from service.client.errors import NotUnderstood, Unreachable
from service.client.following import Event, Following, Pace, Patience
from service.model.errors import InvalidInput
from service.model.ids import MessageId, SessionId, TaskId
from service.model.position import BEGINNING, Position
from service.model.session import Posted

REQUEST_SECONDS: Final = 30.0
"""So long an answer that is no stream may take."""


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
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Playhead":
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # one connection for each log that is followed
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            headers=self._headers,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.close()
        self._http = None

    async def create_session(self) -> SessionId:
        """A new, empty session."""
        return SessionId(_text(await self._ask("POST", "sessions", body={}), "id"))

    async def post(
        self, session_id: SessionId, message: str | Sequence[Mapping[str, Any]], idempotency_key: str | None = None
    ) -> Posted:
        """Post a message, a text or its parts; answers the task that works on it.

        After Unreachable nobody knows whether it was taken: ask the session.
        """
        body = {"text": message} if isinstance(message, str) else {"parts": list(message)}
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        answer = await self._ask("POST", "sessions", session_id, "messages", body=body, headers=headers)
        return Posted(TaskId(_text(answer, "task_id")), MessageId(_text(answer, "message_id")))

    async def task(self, task_id: TaskId) -> dict[str, Any]:
        """The task as it stands, as `GET /tasks/{id}` answers it."""
        return await self._ask("GET", "tasks", task_id)

    async def cancel(self, task_id: TaskId) -> dict[str, Any]:
        """Have the task ended as cancelled; answers it as it stands. Its log says when it has ended."""
        return await self._ask("POST", "tasks", task_id, "cancel", body={})

    async def follow(self, task_id: TaskId, after: Position = BEGINNING) -> AsyncGenerator[Event]:
        """The events of a log behind a position, each once and in its order, until the terminal one; then it ends.

        It ends at once where `after` is the terminal event. Connections that break are replaced (`Patience` says how
        long). Who does not take the next event holds the service up, and no memory. Raises Gap where an event is
        missing, Gone where the log is, Refused, NotUnderstood, and Unreachable when patience is at its end. Leave it by
        `aclosing`, which closes the connection.
        """
        following = Following(self._open(), self._at("tasks", task_id, "stream"), after, self._patience, self._pace)
        async with aclosing(following.events()) as events:
            async for event in events:
                yield event

    async def _ask(
        self,
        method: str,
        *path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        more = {} if body is None else {"Content-Type": "application/json"}
        http = self._open()
        try:
            async with (
                asyncio.timeout(REQUEST_SECONDS),
                http.request(
                    method,
                    self._at(*path),
                    data=None if body is None else _json(body),
                    headers={**more, **(headers or {})},
                    allow_redirects=False,
                ) as response,
            ):
                if response.status >= 500 or response.status == 429:
                    raise Unreachable(f"The service answers {response.status}.")
                if not 200 <= response.status < 300:
                    raise await refusal_of(response)
                return await object_of(response)
        except TimeoutError as error:
            raise Unreachable("The service does not answer in time.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable("The service cannot be reached.") from error

    def _open(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise RuntimeError("a Playhead is used inside its `async with` block")
        return self._http

    def _at(self, *path: str) -> URL:
        """A route of the service; what stands in an id stays in its place of the path."""
        quoted = "/".join(quote(part, safe="").replace(".", "%2E") for part in path)
        return URL(f"{self._url}/{quoted}", encoded=True)


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


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        raise InvalidInput("The message holds something that JSON cannot say.") from None


def _text(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str):
        raise NotUnderstood(f"What answers says no {name}.")
    return value
