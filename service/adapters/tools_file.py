"""The file that says which remote tools there are: a JSON list, one object a tool."""

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from service.model.arguments import ArgumentSchema, InvalidSchema
from service.model.errors import ConfigurationError
from service.model.remote import OWN_TOOLS, RemoteTool

SETTING: Final = "PLAYHEAD_TOOLS_FILE"

MAX_FILE_BYTES: Final = 1024 * 1024
MAX_TOOLS: Final = 32
"""Every completion that is signed is held against the secrets of all of them."""

MAX_SCHEMA_BYTES: Final = 64 * 1024
"""Of one schema, as JSON: a model is told all of it, each time."""

PREFIX: Final = "whsec_"
LEAST_SECRET_BYTES, MOST_SECRET_BYTES = 24, 64
"""As Standard Webhooks has it ("Signature scheme")."""

MAX_CALL_SECONDS: Final = 300
MAX_DEADLINE_SECONDS: Final = 30 * 24 * 3600


class _Entry(BaseModel):
    """A tool as the file has it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: Annotated[str, Field(min_length=1, max_length=4000)]
    arguments: Annotated[dict[str, Any], Field(alias="schema")]
    url: Annotated[str, Field(max_length=2000)]
    secret: Annotated[str, Field(max_length=200)]
    deadline_seconds: Annotated[float, Field(gt=0, le=MAX_DEADLINE_SECONDS)] = 3600
    call_seconds: Annotated[float, Field(gt=0, le=MAX_CALL_SECONDS)] = 10
    is_repeatable: bool = False
    key_argument: str | None = None
    needs_approval: bool = False

    @field_validator("arguments")
    @classmethod
    def _is_schema(cls, schema: dict[str, Any]) -> dict[str, Any]:
        if len(orjson.dumps(schema)) > MAX_SCHEMA_BYTES:
            raise ValueError(f"a schema has {MAX_SCHEMA_BYTES} bytes at most")
        try:
            ArgumentSchema(schema)
        except InvalidSchema as error:
            raise ValueError(str(error)) from None
        return schema

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        if not _is_http_url(url):
            raise ValueError("a URL is expected that begins with http:// or https://, without spaces and fragment")
        return url

    @field_validator("secret")
    @classmethod
    def _is_secret(cls, secret: str) -> str:
        if not LEAST_SECRET_BYTES <= len(_key_of(secret)) <= MOST_SECRET_BYTES:
            raise ValueError(
                f"{PREFIX} and the base64 of {LEAST_SECRET_BYTES} to {MOST_SECRET_BYTES} bytes is expected"
            )
        return secret

    @model_validator(mode="after")
    def _fits_together(self) -> "_Entry":
        if self.call_seconds > self.deadline_seconds:
            raise ValueError("call_seconds: at most deadline_seconds")
        if self.key_argument is not None and self.key_argument not in self.arguments.get("properties", {}):
            raise ValueError("key_argument: the schema has no such property")
        return self

    def as_tool(self) -> RemoteTool:
        """The noun."""
        return RemoteTool(
            self.name,
            self.description,
            self.arguments,
            self.url,
            self.secret,
            self.deadline_seconds,
            self.call_seconds,
            self.is_repeatable,
            self.key_argument,
            self.needs_approval,
        )


_ENTRIES: Final = TypeAdapter(Annotated[list[_Entry], Field(max_length=MAX_TOOLS)])


def read_tools(file: Path) -> tuple[RemoteTool, ...]:
    """The tools of a file of MAX_FILE_BYTES at most, in its order.

    Raises ConfigurationError with one line that names the setting, the tool (by its place, from 1) and the field. What
    stands in the file is not repeated, but for names of fields that there are not.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _wrong(f"the file cannot be read: {type(error).__name__}") from None
    if len(data) > MAX_FILE_BYTES:
        raise _wrong(f"the file has more than {MAX_FILE_BYTES} bytes")
    try:
        entries = _ENTRIES.validate_python(orjson.loads(data))
    except orjson.JSONDecodeError as error:
        raise _wrong(f"the file is no JSON in UTF-8: line {error.lineno}, column {error.colno}") from None
    except ValidationError as error:
        raise _wrong(_reason(error)) from None
    for complaint in _repeated(entries):
        raise _wrong(complaint)
    return tuple(entry.as_tool() for entry in entries)


def _wrong(reason: str) -> ConfigurationError:
    return ConfigurationError(f"{SETTING}: {reason}")


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where, said = list(first["loc"]), first["msg"].removeprefix("Value error, ")
    if not where:
        return f"the file: {said}"
    places = [f"tool {int(where[0]) + 1}", *(str(part)[:64] for part in where[1:])]
    return "".join(each if each.isprintable() else "�" for each in ": ".join([*places, said]))


def _repeated(entries: list[_Entry]) -> Iterator[str]:
    """A name says which tool is called, a secret which tool completes: neither may say two."""
    names, keys = set[str](), set[bytes]()
    for number, entry in enumerate(entries, 1):
        if entry.name in OWN_TOOLS:
            yield f"tool {number}: name: a tool of the service's own has it"
        if entry.name in names:
            yield f"tool {number}: name: another tool has the same"
        if (key := _key_of(entry.secret)) in keys:
            yield f"tool {number}: secret: another tool has the same"
        names.add(entry.name)
        keys.add(key)


def _key_of(secret: str) -> bytes:
    """Nothing for what has not the form of a secret."""
    if not secret.startswith(PREFIX):
        return b""
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (ValueError, binascii.Error):
        return b""


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        has_place = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")  # as it will be asked for
    except ValueError:  # its reason may hold a piece of a password
        return False
    return has_place and "#" not in url and " " not in url and url.isascii() and url.isprintable()
