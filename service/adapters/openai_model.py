"""A model behind an endpoint that speaks OpenAI's chat completions: any base URL, key and model name.

The SDK makes the request. The stream is read here, because the SDK has no bound for a line, reads the whole body of an
error, and does not tell `[DONE]` from a connection that ended early.
"""

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Final, Self

import httpx2
from openai import APIConnectionError, AsyncOpenAI, omit
from openai.types.chat import (
    ChatCompletionContentPartParam,
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageFunctionToolCallParam,
    ChatCompletionMessageParam,
)

from service.adapters.openai_stream import Answer, clean, refusal
from service.model.events import InputPart, TextPart
from service.model.failures import ModelCallFailed
from service.model.generation import Piece, Prompt, ToolDescription, ToolUse, Utterance
from service.model.ids import TaskId

DRAIN_SECONDS: Final = 0.05
"""How long the rest after `[DONE]` may take. It is read so that the connection can be used again."""

_END: Final = b"\n"
"""What the end of the body is read as: a last line is looked at, but what it began is not taken for whole."""

_MAX_DIGITS: Final = 9

_NO_KEY: Final = "no-key"


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

    async def stream(self, task_id: TaskId, prompt: Prompt) -> AsyncGenerator[Piece]:
        """Answer the prompt: pieces as they come, then CallEnded. Tries once; raises ModelCallFailed.

        Connecting (name and TCP, then TLS: each) may take `connect_seconds`. Any byte is a sign of life and starts
        `idle_seconds` anew, the comments that some providers send while they wait included; how long comments may go on
        is the caller's affair. Once the model has said why it stopped, a broken rest costs only the usage. `task_id`
        is not used.
        """
        answer = Answer()
        try:
            opened = await self._client.chat.completions.create(
                model=prompt.model or self._model,
                messages=list(_messages(prompt)),
                tools=[_function(tool) for tool in prompt.tools] or omit,
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


def _messages(prompt: Prompt) -> Iterator[ChatCompletionMessageParam]:
    if prompt.system is not None:
        yield {"role": "system", "content": clean(prompt.system)}
    for utterance in prompt.conversation:
        yield from _asked(utterance) if utterance.role == "user" else _answered(utterance)


def _asked(utterance: Utterance) -> Iterator[ChatCompletionMessageParam]:
    said = [part for part in utterance.parts if not isinstance(part, ToolUse)]
    plain = all(isinstance(part, TextPart) for part in said)
    yield {"role": "user", "content": _text(utterance) if plain else [_part(part) for part in said]}


def _answered(utterance: Utterance) -> Iterator[ChatCompletionMessageParam]:
    """What was said, and each call with its result. Some refuse a message without either, for good."""
    text = _text(utterance)
    uses = [part for part in utterance.parts if isinstance(part, ToolUse)]
    if uses:
        yield {"role": "assistant", "content": text or None, "tool_calls": [_call(use) for use in uses]}
    elif text:
        yield {"role": "assistant", "content": text}
    for use in uses:
        output = use.output if isinstance(use.output, str) else json.dumps(use.output, ensure_ascii=False)
        yield {"role": "tool", "tool_call_id": use.call_id, "content": clean(output)}


def _call(use: ToolUse) -> ChatCompletionMessageFunctionToolCallParam:
    """Some endpoints read the arguments: what was no object is not repeated."""
    arguments = json.dumps(use.input) if isinstance(use.input, dict) else "{}"
    return {"id": use.call_id, "type": "function", "function": {"name": use.name, "arguments": arguments}}


def _function(tool: ToolDescription) -> ChatCompletionFunctionToolParam:
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": tool.schema},
    }


def _text(utterance: Utterance) -> str:
    return "\n".join(clean(part.text) for part in utterance.parts if isinstance(part, TextPart))


def _part(part: InputPart) -> ChatCompletionContentPartParam:
    if isinstance(part, TextPart):
        return {"type": "text", "text": clean(part.text)}
    return {"type": "image_url", "image_url": {"url": clean(part.url)}}


async def _refuse_errors(response: httpx2.Response) -> None:
    """Decide at the head: the SDK would read an error's whole body, for a message that must not be shown."""
    if not response.is_success:
        raise refusal([str(response.status_code)], _retry_after(response.headers.get("Retry-After", "")))


def _retry_after(value: str) -> float | None:
    """The header in seconds, which may also name a date (RFC 9110, 10.2.3); None where it says nothing."""
    if value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


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
