"""How a background command ended."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exited:
    """By itself, with this code; as usual, 0 says that it did what it was to do."""

    code: int


@dataclass(frozen=True, slots=True)
class Signalled:
    """By a signal, of this number: because somebody killed it, or the system did."""

    number: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Nobody knows how: what watched over it was killed, or it could not be ended. Processes of it may be left."""


CommandEnd = Exited | Signalled | Lost
