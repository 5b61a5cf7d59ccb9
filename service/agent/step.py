"""A step of a turn: one model call, tried again while that may help, and its tools; told in the log as it goes."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Final, assert_never

import structlog

from service.agent.asking import Asking
from service.agent.model_call import pieces_of
from service.agent.ports import Model
from service.agent.recorder import Recorder
from service.agent.retry import seconds_before
from service.agent.tools import CallRefused, Toolbox
from service.model import events as e
from service.model.failures import ModelCallFailed
from service.model.generation import CallEnded, Prompt, ReasoningPiece, TextPiece, ToolCallPiece
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

    async def make(self, claim: Claim, recorder: Recorder, prompt: Prompt, tools: Toolbox) -> None:
        """The step that is open, or the next one: the call, unless the log has it whole, and the results that it lacks.

        The step is left open. Raises ModelCallFailed for a call that failed for good.
        """
        if not (recorder.fold.step_is_open and recorder.fold.model_call_ended):
            await self._speak(claim, recorder, prompt, tools)
        await _use(recorder, tools)

    async def _speak(self, claim: Claim, recorder: Recorder, prompt: Prompt, tools: Toolbox) -> None:
        fold = recorder.fold
        retries = 0
        while True:
            await recorder.put(e.ResetStep() if fold.step_is_open else e.StartStep())
            try:
                await self._call(claim, recorder, prompt, Asking(recorder, tools))
            except ModelCallFailed as failure:
                retries += 1
                wait = seconds_before(retries, failure, self._draw)
                if wait is None:
                    raise
                log.info("model_call_retried", task_id=claim.task.id, retry=retries, error_type=failure.error_type)
                await recorder.put(e.DataRetry(e.RetryData(retries + 1, round(wait, 3), failure.error_type)))
                await self._clock.sleep(wait)
            else:
                return

    async def _call(self, claim: Claim, recorder: Recorder, prompt: Prompt, asking: Asking) -> None:
        begun = self._clock.monotonic()
        first: float | None = None
        said = 0
        usage = e.Usage(0, 0)
        reason: e.FinishReason = "length"
        async with aclosing(pieces_of(self._model, claim.task.id, prompt)) as pieces:
            async for piece in pieces:
                first = first if first is not None else self._clock.monotonic()
                match piece:
                    case TextPiece() | ReasoningPiece():
                        await recorder.say(piece)
                        said += len(piece.text)
                    case ToolCallPiece():
                        said += len(piece.arguments)
                        if not await asking.take(piece):
                            break
                    case CallEnded(reason, usage):
                        break
                    case other:
                        assert_never(other)
                if said > MAX_ANSWER_CHARACTERS:
                    break
        await recorder.close_parts()
        await asking.conclude()
        ended = self._clock.monotonic()
        call = e.CallMetadata(reason, usage, _ms((first or ended) - begun), _ms(ended - begun))
        await recorder.put(e.MessageMetadata(call))


async def _use(recorder: Recorder, tools: Toolbox) -> None:
    """Run what was asked for and has no result."""
    for call in recorder.fold.open_step_calls:
        if call["state"] != "input-available":
            continue
        call_id, name = call["toolCallId"], call["type"].removeprefix("tool-")
        try:
            output = await tools.run(name, call["input"])
        except CallRefused as refused:
            await recorder.put(e.ToolOutputError(call_id, str(refused)))
        else:
            await recorder.put(e.ToolOutputAvailable(call_id, output))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
