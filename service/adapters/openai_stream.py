"""Reading a chat completion's stream: bytes to events, events to pieces. Pure: whoever has the bytes hands them in."""

import json
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from service.model.events import FinishReason, Usage
from service.model.failures import ModelCallFailed
from service.model.generation import CallEnded, Piece, ReasoningPiece, TextPiece

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
"""One event of the stream. A longer one, or a line without an end, is an `invalid_response`."""

MAX_PIECE_CHARACTERS: Final = 16 * 1024
"""One piece: at most 64 KiB of UTF-8, and below 128 KiB as JSON even if every character is escaped."""

_LINE_BYTES: Final = 64
"""What a line of an event takes in memory beyond its bytes, roughly."""

_MAX_TOKENS: Final = 2**31 - 1
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_FIELDS: Final = frozenset({b"", b"data", b"event", b"id", b"retry"})
_FINISH: Final[Mapping[object, FinishReason]] = MappingProxyType(
    {"stop": "stop", "length": "length", "content_filter": "content-filter"}
)
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


class Answer:
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


def clean(text: str) -> str:
    """JSON can spell half a surrogate pair, UTF-8 cannot."""
    return _SURROGATE.sub("\ufffd", text)


def _cut(text: str) -> Iterator[str]:
    for start in range(0, len(text), MAX_PIECE_CHARACTERS):
        yield clean(text[start : start + MAX_PIECE_CHARACTERS])


def _tokens(count: object) -> int:
    """Zero for what cannot be a count: an answer is not lost for its bill."""
    return count if isinstance(count, int) and 0 <= count <= _MAX_TOKENS else 0


def _reported_type(error: object) -> str:
    if isinstance(error, dict):
        for key in ("code", "status", "type"):
            if (known := ERROR_TYPES.get(str(error.get(key)))) is not None:
                return known
    return "http_error"
