"""`playhead keys`: what programs may ask with."""

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Final

import orjson
import typer

from service.access.keys import REMEMBERED_SECONDS, mint
from service.access.owners import owner_id
from service.cli.streams import say, write_out
from service.model.api_key import ApiKey, KeyId, NewKey
from service.model.caller import SCOPES, Scope
from service.model.errors import InvalidInput, NotFound
from service.model.ids import OwnerId
from service.settings import load_settings
from service.wiring import open_keys

MAX_LISTED: Final = 1000
MAX_NAME_CHARACTERS: Final = 100
MAX_LIFETIME_SECONDS: Final = 10 * 366 * 86_400
_LIFETIME: Final = re.compile(r"([1-9][0-9]{0,8})([smhd])", re.ASCII)
_SECONDS: Final = MappingProxyType({"s": 1, "m": 60, "h": 3600, "d": 86_400})
_COLUMNS: Final = ("id", "of", "scopes", "name", "made", "expires", "state")


class GivenScope(StrEnum):
    """A scope, as an option takes it."""

    READ = "read"
    WRITE = "write"
    OPS = "ops"
    COMPLETE = "complete"


keys = typer.Typer(no_args_is_help=True, help="API keys, in the database at PLAYHEAD_POSTGRES_URL.")
Json = Annotated[bool, typer.Option("--json", help="For programs.")]


@keys.command("create")
def create(
    scope: Annotated[list[GivenScope], typer.Option(help="What it may do; give it more than once for more.")],
    owner: Annotated[str | None, typer.Option(help="Whose it is.")] = None,
    service: Annotated[bool, typer.Option("--service", help="It is the service's own.")] = False,  # noqa: FBT002
    name: Annotated[str, typer.Option(help="What it is for, for people.")] = "",
    expires_in: Annotated[str | None, typer.Option(help="90s, 30m, 12h or 30d; without it, never.")] = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Make a key, and print it: this once, since only a hash of it is kept."""
    scopes: list[Scope] = [each for each in SCOPES if each in scope]
    text, new = mint(_owner(owner, service=service), scopes, _name(name), _lifetime_seconds(expires_in))
    made = asyncio.run(_create(new))
    if as_json:
        write_out(_json(_plain(made) | {"key": text}))
        return
    write_out(f"{text}\n")
    say(f"Key {made.id}. Keep it: it is not shown again.")


@keys.command("list")
def list_keys(as_json: Json = False) -> None:  # noqa: FBT002
    """List the keys, newest first."""
    found = asyncio.run(_list())
    if as_json:
        write_out("".join(_json(_plain(key)) for key in found[:MAX_LISTED]))
    else:
        write_out(_table([_COLUMNS, *map(_row, found[:MAX_LISTED])]))
    if len(found) > MAX_LISTED:
        say(f"There are more: these are the newest {MAX_LISTED}.")


@keys.command("revoke")
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False) -> None:  # noqa: FBT002
    """Have a key refused from now on; harmless to repeat."""
    revoked = asyncio.run(_revoke(key_id))
    if as_json:
        write_out(_json(_plain(revoked)))
    else:
        write_out(f"key {revoked.id} is revoked; it stops working within {REMEMBERED_SECONDS:.0f} s\n")


async def _create(new: NewKey) -> ApiKey:
    async with open_keys(load_settings()) as store:
        return await store.create(new)


async def _list() -> Sequence[ApiKey]:
    async with open_keys(load_settings()) as store:
        return await store.list(MAX_LISTED + 1)


async def _revoke(text: str) -> ApiKey:
    async with open_keys(load_settings()) as store:
        if (revoked := await store.revoke(KeyId(text))) is None:
            raise NotFound("There is no key with this id: `playhead keys list` shows those that there are.")
        return revoked


def _owner(text: str | None, *, service: bool) -> OwnerId | None:
    if (text is None) is not service:
        raise InvalidInput("Say whose it is: --owner, or --service, one of the two.")
    owner = None if text is None else owner_id(text)
    if text is not None and owner is None:
        raise InvalidInput("--owner: 1 to 255 characters are taken, and no control characters.")
    return owner


def _name(text: str) -> str:
    if len(text) > MAX_NAME_CHARACTERS or not text.isprintable():
        raise InvalidInput(f"--name: up to {MAX_NAME_CHARACTERS} characters are taken that can be printed.")
    return text


def _lifetime_seconds(text: str | None) -> int | None:
    if text is None:
        return None
    shown = _LIFETIME.fullmatch(text)
    seconds = int(shown[1]) * _SECONDS[shown[2]] if shown else 0
    if not 0 < seconds <= MAX_LIFETIME_SECONDS:
        raise InvalidInput("--expires-in: a number and s, m, h or d is taken, ten years at most: 30d.")
    return seconds


def _plain(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "owner": key.owner,
        "scopes": sorted(key.scopes),
        "name": key.name,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "state": _state(key),
    }


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= datetime.now(UTC) else "good"


def _row(key: ApiKey) -> Sequence[str]:
    whose = "the service" if key.owner is None else repr(key.owner)
    times = [f"{moment:%Y-%m-%d %H:%M}Z" if moment else "never" for moment in (key.created_at, key.expires_at)]
    return key.id, whose, ",".join(sorted(key.scopes)), key.name, *times, _state(key)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def _json(value: dict[str, Any]) -> str:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z).decode()
