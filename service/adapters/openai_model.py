"""A model behind an endpoint that speaks OpenAI's chat completions: any base URL, key and model name.

The SDK makes the request. The stream is read here, because the SDK has no bound for a line, reads the whole body of an
error, and does not tell `[DONE]` from a connection that ended early.
"""

import asyncio
import json
import logging
import re
import ssl
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import httpx2
from openai import APIConnectionError, AsyncOpenAI
from openai.types.chat import ChatCompletionContentPartParam, ChatCompletionMessageParam

from service.model.events import FinishReason, InputPart, TextPart, Usage
from service.model.failures import ModelCallFailed
from service.model.generation import CallEnded, Piece, ReasoningPiece, TextPiece, Utterance
from service.model.ids import TaskId

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
"""One event of the stream. A longer one, or a line without an end, is an `invalid_response`."""

MAX_PIECE_CHARACTERS: Final = 16 * 1024
"""One piece: at most 64 KiB of UTF-8, and below 128 KiB as JSON even if every character is escaped."""

DRAIN_SECONDS: Final = 0.05
"""How long the rest after `[DONE]` may take. It is read so that the connection can be used again."""

_END: Final = b"\n"
"""What the end of the body is read as: a last line is looked at, but what it began is not taken for whole."""

_LINE_BYTES: Final = 64
"""What a line of an event takes in memory beyond its bytes, roughly."""

_NO_KEY: Final = "no-key"
_MAX_TOKENS: Final = 2**31 - 1
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_FIELDS: Final = frozenset({b"", b"data", b"event", b"id", b"retry"})
_FINISH: Final[Mapping[object, FinishReason]] = MappingProxyType(
    {"stop": "stop", "length": "length", "content_filter": "content-filter"}
)
_ERROR_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "401": "authentication_error",
        "403": "authentication_error",
        "408": "timeout",
        "429": "rate_limit",
        "503": "service_unavailable",
        "504": "timeout",
        "invalid_api_key": "authentication_error",
        "rate_limit_exceeded": "rate_limit",
        "insufficient_quota": "rate_limit",
    }
)
"""By HTTP status, or by the code of an error that comes amid the stream; every other one is an `http_error`."""


class OpenAIModel:
    """Streams from `POST <base_url>/chat/completions`; open it with `async with`.

    An empty key is sent as a placeholder, for local servers. Nothing is taken from `OPENAI_*` variables; proxies and
    certificates follow the usual ones (`HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`). Redirects are not followed.
    Raises ValueError for a key that no header can carry.
    """

    def __init__(
        self, base_url: str, key: str, model: str, *, connect_seconds: float = 10, idle_seconds: float = 60
    ) -> None:
        if not (key.isascii() and key.isprintable()):
            raise ValueError("the model's key may only hold printable ASCII characters")
        self._key = key.strip() or _NO_KEY
        self._model = model
        timeout = httpx2.Timeout(connect=connect_seconds, pool=connect_seconds, read=idle_seconds, write=idle_seconds)
        http_client = httpx2.AsyncClient(
            timeout=timeout,
            limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=20),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            event_hooks={"request": [self._state_headers], "response": [_refuse_errors]},
        )
        # What is None here is read from the environment; "" is not.
        self._client = AsyncOpenAI(
            api_key=self._key,
            admin_api_key="",
            organization="",
            project="",
            webhook_secret="",
            base_url=base_url,
            timeout=timeout,
            max_retries=0,
            http_client=http_client,
        )

    @property
    def provider(self) -> str:
        """The same for every address: an address may be a secret."""
        return "the model's endpoint"

    async def __aenter__(self) -> Self:
        # They would log addresses at INFO, and at DEBUG (which OPENAI_LOG switches on) whole requests.
        for library in ("openai", "httpx2", "httpcore2"):
            logging.getLogger(library).setLevel(logging.WARNING)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.close()

    async def stream(self, task_id: TaskId, conversation: Sequence[Utterance]) -> AsyncGenerator[Piece]:
        """Answer the conversation: pieces as they come, then CallEnded. Tries once; raises ModelCallFailed.

        Connecting (name and TCP, then TLS: each) may take `connect_seconds`. Any byte is a sign of life and starts
        `idle_seconds` anew, the comments that some providers send while they wait included; how long comments may go on
        is the caller's affair. Once the model has said why it stopped, a broken rest costs only the usage. `task_id`
        is not used.
        """
        answer = _Answer()
        try:
            opened = await self._client.chat.completions.create(
                model=self._model,
                messages=[message for utterance in conversation for message in _message(utterance)],
                stream=True,
                stream_options={"include_usage": True},
            )
            async with opened, aclosing(opened.response.aiter_raw()) as received:
                async for chunk in received:
                    for piece in answer.read(chunk):
                        yield piece
                    if answer.done:
                        await _drain(received)
                        break
            for piece in answer.read(_END):
                yield piece
        except (APIConnectionError, httpx2.RequestError, OSError) as error:
            if not answer.complete:
                raise ModelCallFailed(_transport_type(error)) from error
        yield answer.ended()

    async def _state_headers(self, request: httpx2.Request) -> None:
        """State every header anew: the SDK adds what is in OPENAI_CUSTOM_HEADERS, and cannot be told not to."""
        request.headers = httpx2.Headers(
            {
                "Host": request.url.netloc.decode("ascii"),
                "Accept": "text/event-stream",
                "Accept-Encoding": "identity",
                "Authorization": f"Bearer {self._key}",
                "Content-Type": "application/json",
                "Content-Length": str(len(request.content)),
                "User-Agent": "playhead",
            }
        )


class _Events:
    """Cuts bytes into the data of server-sent events. Holds at most MAX_EVENT_BYTES and one chunk."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._held = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        head, *others = chunk.split(b"\n")
        self._line += head
        for other in others:
            yield from self._take(bytes(self._line).removesuffix(b"\r"))
            self._line[:] = other
        if self._held + len(self._line) > MAX_EVENT_BYTES:
            raise ModelCallFailed("invalid_response")

    def _take(self, line: bytes) -> Iterator[bytes]:
        field, _, value = line.partition(b":")
        if field not in _FIELDS:
            raise ModelCallFailed("invalid_response")
        if field == b"data":
            self._held += len(line) + _LINE_BYTES
            self._data.append(value.removeprefix(b" "))
        elif not line and self._data:
            data, self._data, self._held = b"\n".join(self._data), [], 0
            yield data


class _Answer:
    """What the model has said so far, apart from the words."""

    def __init__(self) -> None:
        self.done = False
        self._finish: FinishReason | None = None
        self._events = _Events()
        self._spoke = False
        self._usage = Usage(0, 0)

    @property
    def complete(self) -> bool:
        return self.done or self._finish is not None

    def read(self, chunk: bytes) -> Iterator[Piece]:
        """Read on, as far as `[DONE]`. Raises ModelCallFailed for an error, and for what is not the wire format."""
        if self.done:
            return
        for data in self._events.feed(chunk):
            if data.strip() == b"[DONE]":
                self.done = True
                return
            if data.strip():
                yield from self._take(data)

    def _take(self, data: bytes) -> Iterator[Piece]:
        try:
            chunk = json.loads(data.decode(errors="replace"))
        except (ValueError, RecursionError) as error:
            raise ModelCallFailed("invalid_response") from error
        match chunk:
            case {"error": error} if error:
                raise ModelCallFailed(_reported_type(error))
            case {"choices": [{"delta": dict() | None as delta, **choice}, *_]}:
                yield from self._say(delta or {})
                if (reason := choice.get("finish_reason")) is not None:
                    self._finish = _FINISH.get(reason, "stop") if isinstance(reason, str) else "stop"
            case {"choices": []}:
                pass
            case _:
                raise ModelCallFailed("invalid_response")
        match chunk:
            case {"usage": dict() as usage}:
                self._usage = Usage(_tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens")))

    def _say(self, delta: dict[str, Any]) -> Iterator[Piece]:
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        text = delta.get("content") or ""
        if not (isinstance(reasoning, str) and isinstance(text, str)):
            raise ModelCallFailed("invalid_response")
        self._spoke = self._spoke or bool(reasoning or text)
        yield from map(ReasoningPiece, _cut(reasoning))
        yield from map(TextPiece, _cut(text))

    def ended(self) -> CallEnded:
        """The last piece. Raises ModelCallFailed if the stream ended before the model was done."""
        if not self.complete:
            raise ModelCallFailed("request_error")
        if self._finish is None and not self._spoke:
            raise ModelCallFailed("invalid_response")
        return CallEnded(self._finish or "stop", self._usage)


def _message(utterance: Utterance) -> Iterator[ChatCompletionMessageParam]:
    text = "\n".join(_clean(part.text) for part in utterance.parts if isinstance(part, TextPart))
    if utterance.role == "user":
        plain = all(isinstance(part, TextPart) for part in utterance.parts)
        yield {"role": "user", "content": text if plain else [_part(part) for part in utterance.parts]}
    elif text:  # some endpoints refuse an assistant's message without words, and with it every later call
        yield {"role": "assistant", "content": text}


def _part(part: InputPart) -> ChatCompletionContentPartParam:
    if isinstance(part, TextPart):
        return {"type": "text", "text": _clean(part.text)}
    return {"type": "image_url", "image_url": {"url": _clean(part.url)}}


def _clean(text: str) -> str:
    """JSON can spell half a surrogate pair, UTF-8 cannot."""
    return _SURROGATE.sub("\ufffd", text)


def _cut(text: str) -> Iterator[str]:
    for start in range(0, len(text), MAX_PIECE_CHARACTERS):
        yield _clean(text[start : start + MAX_PIECE_CHARACTERS])


def _tokens(count: object) -> int:
    """Zero for what cannot be a count: an answer is not lost for its bill."""
    return count if isinstance(count, int) and 0 <= count <= _MAX_TOKENS else 0


async def _refuse_errors(response: httpx2.Response) -> None:
    """Decide at the head: the SDK would read an error's whole body, for a message that must not be shown."""
    if not response.is_success:
        raise ModelCallFailed(_ERROR_TYPES.get(str(response.status_code), "http_error"))


def _reported_type(error: object) -> str:
    if isinstance(error, dict):
        for key in ("code", "status", "type"):
            if (known := _ERROR_TYPES.get(str(error.get(key)))) is not None:
                return known
    return "http_error"


def _transport_type(error: BaseException) -> str:
    if isinstance(error, APIConnectionError) and error.__cause__ is not None:
        return _transport_type(error.__cause__)
    match error:
        case httpx2.TimeoutException() | TimeoutError():
            return "timeout"
        case httpx2.ConnectError() | httpx2.ProxyError() | httpx2.UnsupportedProtocol() | ssl.SSLError():
            return "connection_error"
        case _:
            return "request_error"


async def _drain(received: AsyncGenerator[bytes]) -> None:
    with suppress(TimeoutError, httpx2.RequestError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in received:
                pass
