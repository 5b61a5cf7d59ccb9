"""Calls to remote tools: external services that are asked over HTTP, and answer at once or by a completion later.

What a service has to do: take `POST <url>` with a JSON object `{operation_id, task_id, session_id, tool, arguments,
callback_url}` (`callback_url` may be null), signed by Standard Webhooks with `webhook-id` = `operation_id`, and answer

- 202, the body of which is not read, to say how it ended later, by a completion;
- 200, or another 2xx, with what it ended with: an object with a boolean `success` is a completion
  (`{"success": true, "result": …}`, `{"success": false, "error": …, "error_type": …, "details": …}`), any other JSON is
  itself the result, and an empty body is a result of null.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType, SimpleNamespace, TracebackType
from typing import Any, Final, Self

import aiohttp
import orjson
import structlog
from pydantic import ValidationError
from standardwebhooks import Webhook

from service.model.completion import MAX_COMPLETION_BYTES, CompletionBody
from service.model.events import Json
from service.model.failures import message_for
from service.model.operation import Failed, Succeeded
from service.model.remote import Answered, NotTaken, RemoteAnswer, RemoteCall, RemoteTool, Taken
from service.model.trace import CurrentTrace, untraced

log = structlog.get_logger()

CONNECT_SECONDS: Final = 5.0
"""For a free place among the connections, the name, TCP and TLS, together."""

MAX_CONNECTIONS: Final = 100
MAX_CONNECTIONS_TO_ONE: Final = 32
"""Of one process, to one host and port. Who finds none free waits for CONNECT_SECONDS, and then has not reached it."""

MAX_ANSWER_BYTES: Final = MAX_COMPLETION_BYTES
"""A longer answer is not read further, and is none."""

_ACCEPTED: Final = 202
_TYPES: Final = MappingProxyType(
    {408: "timeout", 429: "rate_limit", 503: "service_unavailable", 504: "timeout"},
)
_RETRYABLE: Final = frozenset({"rate_limit", "service_unavailable", "connection_error"})
"""What says that the service has not begun: a time-out that it or a gateway before it tells of does not."""


@dataclass(slots=True)
class _Progress:
    """How far a call is."""

    is_sent: bool = False
    """Whether a byte of the request may be with the service."""


class RemoteTools:
    """Calls over HTTP; open it with `async with`. `now` is the time of day in UTC.

    A connection is used for one call only. On one that is kept, a service that closes it just then cannot be told from
    one that took the call and was lost, and each such call would be pending until its deadline. Redirects are not
    followed, cookies not kept, compressed answers not asked for; proxies of the environment are not used.
    """

    def __init__(
        self,
        now: Callable[[], datetime],
        current_trace: CurrentTrace = untraced,
        *,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        self._now = now
        self._current_trace = current_trace
        self._connect_seconds = connect_seconds

    async def __aenter__(self) -> Self:
        progress = aiohttp.TraceConfig()
        progress.on_request_headers_sent.append(_note_sent)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS, limit_per_host=MAX_CONNECTIONS_TO_ONE, force_close=True
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_seconds),
            auto_decompress=False,
            trace_configs=[progress],
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def call(self, tool: RemoteTool, call: RemoteCall) -> RemoteAnswer:
        """Ask once; within `tool.call_seconds` there is an answer. Raises nothing of the outside.

        Taken is also said where the service may have taken the call: it was sent, in part at least, and then no answer
        came in time, or the connection was lost before the whole of it had come. NotTaken says of an answer that is not
        by the contract its status and no more (`details`): a body may hold secrets.
        """
        progress = _Progress()
        answer, cause = await self._asked(tool, call, progress)
        log.info(
            "remote_tool_called",
            tool=tool.name,
            operation_id=call.operation_id,
            task_id=call.task_id,
            answer=type(answer).__name__,
            error_type=answer.error_type if isinstance(answer, NotTaken) else None,
            cause=None if cause is None else type(cause).__name__,
        )
        return answer

    async def _asked(
        self, tool: RemoteTool, call: RemoteCall, progress: _Progress
    ) -> tuple[RemoteAnswer, Exception | None]:
        try:
            body = _body_of(tool, call)
            async with (
                asyncio.timeout(tool.call_seconds),
                self._session.post(
                    tool.url,
                    data=body,
                    headers=self._headers(tool, call, body),
                    allow_redirects=False,
                    trace_request_ctx=progress,
                ) as response,
            ):
                return await _read(response, call), None
        except aiohttp.ClientResponseError as error:  # what came is no HTTP; the library does not say how it began
            return _not_taken("invalid_response"), error
        except (
            aiohttp.ClientConnectionError,
            aiohttp.ClientPayloadError,
            OSError,
        ) as error:  # a time-out is an OSError
            return Taken() if progress.is_sent else _not_taken(_unsent_type(error)), error
        except aiohttp.ClientError as error:
            return _not_taken("request_error"), error
        except Exception as error:
            # The edge of a call: a mistake in one ends its operation, and not the turn.
            log.exception("remote_tool_call_crashed", tool=tool.name, operation_id=call.operation_id)
            return _not_taken("unexpected_error", action=f"run {tool.name}"), error

    def _headers(self, tool: RemoteTool, call: RemoteCall, body: bytes) -> Mapping[str, str]:
        now, traceparent = self._now(), self._current_trace()
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": "playhead",
            "webhook-id": call.operation_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(tool.secret).sign(call.operation_id, now, body.decode()),
        }
        return headers if traceparent is None else {**headers, "traceparent": traceparent}


def _body_of(tool: RemoteTool, call: RemoteCall) -> bytes:
    return orjson.dumps(
        {
            "operation_id": call.operation_id,
            "task_id": call.task_id,
            "session_id": call.session_id,
            "tool": tool.name,
            "arguments": call.arguments,
            "callback_url": call.callback_url,
        }
    )


async def _note_sent(session: aiohttp.ClientSession, context: SimpleNamespace, sent: Any) -> None:
    context.trace_request_ctx.is_sent = True


def _unsent_type(error: Exception) -> str:
    """Name not resolved, refused, no TLS, or none of it in time; anything else is another's."""
    is_unreached = isinstance(error, aiohttp.ClientConnectorError | TimeoutError)
    return "connection_error" if is_unreached else "request_error"


async def _read(response: aiohttp.ClientResponse, call: RemoteCall) -> RemoteAnswer:
    """What was answered. A body is read only where it says something: that of a refusal may be endless."""
    status = response.status
    if status == _ACCEPTED:
        return Taken()
    if not 200 <= status < 300:
        return _not_taken(_TYPES.get(status, "http_error"), status)
    body = await _body(response)
    if body is None:
        return _not_taken("invalid_response", status)
    try:
        said = _completion(orjson.loads(body) if body else None)
    except (orjson.JSONDecodeError, ValidationError):
        return _not_taken("invalid_response", status)
    if said.operation_id not in (None, call.operation_id) or said.task_id not in (None, call.task_id):
        return _not_taken("invalid_response", status)
    match said.outcome:
        case Succeeded(result):
            return Answered(result)
        case Failed(error_type, message, details):
            return NotTaken(error_type, message, details)
        case _:
            return _not_taken("invalid_response", status)


async def _body(response: aiohttp.ClientResponse) -> bytes | None:
    """All of it; None where it is too long."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            return None
    return bytes(body)


def _completion(value: Json) -> CompletionBody:
    """What a body says, by the rule that the module has. Raises ValidationError."""
    if isinstance(value, dict) and isinstance(value.get("success"), bool):
        return CompletionBody.model_validate(value)
    return CompletionBody(success=True, result=value)


def _not_taken(error_type: str, status: int | None = None, *, action: str | None = None) -> NotTaken:
    details: Json = None if status is None else {"status": status}
    return NotTaken(error_type, message_for(error_type, action), details, is_retryable=error_type in _RETRYABLE)
