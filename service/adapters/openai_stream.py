"""Reading a chat completion's stream: bytes to events, events to pieces. Pure: whoever has the bytes hands them in."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from service.adapters.openai_calls import Calls
from service.model.events import FinishReason, Usage
from service.model.failures import RETRYABLE, ModelCallFailed
from service.model.generation import CallEnded, Piece, ReasoningPiece, TextPiece, ToolCallPiece

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
"""One event of the stream. A longer one, or a line without an end, is an `invalid_response`."""

MAX_PIECE_CHARACTERS: Final = 16 * 1024
"""One piece: at most 64 KiB of UTF-8, and below 128 KiB as JSON even if every character is escaped."""

_LINE_BYTES: Final = 64
"""What a line of an event takes in memory beyond its bytes, roughly."""

_MAX_TOKENS: Final = 2**31 - 1
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_FINISH: Final[Mapping[object, FinishReason]] = MappingProxyType(
    {"stop": "stop", "length": "length", "content_filter": "content-filter", "tool_calls": "tool-calls"}
)
_FAILURES: Final[Mapping[object, str]] = MappingProxyType(
    {
        "error": "http_error",  # OpenRouter, Mistral: as an error without a code
        "abort": "service_unavailable",  # vLLM, SGLang: the engine stops or pauses
        "insufficient_system_resource": "service_unavailable",  # DeepSeek
    }
)
"""Reasons to stop that are not the model's: what was said until then is no answer."""
ERROR_TYPES: Final[Mapping[str, str]] = MappingProxyType(
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

_TRANSIENT: Final = re.compile(r"409|5\d\d|server_error|overloaded_error")
"""Statuses and codes of what may be gone at the next try, whatever its type."""

_SPENT: Final = "insufficient_quota"
"""A limit that no waiting lifts."""


class _Events:
    """Cuts bytes into the data of server-sent events. Holds at most MAX_EVENT_BYTES and one chunk.

    Comments, and fields that the standard does not know, are skipped. `heard` says whether there was anything else
    than comments.
    """

    def __init__(self) -> None:
        self.heard = False
        self._begun = False
        self._line = bytearray()
        self._data: list[bytes] = []
        self._held = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What is whole by now. Raises ModelCallFailed for an event that grows too long; there is no going on."""
        head, *others = chunk.split(b"\n")
        self._line += head
        for other in others:
            yield from self._take(bytes(self._line).removesuffix(b"\r"))
            self._line[:] = other
        if self._held + len(self._line) > MAX_EVENT_BYTES:
            raise ModelCallFailed("invalid_response")

    def _take(self, line: bytes) -> Iterator[bytes]:
        if not self._begun:
            line, self._begun = line.removeprefix(_BYTE_ORDER_MARK), True
        field, _, value = line.partition(b":")
        match field:
            case b"data":
                self._held += len(line) + _LINE_BYTES
                self._data.append(value.removeprefix(b" "))
            case b"error":  # no field of the standard: llama.cpp told errors so until September 2025
                yield b'{"error": %b}' % (value or b"true")
            case b"":
                if not line and self._data:
                    data, self._data, self._held, self.heard = b"\n".join(self._data), [], 0, True
                    yield data
            case b"event" | b"id" | b"retry":
                pass
            case _:
                self.heard = True


class Answer:
    """What the model has said so far, apart from the words."""

    def __init__(self) -> None:
        self.done = False
        self._finish: FinishReason | None = None
        self._events = _Events()
        self._understood = False
        self._spoke = False
        self._refused = False
        self._usage = Usage(0, 0)
        self._calls = Calls()

    @property
    def complete(self) -> bool:
        return self.done or self._finish is not None

    def read(self, chunk: bytes) -> Iterator[Piece]:
        """Read on, as far as `[DONE]`. Raises ModelCallFailed for an error, and for what is not the wire format.

        Once the model has said why it stopped, neither matters any more: what follows is read for its usage.
        """
        if self.done:
            return
        try:
            for data in self._events.feed(chunk):
                if data.strip() == b"[DONE]":
                    self.done = True
                    return
                if data.strip():
                    yield from self._take(data)
        except ModelCallFailed:
            if not self.complete:
                raise
            self.done = True

    def _take(self, data: bytes) -> Iterator[Piece]:
        try:
            yield from self._understand(_parsed(data))
        except ModelCallFailed:
            if not self.complete:
                raise

    def _understand(self, chunk: object) -> Iterator[Piece]:
        match chunk:
            case {"usage": dict() as usage}:
                self._usage = Usage(_tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens")))
        match chunk:
            case {"error": error} if error:
                raise _reported(error)
            case {"object": "error"}:  # vLLM, once
                raise _reported(chunk)
            case {"choices": [dict() as choice, *_]}:
                self._understood = True
                yield from self._choose(choice)
            case {"choices": [] | None}:
                self._understood = True
            case dict() if "choices" not in chunk:
                pass
            case _:
                raise ModelCallFailed("invalid_response")

    def _choose(self, choice: dict[str, Any]) -> Iterator[Piece]:
        match choice:
            case {"error": error} if error:
                raise _reported(error)
            case {"delta": dict() as delta}:
                yield from self._say(delta)
            case {"delta": other} if other is not None:
                raise ModelCallFailed("invalid_response")
        if reason := choice.get("finish_reason"):  # Ollama once had "" until the end
            reason = reason if isinstance(reason, str) else "stop"
            if (failure := _FAILURES.get(reason)) is not None:
                raise ModelCallFailed(failure)
            self._finish = _FINISH.get(reason, "stop")

    def _say(self, delta: dict[str, Any]) -> Iterator[Piece]:
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        text = delta.get("content") or ""
        refusal = delta.get("refusal") or ""
        if not all(isinstance(said, str) for said in (reasoning, text, refusal)):
            raise ModelCallFailed("invalid_response")
        self._spoke = self._spoke or bool(reasoning or text or refusal)
        self._refused = self._refused or bool(refusal)
        yield from map(ReasoningPiece, _cut(reasoning))
        yield from map(TextPiece, _cut(text))
        yield from map(TextPiece, _cut(refusal))
        for call in self._calls.read(delta.get("tool_calls") or []):
            yield from _cut_call(call)

    def ended(self) -> CallEnded:
        """The last piece. Raises ModelCallFailed if the stream ended before the model was done.

        A model that refused says so in words of its own; they are text, and `content-filter` tells them from an answer.
        """
        if not self.complete:
            foreign = self._events.heard and not self._understood
            raise ModelCallFailed("invalid_response" if foreign else "request_error")
        if self._finish is None and not self._spoke and not self._calls.are_there:
            raise ModelCallFailed("invalid_response")
        reason = self._finish or "stop"
        if reason in ("stop", "tool-calls"):  # some say the one where they mean the other
            reason = "tool-calls" if self._calls.are_there else "stop"
        return CallEnded("content-filter" if self._refused and reason == "stop" else reason, self._usage)


def _parsed(data: bytes) -> object:
    try:
        parsed: object = json.loads(data.decode(errors="replace"))
    except (ValueError, RecursionError) as error:
        raise ModelCallFailed("invalid_response") from error
    return parsed


def clean(text: str) -> str:
    """JSON can spell half a surrogate pair, UTF-8 cannot."""
    return _SURROGATE.sub("\ufffd", text)


def _cut(text: str) -> Iterator[str]:
    for start in range(0, len(text), MAX_PIECE_CHARACTERS):
        yield clean(text[start : start + MAX_PIECE_CHARACTERS])


def _cut_call(call: ToolCallPiece) -> Iterator[ToolCallPiece]:
    for arguments in _cut(call.arguments) if call.arguments else [""]:
        yield ToolCallPiece(clean(call.call_id), clean(call.name), arguments)


def _tokens(count: Any) -> int:
    """Zero for what cannot be a count: an answer is not lost for its bill."""
    return count if type(count) is int and 0 <= count <= _MAX_TOKENS else 0


def _reported(error: object) -> ModelCallFailed:
    codes = [str(error.get(key)) for key in ("code", "status", "type")] if isinstance(error, dict) else []
    return refusal(codes)


def refusal(codes: Sequence[str], retry_after_seconds: float | None = None) -> ModelCallFailed:
    """What an endpoint says by its status, or by the codes of an error amid the stream: the first known one counts."""
    error_type = next((ERROR_TYPES[code] for code in codes if code in ERROR_TYPES), "http_error")
    is_transient = error_type in RETRYABLE or any(map(_TRANSIENT.fullmatch, codes))
    return ModelCallFailed(
        error_type, is_retryable=is_transient and _SPENT not in codes, retry_after_seconds=retry_after_seconds
    )
