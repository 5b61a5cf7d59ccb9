"""How deep a JSON value is."""

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
