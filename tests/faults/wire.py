"""What can be wrong with a line between two processes."""

from dataclasses import dataclass
from enum import Enum


class Way(Enum):
    """Which way bytes go: from the client up to the server, or down to the client."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Delay:
    """Everything arrives so much later, in its order."""

    seconds: float


@dataclass(frozen=True, slots=True)
class SwallowReply:
    """The server did what it was asked, and its answer is lost with the connection; `once`, and then all is well."""

    once: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """Whatever is connected when this begins is cut; what connects later works."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Whatever is connected is cut, and so is whatever connects."""


@dataclass(frozen=True, slots=True)
class BlackHole:
    """Nothing arrives, and nobody is told. What was sent arrives when this is over, as TCP would have it."""


@dataclass(frozen=True, slots=True)
class OneWay:
    """A black hole for what goes the other way."""

    passes: Way


@dataclass(frozen=True, slots=True)
class Slices:
    """Everything arrives in pieces of so many bytes."""

    size: int


@dataclass(frozen=True, slots=True)
class Hold:
    """The first connection on which `pattern` goes up stops there, until this is over.

    `Way.UP`: the request is held, the server never sees it. `Way.DOWN`: the server gets it and its answer is held;
    `behind` answers are let through first, such as those of a statement's preparation.
    """

    pattern: bytes
    way: Way
    behind: int = 0


Fault = Delay | SwallowReply | Reset | Refuse | BlackHole | OneWay | Slices | Hold

EVERY: tuple[Fault, ...] = (
    Delay(0.2),
    SwallowReply(),
    Reset(),
    BlackHole(),
    OneWay(Way.UP),
    OneWay(Way.DOWN),
    Slices(1),
)
"""Each kind of fault that needs to know nothing of what is said; slices of one byte."""
