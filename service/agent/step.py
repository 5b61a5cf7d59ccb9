"""A step of a turn: one model call, tried again while that may help, told in the log as it goes."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Final, assert_never

import structlog

from service.agent.model_call import pieces_of
from service.agent.ports import Model
from service.agent.recorder import Recorder
from service.agent.retry import seconds_before
from service.model import events as e
from service.model.failures import ModelCallFailed
from service.model.generation import CallEnded, ReasoningPiece, TextPiece, Utterance
from service.model.task import Claim

log = structlog.get_logger()

MAX_ANSWER_CHARACTERS: Final = 16 * 1024 * 1024
"""Of one model call; a model that says more is ended there, as if it had reached its own `length`."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as a turn sees it."""

    now: Callable[[], datetime]
    """The time of day, in UTC."""
    monotonic: Callable[[], float]
    """Seconds that only go forward."""
    sleep: Callable[[float], Awaitable[object]]
    """Lets so many seconds pass."""


class Steps:
    """Makes steps. `draw` gives numbers from 0 to 1, for waits that differ."""

    def __init__(self, model: Model, clock: Clock, draw: Callable[[], float]) -> None:
        self._model = model
        self._clock = clock
        self._draw = draw

    @property
    def provider(self) -> str:
        """Who asks for the model's key."""
        return self._model.provider

    async def make(self, claim: Claim, recorder: Recorder, conversation: Sequence[Utterance]) -> e.FinishReason:
        """The step whose call the log does not have whole; one that it has is not made again.

        Raises ModelCallFailed for a call that failed for good; the step is left open then.
        """
        fold = recorder.fold
        if fold.model_call_ended:
            return fold.model_reason
        retries = 0
        while True:
            await recorder.put(e.ResetStep() if fold.step_is_open else e.StartStep())
            try:
                return await self._call(claim, recorder, conversation)
            except ModelCallFailed as failure:
                retries += 1
                wait = seconds_before(retries, failure, self._draw)
                if wait is None:
                    raise
                log.info("model_call_retried", task_id=claim.task.id, retry=retries, error_type=failure.error_type)
                await recorder.put(e.DataRetry(e.RetryData(retries + 1, round(wait, 3), failure.error_type)))
                await self._clock.sleep(wait)

    async def _call(self, claim: Claim, recorder: Recorder, conversation: Sequence[Utterance]) -> e.FinishReason:
        begun = self._clock.monotonic()
        first: float | None = None
        said = 0
        usage = e.Usage(0, 0)
        reason: e.FinishReason = "length"
        async with aclosing(pieces_of(self._model, claim.task.id, conversation)) as pieces:
            async for piece in pieces:
                first = first if first is not None else self._clock.monotonic()
                match piece:
                    case TextPiece() | ReasoningPiece():
                        await recorder.say(piece)
                        said += len(piece.text)
                    case CallEnded(reason, usage):
                        break
                    case other:
                        assert_never(other)
                if said > MAX_ANSWER_CHARACTERS:
                    break
        await recorder.close_parts()
        ended = self._clock.monotonic()
        call = e.CallMetadata(reason, usage, _ms((first or ended) - begun), _ms(ended - begun))
        await recorder.put(e.MessageMetadata(call))
        return reason


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
