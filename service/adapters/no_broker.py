"""In the place of a message broker, where none is set."""

from collections.abc import Sequence
from typing import NoReturn

from service.model.errors import NoBroker
from service.model.intake import DeadLetter, DeadReason


class NoDeadLetters:
    """The port `DeadLetterBox`: whoever asks for them is told why there are none."""

    async def list(self, limit: int) -> Sequence[DeadLetter]:
        raise NoBroker

    async def redrive(self, by: str, *, reason: DeadReason | None = None, letter_id: str | None = None) -> NoReturn:
        raise NoBroker
