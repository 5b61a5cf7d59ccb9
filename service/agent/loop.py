"""The steps of a turn, until the model asks for nothing more. Between two of them, what waits in the mailbox comes in.

Whoever goes on looks at the log alone: a step that is open is brought to its end; behind one that has ended, what the
mailbox gave and the log lacks is told first.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import orjson

from service.agent.cancellation import Cancellation
from service.agent.context import Context, input_parts
from service.agent.ports import OperationTool
from service.agent.recorder import Recorder
from service.agent.step import Clock, Steps, results_of_allowed, tell_again
from service.agent.tools import Toolbox
from service.model import events as e
from service.model.failures import ModelCallFailed
from service.model.fold import Part
from service.model.generation import Prompt
from service.model.ids import TaskId
from service.model.operation import NewOperation, Operation
from service.model.session import Promoted
from service.model.step import CompletedStep
from service.model.task import Claim
from service.operations.patience import Patience
from service.operations.ports import OperationDesk
from service.sessions.ports import StepStore

MAX_TURN_BYTES: Final = 16 * 1024 * 1024
"""What a turn may have said and got from its tools, as JSON; then one more step is made without tools.

Its answer is one row of the database, and a call of the model may add as much again (`step.MAX_ANSWER_CHARACTERS`).
"""


class HoldersCalls:
    """The port `Calls`, by the holder of a task."""

    def __init__(self, claim: Claim, step_store: StepStore, desk: OperationDesk, patiently: Patience) -> None:
        self._claim = claim
        self._step_store = step_store
        self._desk = desk
        self._patiently = patiently

    @property
    def task_id(self) -> TaskId:
        return self._claim.task.id

    async def begin(self, call_id: str) -> bool:
        return await self._patiently(self._claim.task.id, self._step_store.begin_call, self._claim, call_id)

    async def start(self, tool: OperationTool, call_id: str, arguments: e.Json) -> Operation:
        return await tool.start(self._claim, call_id, arguments)

    async def ask(self, tool: str, call_id: str, arguments: e.Json) -> Operation:
        asked = NewOperation(call_id, tool, "person", arguments, deadline_seconds=None)
        return (await self._patiently(self._claim.task.id, self._desk.begin, self._claim, asked)).operation


class Loop:
    """Makes the steps of turns and follow-ups."""

    def __init__(
        self,
        steps: Steps,
        tools: Toolbox,
        step_store: StepStore,
        desk: OperationDesk,
        patiently: Patience,
        clock: Clock,
    ) -> None:
        self._steps = steps
        self._tools = tools
        self._step_store = step_store
        self._desk = desk
        self._patiently = patiently
        self._clock = clock

    async def run(
        self, claim: Claim, recorder: Recorder, context: Context, cancellation: Cancellation
    ) -> e.FinishReason:
        """All that is left of the turn; answers why its model stopped. The last step is left open.

        Raises Cancelled, and ModelCallFailed for a call that failed for good, or a turn that takes too long.
        """
        fold = recorder.fold
        if claim.epoch > 1:  # somebody was here before
            await self._tell_lost_steps(claim, recorder)
        untold = context.promoted.difference(each.message.id for each in fold.promoted)
        if not fold.step_is_open and (fold.steps or untold):
            await self._between(claim, recorder, cancellation)
            untold = frozenset()
        limit = context.max_steps
        calls = self.calls(claim)
        granted = self._tools.granted(context.settings.tools, claim.task.session_id)
        while True:
            is_full = len(orjson.dumps(fold.finished_parts)) >= MAX_TURN_BYTES
            is_beyond = fold.steps + (not fold.step_is_open) > limit
            is_last = is_beyond or is_full
            tools = Toolbox() if is_last else granted
            if is_beyond and not fold.step_is_open:
                await _tell_limit(recorder, limit)
            async with cancellation.scope(), self._time_left(claim, context):
                await self._steps.make(claim, recorder, _prompt(context, recorder, tools), tools, calls)
            if any(call["state"] == "approval-requested" for call in fold.open_step_calls):
                return "tool-calls"  # a person is asked, and the follow-up goes on
            # A log that lost its end has a step made again, which may ask for nothing: what came in is told then.
            if not untold and (is_last or not fold.open_step_calls):
                if is_full:
                    return "length"
                return "stop" if fold.model_reason == "tool-calls" else fold.model_reason
            await self._between(claim, recorder, cancellation)
            untold = frozenset()

    def calls(self, claim: Claim) -> "HoldersCalls":
        """What the calls of this task's steps do to what is owed."""
        return HoldersCalls(claim, self._step_store, self._desk, self._patiently)

    async def run_approved(
        self, claim: Claim, recorder: Recorder, context: Context, call: Part, cancellation: Cancellation
    ) -> None:
        """Do what a person has allowed, and put what came of it into the log. Raises Cancelled."""
        granted = self._tools.granted(context.settings.tools, claim.task.session_id)
        async with cancellation.scope():
            results = await results_of_allowed(call, granted, self.calls(claim))
        await recorder.put(*results)

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
        fold = recorder.fold
        if fold.last_call is None:
            raise RuntimeError("between two steps a model call has ended")
        step = CompletedStep(fold.steps, tuple(fold.last_step_parts), fold.last_call)
        told = [each.message.id for each in fold.promoted]
        promoted = await self._patiently(claim.task.id, self._step_store.promote, claim, step, told)
        await _conclude(recorder, promoted)

    async def _tell_lost_steps(self, claim: Claim, recorder: Recorder) -> None:
        """What a store has lost of steps that were done: neither the model nor a tool is asked for it again."""
        fold = recorder.fold
        done = fold.steps - fold.step_is_open
        # What was taken in behind the last step that ended may be missing; an open step says that it is not.
        whole = done if fold.step_is_open else max(0, done - 1)
        told = {each.message.id for each in fold.promoted}
        for kept in await self._patiently(claim.task.id, self._step_store.steps, claim.task.id, whole):
            if kept.step.number > done:
                await tell_again(recorder, kept.step)
            await _conclude(recorder, [each for each in kept.promoted if each.id not in told])


async def _conclude(recorder: Recorder, promoted: Sequence[Promoted]) -> None:
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
