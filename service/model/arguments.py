"""The JSON Schema of a tool's arguments, compiled once. Pure.

The schema is an operator's; what is held against it is a model's, and may be made to cost time. So a `pattern` is
matched in linear time (look-around and back-references, which cannot be, are refused with the schema), nothing is
fetched, and `$ref` leads into the schema itself or into the standard's own. `format` says nothing, as in the standard.
A schema whose alternatives multiply (`anyOf` of `anyOf` …) takes as long as its author made it.
"""

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import jsonschema_rs

from service.model.errors import InvalidInput
from service.model.events import Json

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"

_DRAFTS: Final = (DRAFT, f"{DRAFT}#")

MAX_ERROR_CHARACTERS: Final = 500
"""Of all that is said of one value."""

MAX_ERRORS: Final = 5
"""So many places of a value are told, the first ones."""

MAX_PATTERN_BYTES: Final = 1024 * 1024
"""Of one compiled pattern; one that needs more is refused with its schema."""

_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=MAX_PATTERN_BYTES, dfa_size_limit=MAX_PATTERN_BYTES)
_VALUE: Final = "the value"


class InvalidSchema(InvalidInput):
    """This is no JSON Schema of a tool's arguments."""


class ArgumentSchema:
    """What arguments of a tool have to be: an object, by a JSON Schema (2020-12).

    Raises InvalidSchema with one line that says where the schema is wrong.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        if schema.get("$schema", DRAFT) not in _DRAFTS:
            raise InvalidSchema(f"$schema: only {DRAFT} is known")
        if schema.get("type") != "object":
            raise InvalidSchema("type: arguments are an object")
        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                dict(schema), validate_formats=False, offline=True, pattern_options=_PATTERNS, mask=_VALUE
            )
        except jsonschema_rs.ValidationError as error:
            raise InvalidSchema(_cut(_complaint(error))) from None
        except ValueError:
            raise InvalidSchema("it has too many levels") from None

    def errors_of(self, value: Json) -> str | None:
        """What is the matter with a value, as orjson reads one, in one line; None where nothing is.

        It names places and what is expected there, and no value that was given. At most MAX_ERRORS places, and
        MAX_ERROR_CHARACTERS.
        """
        said = [_complaint(error) for error in islice(self._validator.iter_errors(value), MAX_ERRORS)]
        return _cut("; ".join(said)) if said else None


def _complaint(error: jsonschema_rs.ValidationError) -> str:
    place = ".".join(str(part) for part in error.instance_path)
    said = error.message
    if said.endswith('is not a "regex"'):
        said = "a pattern without look-around and back-references is expected, of moderate size"
    return f"{place}: {said}" if place else said


def _cut(text: str) -> str:
    """In one line, and printable: places may be named by whoever gave the value."""
    plain = "".join(each if each.isprintable() else "�" for each in text[:MAX_ERROR_CHARACTERS])
    return plain if len(text) <= MAX_ERROR_CHARACTERS else f"{plain[:-1]}…"
