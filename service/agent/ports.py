"""What the agent needs of the outside."""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from service.model.generation import Piece, Utterance
from service.model.ids import TaskId


class Model(Protocol):
    """A language model."""

    @property
    def provider(self) -> str:
        """Who asks for the key, as a person would name it; told with `data-authentication-required`."""

    def stream(self, task_id: TaskId, conversation: Sequence[Utterance]) -> AsyncGenerator[Piece]:
        """Answer the conversation, piece by piece, ending with CallEnded.

        Tries once. Raises ModelCallFailed with its type, before or amid the pieces; a model that connects too slowly or
        is silent for too long is a `timeout`. Closing the generator ends the call at the provider. `task_id` tells
        repeated calls for one task apart from others; nothing of it reaches a provider.
        """
