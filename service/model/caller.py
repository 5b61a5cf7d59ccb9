"""Who is asking, and how far what they see reaches."""

from dataclasses import dataclass
from typing import Final, Literal

from service.model.ids import OwnerId

Scope = Literal["read", "write", "ops", "complete"]
"""What a caller may do: read what it reaches, change it, operate the service, complete operations."""

SCOPES: Final[tuple[Scope, ...]] = ("read", "write", "ops", "complete")
_CROSSING: Final[frozenset[Scope]] = frozenset({"ops", "complete"})


@dataclass(frozen=True, slots=True)
class Own:
    """What belongs to one owner; with None, what belongs to nobody yet. Nobody is an owner like any other here: what
    has an owner is foreign to it."""

    owner: OwnerId | None


@dataclass(frozen=True, slots=True)
class Everyones:
    """Whatever there is."""


Reach = Own | Everyones
EVERYONES: Final = Everyones()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking: an owner, or the service itself (None), with what it may do."""

    name: str
    """For log lines: `local`, `user`, `stream token`, `key <id>` or `tool <name>`; no secret, and nothing that a person
    chose."""
    owner: OwnerId | None
    scopes: frozenset[Scope]
    is_local: bool = False
    """The one owner of a service that asks nobody who they are: whoever can reach it owns all that is in it."""
    tool: str | None = None
    """The remote tool whose secret signed what is asked: of all that it reaches, only that tool's operations."""

    def may(self, taken: frozenset[Scope]) -> bool:
        """Whether it has one of the scopes that a route takes."""
        return not self.scopes.isdisjoint(taken)

    def reach(self, taken: frozenset[Scope]) -> Reach:
        """What it reaches over a route that takes these scopes: its own; everything where it is the service's, and is
        let in to operate or to complete."""
        if self.is_local or (self.owner is None and not _CROSSING.isdisjoint(taken & self.scopes)):
            return EVERYONES
        return Own(self.owner)
