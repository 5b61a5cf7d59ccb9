"""What goes into a model call and what comes out of it."""

from dataclasses import dataclass

from service.model.events import FinishReason, InputPart, Usage
from service.model.session import Role


@dataclass(frozen=True, slots=True)
class Utterance:
    """One message of the conversation as a model sees it."""

    role: Role
    parts: tuple[InputPart, ...]


@dataclass(frozen=True, slots=True)
class TextPiece:
    """The model says a little more. Never empty, and always encodable as UTF-8."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningPiece:
    """The model thinks a little more. Never empty, and always encodable as UTF-8."""

    text: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The model is done. Always the last piece, and there exactly once unless the call failed."""

    reason: FinishReason
    usage: Usage


Piece = TextPiece | ReasoningPiece | CallEnded
