"""Events without what people and models said: for whoever looks at a log and must not read it.

What is not known to be harmless is blanked. Of a text its length in characters is kept; of a tool's input and output,
and of what an operation says, the shape: names of fields are replaced by others of their length, numbers are 0. Fields
that this version does not know are left out; of an event of a type that it does not know the shape is kept.
"""

from typing import Any, Final

import orjson

from service.model.encoding import BrokenEvent, decode, plain
from service.model.events import Unknown

KEPT: Final = frozenset(
    {
        *("type", "id", "messageId", "taskId", "sessionId", "toolCallId", "approvalId", "toolName"),
        *("status", "errorType", "finishReason", "startedAt", "finishedAt", "deadline", "mediaType", "provider"),
    }
)
"""Fields whose texts say who and when, not what."""

FREE: Final = frozenset({"input", "output", "progress", "outcome"})
"""Fields in which anything may stand."""


def redacted(data: bytes) -> bytes:
    """An encoded event, blanked. One that cannot be read becomes as long a text, which cannot be read either."""
    try:
        chunk = decode(data)
    except BrokenEvent:
        return b'"%b"' % (b"x" * max(0, len(data) - 2))
    if isinstance(chunk, Unknown):
        fields = orjson.loads(data)
        fields.pop("type")
        return orjson.dumps({"type": chunk.type} | _blank(fields))
    return orjson.dumps(_redacted(plain(chunk)))


def _redacted(value: Any, name: str = "") -> Any:
    match value:
        case _ if name in FREE:
            return _blank(value)
        case dict():
            return {key: _redacted(inner, key) for key, inner in value.items()}
        case list():
            return [_redacted(inner, name) for inner in value]
        case str() if name not in KEPT:
            return _blank(value)
        case _:
            return value


def _blank(value: Any) -> Any:
    """The same shape, with nothing in it."""
    match value:
        case dict():
            return {str(i).rjust(len(key), "x"): _blank(inner) for i, (key, inner) in enumerate(value.items())}
        case list():
            return [_blank(inner) for inner in value]
        case str():
            return "x" * len(value)
        case None:
            return None
        case _:
            return type(value)(0)
