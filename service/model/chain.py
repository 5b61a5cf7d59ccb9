"""What proves a log: its events are dense, its time never goes back, it ends with its one terminal event; and a chain.

The chain is `h(0)` = 32 zero bytes and `h(i)` = SHA-256(`h(i-1)` followed by the i-th frame), over the frames as
readers get them: `id: <position>`, a line feed, `data: <JSON>`, two line feeds. Who has a log from anywhere and its
last link can tell whether a byte of it is another one, missing or added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeAlias

from service.model.encoding import is_terminal
from service.model.errors import PlayheadError
from service.model.log import StoredEvent
from service.model.position import BEGINNING, Position

BEFORE_THE_FIRST: Final = bytes(32)
"""The link of a log of which nothing was read yet."""

Row: TypeAlias = tuple[int, int, bytes]
"""An event as it is archived: its number, its time in Unix milliseconds, its JSON."""


class NotWhole(PlayheadError):
    """What is stored of a log is not whole."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What is proven of a log, as far as it was read."""

    events: int
    last: Position
    link: bytes
    """Of the last event, 32 bytes."""
    ended: bool
    """Whether the last event is the terminal one."""


NOTHING_READ: Final = Proof(0, BEGINNING, BEFORE_THE_FIRST, ended=False)


def link(before: bytes, event: StoredEvent) -> bytes:
    """The chain's link of an event, from that of the event before it."""
    return sha256(b"%bid: %b\ndata: %b\n\n" % (before, *event)).digest()


def proven(before: Proof, events: Sequence[StoredEvent]) -> tuple[Proof, list[Row]]:
    """The proof with these events behind it, and they as rows. A log may begin at any number: its start may be lost.

    Raises NotWhole where a number is missing or comes twice, time goes back, or something follows the terminal event.
    """
    rows: list[Row] = []
    ms, n = before.last
    its_link, ended, counted = before.link, before.ended, before.events > 0
    for event in events:
        ms_text, _, n_text = event[0].partition(b"-")  # a Position each would take a fifth of the time of it all
        its_ms, its_n = int(ms_text), int(n_text)
        if ended or its_ms < ms or (counted and its_n != n + 1):
            raise NotWhole
        ms, n, counted = its_ms, its_n, True
        its_link = link(its_link, event)
        ended = is_terminal(event[1])
        rows.append((n, ms, event[1]))
    return Proof(before.events + len(rows), Position(ms, n), its_link, ended), rows
