"""The steps of a turn, until the model asks for nothing more. Between two of them, what waits in the mailbox comes in.

Whoever goes on looks at the log alone: a step that is open is brought to its end; behind one that has ended, what the
mailbox gave and the log lacks is told first.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from service.agent.cancellation import Cancellation
from service.agent.context import Context, input_parts
from service.agent.patience import Patience
from service.agent.recorder import Recorder
from service.agent.step import Clock, Steps
from service.agent.tools import Toolbox
from service.model import events as e
from service.model.failures import ModelCallFailed
from service.model.generation import Prompt
from service.model.task import Claim
from service.sessions.ports import Mailbox

MAX_STEPS: Final = 25
"""That may ask for tools, where the session is not set otherwise; then one more is made without."""


class Loop:
    """Makes the steps of turns."""

    def __init__(self, steps: Steps, tools: Toolbox, mailbox: Mailbox, patiently: Patience, clock: Clock) -> None:
        self._steps = steps
        self._tools = tools
        self._mailbox = mailbox
        self._patiently = patiently
        self._clock = clock

    async def run(
        self, claim: Claim, recorder: Recorder, context: Context, cancellation: Cancellation
    ) -> e.FinishReason:
        """All that is left of the turn; answers why its model stopped. The last step is left open.

        Raises Cancelled, and ModelCallFailed for a call that failed for good, or a turn that takes too long.
        """
        fold = recorder.fold
        untold = context.promoted.difference(each.message.id for each in fold.promoted)
        if not fold.step_is_open and (fold.steps or untold):
            await self._between(claim, recorder, cancellation)
            untold = frozenset()
        limit = context.settings.max_iterations or MAX_STEPS
        while True:
            is_last = fold.steps + (not fold.step_is_open) > limit
            tools = Toolbox() if is_last else self._tools
            if is_last and not fold.step_is_open:
                await _tell_limit(recorder, limit)
            async with cancellation.scope(), self._time_left(claim, context):
                await self._steps.make(claim, recorder, _prompt(context, recorder, tools), tools)
            # A log that lost its end has a step made again, which may ask for nothing: what came in is told then.
            if not untold and (is_last or not fold.open_step_calls):
                return "stop" if fold.model_reason == "tool-calls" else fold.model_reason
            await self._between(claim, recorder, cancellation)
            untold = frozenset()

    @asynccontextmanager
    async def _time_left(self, claim: Claim, context: Context) -> AsyncGenerator[None]:
        """What is still there of the seconds that the turn may take; then this raises ModelCallFailed, a `timeout`."""
        most, begun = context.settings.max_seconds, claim.task.started_at
        left = None if most is None or begun is None else most - (self._clock.now() - begun).total_seconds()
        if left is not None and left <= 0:
            raise ModelCallFailed("timeout", is_retryable=False)
        try:
            async with asyncio.timeout(left) as patience:
                yield
        except TimeoutError as error:
            if not patience.expired():
                raise
            raise ModelCallFailed("timeout", is_retryable=False) from error

    async def _between(self, claim: Claim, recorder: Recorder, cancellation: Cancellation) -> None:
        """The end of a step, and all that has come in since the one before."""
        cancellation.check()
        await recorder.flush()
        told = [each.message.id for each in recorder.fold.promoted]
        promoted = await self._patiently(claim.task.id, self._mailbox.promote, claim, told)
        if recorder.fold.step_is_open:
            await recorder.put(e.FinishStep())
        await recorder.put(*(e.SteeringMessage(each.id, input_parts(each.parts)) for each in promoted))


async def _tell_limit(recorder: Recorder, limit: int) -> None:
    """Once, though another holder may have been here before."""
    if not any(isinstance(chunk, e.DataIterationLimit) for chunk in recorder.fold.tail):
        await recorder.put(e.DataIterationLimit(e.IterationLimitData(limit)))


def _prompt(context: Context, recorder: Recorder, tools: Toolbox) -> Prompt:
    settings = context.settings
    turn = context.turn(recorder.fold)
    return Prompt(turn, context.earlier, settings.system_prompt, settings.model, tools.described)
