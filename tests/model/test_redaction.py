"""What people and models said is in no redacted event, whatever kind of event it stood in."""

from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import orjson
import pytest

from service.model import events as e
from service.model.encoding import decode, encode
from service.model.redaction import KEPT, redacted

SECRET = "Pssst, é\u0000 \U0001f600!"


def filled(kind: Any, pick: int) -> Any:
    """A value of this type in which every text is the secret; of what it may be, that one."""
    if kind is Any:
        return {SECRET: [SECRET, 7, 1.5, True, None, {"a": SECRET, "b": SECRET}]}
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return arguments[0]
    if origin in (Union, UnionType):
        return filled([one for one in arguments if one is not type(None)][pick], pick)
    if origin is tuple:
        return (filled(arguments[0], pick),)
    if origin is Annotated:
        return filled(arguments[0], pick)
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind, include_extras=True)
        return kind(**{f.name: filled(hints[f.name], pick) for f in fields(kind) if f.name != "type"})
    supertype = getattr(kind, "__supertype__", kind)
    return SECRET if supertype is str else supertype(3)


EVENTS = [encode(filled(kind, pick)) for kind in get_args(e.Chunk) for pick in (0, -1)]


def shape(value: Any) -> Any:
    match value:
        case dict():
            return [(len(key), shape(inner)) for key, inner in value.items()]
        case list():
            return [shape(inner) for inner in value]
        case str():
            return len(value)
        case _:
            return type(value)


def secrets_of(value: Any, name: str = "") -> set[str]:
    """In which fields the secret stands."""
    match value:
        case dict():
            found = {f"a name in {name}" for key in value if key == SECRET}
            return found.union(*(secrets_of(inner, key) for key, inner in value.items()))
        case list():
            return set().union(*(secrets_of(inner, name) for inner in value))
        case _:
            return {name} if value == SECRET else set()


@pytest.mark.parametrize("data", EVENTS, ids=[orjson.loads(data)["type"] for data in EVENTS])
def test_nothing_said_is_left_and_the_shape_stays(data: bytes) -> None:
    blanked = redacted(data)
    said, left = orjson.loads(data), orjson.loads(blanked)
    assert secrets_of(left) <= KEPT
    assert shape(left) == shape(said)
    assert type(decode(blanked)) is type(decode(data))
    assert redacted(blanked) == blanked


def test_every_field_that_stays_is_one() -> None:
    names = set().union(*(secrets_of(orjson.loads(data)) for data in EVENTS))
    assert names >= KEPT - {"type", "status", "finishReason"}  # which have no words of their own
    assert names - KEPT >= {"delta", "text", "inputTextDelta", "content", "errorText", "reason", "url", "title"}


def test_of_an_event_of_another_version_the_type_and_the_shape_stay() -> None:
    data = orjson.dumps({"type": "data-new", "id": SECRET, "a": {"type": SECRET}})
    left = orjson.loads(redacted(data))
    assert (left["type"], secrets_of(left), shape(left)) == ("data-new", set(), shape(orjson.loads(data)))
    newer = orjson.dumps({"type": "start-step", SECRET: SECRET})
    assert redacted(newer) == b'{"type":"start-step"}'


@pytest.mark.parametrize("data", [b"", b"{", b'{"type":"text-delta","delta":"Pssst"}', b'"Pssst"', b"[1"])
def test_what_cannot_be_read_is_blanked_whole(data: bytes) -> None:
    assert set(redacted(data)) <= set(b'"x')
