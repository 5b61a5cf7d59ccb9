"""A step of a turn: one model call, tried again while that may help, and its tools; told in the log as it goes."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, TypeAlias, assert_never

import structlog

from service.agent.asking import Asking
from service.agent.model_call import pieces_of
from service.agent.operation_log import available, operation_data, result_of
from service.agent.ports import Model, OperationTool
from service.agent.recorder import Recorder
from service.agent.retry import seconds_before
from service.agent.tools import TOOLS_AT_ONCE, CallRefused, Toolbox
from service.model import events as e
from service.model.errors import TooManyOperations
from service.model.failures import NO_RESULT, ModelCallFailed, coded
from service.model.fold import Part
from service.model.generation import CallEnded, Prompt, ReasoningPiece, TextPiece, ToolCallPiece
from service.model.ids import TaskId
from service.model.operation import Operation
from service.model.step import CompletedStep
from service.model.task import Claim

log = structlog.get_logger()

MAX_ANSWER_CHARACTERS: Final = 16 * 1024 * 1024
"""Of one model call; a model that says more is ended there, as if it had reached its own `length`."""

Result: TypeAlias = e.ToolOutputAvailable | e.ToolOutputError | e.ToolApprovalRequest | e.DataOperation


class Calls(Protocol):
    """What the calls of a step do to what is owed."""

    @property
    def task_id(self) -> TaskId:
        """The task whose step it is."""

    async def begin(self, call_id: str) -> bool:
        """Note that a call begins that must not run twice; False where it has begun before."""

    async def start(self, tool: OperationTool, call_id: str, arguments: e.Json) -> Operation:
        """The operation of a call."""

    async def ask(self, tool: str, call_id: str, arguments: e.Json) -> Operation:
        """The operation that is a person's answer, whether a call may run."""


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

    async def make(self, claim: Claim, recorder: Recorder, prompt: Prompt, tools: Toolbox, calls: Calls) -> None:
        """The step that is open, or the next one: the call, unless the log has it whole, and the results that it lacks.

        The step is left open. Raises ModelCallFailed for a call that failed for good, and what `calls` do.
        """
        if not (recorder.fold.step_is_open and recorder.fold.model_call_ended):
            await self._speak(claim, recorder, prompt, tools)
        await _use(recorder, tools, calls)

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


async def tell_again(recorder: Recorder, step: CompletedStep) -> None:
    """Put into the log what it has lost of a step that was done, as it was but for the pieces it came in.

    The step is left open. Where the log has the model's part of it, only results are missing.
    """
    fold = recorder.fold
    if not (fold.step_is_open and fold.model_call_ended):
        await recorder.put(e.ResetStep() if fold.step_is_open else e.StartStep())
        for part in step.parts:
            match part:
                case {"type": "text", "text": text}:
                    await recorder.say(TextPiece(text))
                case {"type": "reasoning", "text": text}:
                    await recorder.say(ReasoningPiece(text))
                case {"type": str() as kind, "toolCallId": call_id, "input": value}:
                    await recorder.put(e.ToolInputAvailable(call_id, kind.removeprefix("tool-"), value))
            await recorder.close_parts()
        await recorder.put(e.MessageMetadata(step.call))
    results = {part["toolCallId"]: part for part in step.parts if "toolCallId" in part}
    for call in fold.open_step_calls:
        result = results.get(call["toolCallId"], {})
        match call["state"], result:
            case "input-available", {"state": "output-available", "output": output}:
                is_final = "preliminary" not in result
                await recorder.put(e.ToolOutputAvailable(call["toolCallId"], output, None if is_final else True))
            case "input-available", {"state": "output-error", "errorText": text}:
                await recorder.put(e.ToolOutputError(call["toolCallId"], text))


async def _use(recorder: Recorder, tools: Toolbox, calls: Calls) -> None:
    """Run what was asked for and has no result, side by side. Interrupted, it returns when all of them have stopped."""
    room = asyncio.Semaphore(TOOLS_AT_ONCE)
    asked = [call for call in recorder.fold.open_step_calls if call["state"] == "input-available"]
    running = [asyncio.create_task(_results_of(call, tools, room, calls), name="tool") for call in asked]
    try:
        while running:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            done = [each for each in running if each.done()]
            running = [each for each in running if not each.done()]
            for each in done:
                await recorder.put(*each.result())
    finally:
        for each in running:
            each.cancel()
        if running:
            await asyncio.wait(running)


async def _results_of(call: Part, tools: Toolbox, room: asyncio.Semaphore, calls: Calls) -> Sequence[Result]:
    """What a call came to; of one that waits for a person, what that person is asked."""
    call_id, name, value = call["toolCallId"], call["type"].removeprefix("tool-"), call["input"]
    async with room:
        if not tools.needs_approval(name):
            return await results_of_allowed(call, tools, calls)
        try:
            return _asked(await calls.ask(name, call_id, value))
        except TooManyOperations as error:
            return [_refused(call_id, error)]


async def results_of_allowed(call: Part, tools: Toolbox, calls: Calls) -> Sequence[Result]:
    """What a call came to for which no person is asked, or has been."""
    call_id, name, value = call["toolCallId"], call["type"].removeprefix("tool-"), call["input"]
    operation_tool = tools.operation(name)
    if operation_tool is None:
        return [await _run_tool(call, tools, calls)]
    try:
        operation = await calls.start(operation_tool, call_id, value)
    except TooManyOperations as error:
        return [_refused(call_id, error)]
    if operation.executor == "person":
        return _asked(operation)
    is_ours = (operation.turn_id, operation.call_id) == (calls.task_id, call_id)
    if operation.outcome is not None and not (is_ours and operation.has_follow_up):  # else the follow-up tells it
        return [result_of(call_id, operation.outcome)]
    started = {"status": "started", "operation_id": operation.id, "task_id": operation.task_id}
    return [e.ToolOutputAvailable(call_id, started, preliminary=True)]


def _refused(call_id: str, error: TooManyOperations) -> e.ToolOutputError:
    return e.ToolOutputError(call_id, coded(error.error_type, str(error)))


def _asked(operation: Operation) -> Sequence[Result]:
    return [e.ToolApprovalRequest(operation.id, operation.call_id), operation_data(operation, "pending")]


async def _run_tool(call: Part, tools: Toolbox, calls: Calls) -> e.ToolOutputAvailable | e.ToolOutputError:
    """Run what a call asks for here and now, unless it must not run twice and has begun before."""
    call_id, name = call["toolCallId"], call["type"].removeprefix("tool-")
    try:
        if not tools.is_repeatable(name) and not await calls.begin(call_id):
            return e.ToolOutputError(call_id, NO_RESULT)
        return available(call_id, await tools.run(name, call["input"]))
    except CallRefused as refused:
        return e.ToolOutputError(call_id, str(refused))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
