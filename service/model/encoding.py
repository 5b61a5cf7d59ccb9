"""Chunks to bytes and back: each event is encoded once, when it is written, and never again for a reader."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Final, get_args

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from service.model.errors import PlayheadError
from service.model.events import Chunk, DataGap, Finish, ReasoningDelta, TextDelta, Unknown
from service.model.log import StoredEvent

MAX_EVENT_BYTES: Final = 256 * 1024
"""One encoded event is at most this long; whoever makes events caps what goes into them."""


class EventTooLarge(PlayheadError):
    """An event is larger than a log accepts."""

    error_type = "event_too_large"


class UnencodableEvent(PlayheadError):
    """An event holds something that JSON cannot say."""

    error_type = "validation_error"


class BrokenEvent(PlayheadError):
    """A stored event cannot be read."""


def encode(chunk: Chunk | DataGap) -> bytes:
    """The chunk as one line of JSON in UTF-8, `type` first.

    Raises EventTooLarge above MAX_EVENT_BYTES, UnencodableEvent for what JSON cannot hold (a lone surrogate, NaN as
    anything but null, an integer beyond 64 bits).
    """
    kind: type = type(chunk)
    try:
        data = orjson.dumps(_plainer(kind)(chunk))
    except orjson.JSONEncodeError as error:
        raise UnencodableEvent from error
    if len(data) > MAX_EVENT_BYTES:
        raise EventTooLarge
    return b"%b" % data  # a copy of its own length: the encoder's result keeps 4 KiB for as long as it lives


def decode(data: bytes) -> Chunk | Unknown:
    """The chunk that these bytes say; a type that this version does not know comes back as Unknown.

    Raises BrokenEvent for anything that is no JSON object with a `type`, or lacks what its type requires. Its cause
    names the field, and does not repeat what is in it.
    """
    try:
        plain = orjson.loads(data)
        name = plain["type"]
        if name not in _TYPES:
            return Unknown(str(name), data)
        return _CHUNK.validate_json(data)
    except (ValueError, TypeError, KeyError, ValidationError) as error:
        raise BrokenEvent from error


def is_terminal(data: bytes) -> bool:
    """Whether an encoded event is the terminal one; `type` comes first in every event."""
    return data.startswith(_TERMINAL_TYPE)


def is_one_of(data: bytes, kinds: Iterable[type]) -> bool:
    """Whether an encoded event is of one of these kinds; `type` comes first in every event."""
    return any(data.startswith(_beginning(kind)) for kind in kinds)


def joined(first: bytes, second: bytes) -> bytes | None:
    """Two encoded deltas of one part as one, without decoding either; None where the two are anything else.

    `delta` is the last field of a delta, so the second one's text can stand before the first one's closing quote.
    """
    cut = second.find(_DELTA_FIELD)
    if cut < 0 or not second.startswith(_DELTA_TYPES):
        return None
    text = cut + len(_DELTA_FIELD)
    if first[:text] != second[:text] or len(first) + len(second) - text > MAX_EVENT_BYTES:
        return None
    return first[:-2] + second[text:]


def frames(events: Sequence[StoredEvent]) -> bytes:
    """Stored events as SSE bytes: for each its position, its JSON, and the blank line that ends it."""
    return b"".join([b"id: %b\ndata: %b\n\n" % event for event in events])


def framed(ms: int, first: int, encoded: Iterable[bytes]) -> bytes:
    """Encoded events as SSE bytes: all of the time `ms`, numbered from `first` on."""
    return b"".join([b"id: %d-%d\ndata: %b\n\n" % (ms, n, data) for n, data in enumerate(encoded, first)])


def unframed(joint: bytes) -> list[StoredEvent]:
    """The events that joined frames say, none of which has a line break in it."""
    lines = joint.split(b"\n")
    return [
        (position.removeprefix(b"id: "), data.removeprefix(b"data: "))
        for position, data in zip(lines[::3], lines[1::3], strict=False)
    ]


def plain(value: Any) -> Any:
    """A chunk, or a value inside one, as the dict that JSON shows; anything else as it is."""
    kind = type(value)
    if is_dataclass(kind):
        return _plainer(kind)(value)
    if kind is tuple:
        return [plain(item) for item in value]
    return value


@cache
def _plainer(kind: type) -> Callable[[Any], dict[str, Any]]:
    """How a dataclass becomes a dict: which fields there are is found out once a class."""
    wire = [(f.name, to_camel(f.name), f.default is None) for f in fields(kind)]
    first = [(name, key, optional) for name, key, optional in wire if key == "type"]
    rest = [(name, key, optional) for name, key, optional in wire if key != "type"]

    def as_dict(value: Any) -> dict[str, Any]:
        result = {}
        for name, key, optional in first + rest:
            field = getattr(value, name)
            if field is not None or not optional:
                result[key] = field if type(field) is str else plain(field)
        return result

    return as_dict


@cache
def _beginning(kind: type) -> bytes:
    return b'{"type":"%b"' % _type_name(kind).encode()


def _type_name(kind: Any) -> str:
    (name,) = (f.default for f in fields(kind) if f.name == "type" and f.default is not MISSING)
    return str(name)


_DELTA_FIELD: Final = b',"delta":"'
_DELTA_TYPES: Final = tuple(b'{"type":"%b","id":' % _type_name(kind).encode() for kind in (TextDelta, ReasoningDelta))
_TERMINAL_TYPE: Final = b'{"type":"%b",' % _type_name(Finish).encode()
_TYPES: Final = frozenset(_type_name(kind) for kind in get_args(Chunk))
_CHUNK: Final[TypeAdapter[Chunk]] = TypeAdapter(
    Annotated[Chunk, Field(discriminator="type")], config=ConfigDict(hide_input_in_errors=True)
)


def rfc3339(moment: datetime) -> str:
    """A moment in UTC as it is told everywhere: to the millisecond."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
