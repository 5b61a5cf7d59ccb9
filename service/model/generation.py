"""What goes into a model call and what comes out of it."""

from dataclasses import dataclass
from typing import Final

from service.model.events import FilePart, FinishReason, Json, TextPart, Usage
from service.model.session import Role

GO_ON: Final = (
    "Continue the task with this result. Do not repeat what is done. If the task is complete, give the final answer."
)
"""What a model is told behind the outcome of an operation."""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool that the model asked for, and what came of it. One value, so that no call is without its result."""

    call_id: str
    name: str
    input: Json
    output: Json


SpokenPart = TextPart | FilePart | ToolUse


@dataclass(frozen=True, slots=True)
class Utterance:
    """Said at once, as a model sees it: a user's message, or what the assistant said and asked for in one step."""

    role: Role
    parts: tuple[SpokenPart, ...]


@dataclass(frozen=True, slots=True)
class ToolDescription:
    """A tool as a model sees it; `schema` is the JSON Schema of its input."""

    name: str
    description: str
    schema: Json


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked with."""

    turn: tuple[Utterance, ...]
    """The message that this turn answers, then its steps so far and the messages that came between them."""
    earlier: tuple[Utterance, ...] = ()
    """The conversation before this turn."""
    system: str | None = None
    model: str | None = None
    """The model's name; None is the service's own."""
    tools: tuple[ToolDescription, ...] = ()
    """What may be asked for."""

    @property
    def conversation(self) -> tuple[Utterance, ...]:
        """All of it, in its order."""
        return self.earlier + self.turn


@dataclass(frozen=True, slots=True)
class TextPiece:
    """The model says a little more. Never empty, and always encodable as UTF-8."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningPiece:
    """The model thinks a little more. Never empty, and always encodable as UTF-8."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallPiece:
    """The model asks for a tool, or says more of the arguments to one that it asked for. Always encodable as UTF-8.

    All pieces of a call have its id, which no other call of the same answer has, and its name; `arguments` together are
    the text of a JSON object.
    """

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The model is done. Always the last piece, and there exactly once unless the call failed."""

    reason: FinishReason
    usage: Usage


Piece = TextPiece | ReasoningPiece | ToolCallPiece | CallEnded
