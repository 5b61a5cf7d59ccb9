"""Where an event stands in its log: `<ms>-<n>`.

`n` counts the log's events from 1 without a gap, so anyone can see that one is missing. `ms` is the writer's clock in
Unix milliseconds and never goes back within a log, so an event that replaced a lost one has another position.
"""

import re
from typing import Final, NamedTuple

from service.model.errors import InvalidInput

_FORM: Final = re.compile(r"([0-9]{1,16})-([0-9]{1,12})", re.ASCII)


class InvalidPosition(InvalidInput):
    """A position has the form <ms>-<n>, for example 1763700000000-42."""


class Position(NamedTuple):
    """One event's place. Positions of one log order as `(ms, n)`, which is the order of its events."""

    ms: int
    n: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.n}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Read `digits-digits`: ASCII, at most 16 and 12 digits, nothing around them.

        Raises InvalidPosition for anything else; whether the position names an event is the log's to say.
        """
        form = _FORM.fullmatch(text)
        if form is None:
            raise InvalidPosition
        return cls(int(form[1]), int(form[2]))

    @classmethod
    def stored(cls, text: bytes) -> "Position":
        """Read what a store gave back as it was given to it; not for anything that comes from outside."""
        ms, _, n = text.partition(b"-")
        return cls(int(ms), int(n))


BEGINNING: Final = Position(0, 0)
"""Before the first event of any log."""
