"""How deep a JSON value is, and how much there is in it."""

from typing import Any, Final

from service.model.events import Json

MAX_NESTING: Final = 64
"""Levels of what models, tools and services say: what is written around it, in an event, a message or an answer, adds
some, and each reader of JSON has a limit of its own, of which the least is 200."""

_NESTS: Final = (dict, list, tuple)


def is_too_deep(value: Json) -> bool:
    """Whether it has more than MAX_NESTING levels."""
    level: list[Any] = [value] if isinstance(value, _NESTS) else []
    for _ in range(MAX_NESTING):
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [each for values in inner for each in values if isinstance(each, _NESTS)]
        if not level:
            return False
    return True


def has_more_values(raw: bytes, most: int) -> bool:
    """Whether JSON has more values than this, none of which is made.

    Behind each comma and bracket one begins, which is all of them but the first. Strings have no such marks; they are
    looked for only where there are `most` of what may be one.
    """
    return _marks(raw, most) >= most


def _marks(raw: bytes, most: int) -> int:
    if (marks := sum(map(raw.count, (b",", b"[", b"{")))) < most:
        return marks
    unescaped = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    if unescaped.count(b'"') > 4 * most:  # two strings, a name and its value, for each of the marks
        return most
    outside = b"".join(unescaped.split(b'"')[::2])
    return sum(map(outside.count, (b",", b"[", b"{")))
