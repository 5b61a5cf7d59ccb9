"""A step of a turn, as the database keeps it until the turn has ended."""

from dataclasses import dataclass

from service.model.events import CallMetadata
from service.model.fold import Part
from service.model.session import Promoted


@dataclass(frozen=True, slots=True)
class CompletedStep:
    """All that was said and done in a step whose model call has ended and whose calls have results."""

    number: int
    """From 1."""
    parts: tuple[Part, ...]
    call: CallMetadata


@dataclass(frozen=True, slots=True)
class KeptStep:
    """A step as it was kept, and the messages that were taken in behind it."""

    step: CompletedStep
    promoted: tuple[Promoted, ...]
