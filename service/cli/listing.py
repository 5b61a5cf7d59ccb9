"""Lists: tables for people, a line an entry with tabs in a pipe, an array of JSON for programs."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import orjson

from service.cli.screen import Screen

ROWS: Final = 100
"""So many are a table of their own: no more are held, however long the list is."""

Entry: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """What a table shows of an entry."""

    name: str
    cell: Callable[[Entry], str]
    least_width: int = 0
    """Only a terminal of so many characters has room for it."""


@dataclass(frozen=True, slots=True)
class Listing:
    """How a kind of entries is listed."""

    columns: Sequence[Column]
    fields: Sequence[str]
    """Of an entry, in the order in which a pipe gets them."""


async def show_all(entries: AsyncGenerator[dict[str, Any]], listing: Listing, *, as_json: bool) -> None:
    """Print the entries as they come, a hundred at a time."""
    screen, rows = Screen(), list[Entry]()
    separator = b"["
    async with aclosing(entries):
        async for entry in entries:
            if as_json:
                screen.pass_on(separator + orjson.dumps(entry))
                separator = b",\n "
                continue
            rows.append(entry)
            if len(rows) == ROWS:
                _show(rows, listing, screen)
                rows.clear()
    if as_json:
        screen.pass_on(b"]\n" if separator != b"[" else b"[]\n")
    elif rows:
        _show(rows, listing, screen)


def _show(rows: Sequence[Entry], listing: Listing, screen: Screen) -> None:
    if not screen.is_terminal:
        screen.table(listing.fields, [[shown(entry.get(name)) for name in listing.fields] for entry in rows])
        return
    columns = [column for column in listing.columns if column.least_width <= screen.width]
    screen.table([column.name for column in columns], [[column.cell(entry) for column in columns] for entry in rows])


def shown(value: Any) -> str:
    """A value of an entry; nothing where there is none."""
    return "" if value is None else str(value)


def of(name: str) -> Callable[[Entry], str]:
    """The cell that is this field."""
    return lambda entry: shown(entry.get(name))


def age(since: str, until: str | None = None) -> Callable[[Entry], str]:
    """The cell that says in words how long ago a field's time is; or how long before another one's."""

    def cell(entry: Entry) -> str:
        begun, ended = _moment(entry.get(since)), datetime.now(UTC) if until is None else _moment(entry.get(until))
        return "" if begun is None or ended is None else in_words((ended - begun).total_seconds())

    return cell


def in_words(seconds: float) -> str:
    """A time that has passed, as people say it."""
    for unit, length, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds < most * length:
            return f"{max(0, int(seconds // length))} {unit}"
    return f"{int(seconds // 86_400)} days"


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
