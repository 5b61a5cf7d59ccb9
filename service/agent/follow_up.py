"""A follow-up: the agent goes on with the outcome of an operation, and tells its session how that ended."""

from typing import Final, assert_never

import orjson
import structlog

from service.agent.cancellation import Cancellation
from service.agent.cancellation import Cancelled as TaskCancelled
from service.agent.context import context_of
from service.agent.ending import cancelled, failed, succeeded
from service.agent.loop import Loop
from service.agent.operation_log import has_result, tell_beginning, tell_end, tell_result
from service.agent.recorder import Recorder, settle
from service.agent.step import Clock
from service.agent.turn import MAX_LOST_ATTEMPTS, lost_attempts
from service.model import events as e
from service.model.errors import LogTailLost, NotTheHolder
from service.model.failures import CANCELLED, NO_RESULT, ModelCallFailed, message_for
from service.model.fold import Part
from service.model.generation import TextPiece
from service.model.operation import Cancelled, Failed, Operation, Outcome, Succeeded
from service.model.session import History
from service.model.task import Claim, End, Postponed
from service.operations.asking import ASK
from service.operations.patience import Patience
from service.operations.ports import OperationDesk
from service.sessions.ports import MessageStore

log = structlog.get_logger()

RETRY_SECONDS: Final = (30.0, 60.0, 120.0, 240.0)
"""How long a follow-up that failed rests before each next try; then its outcome is told in plain words."""

YES: Final = Succeeded({"approved": True})
"""What runs a tool that needed an approval."""

MAX_TOLD_CHARACTERS: Final = 2000
"""Of a result in plain words."""


class FollowUps:
    """Works on follow-ups."""

    def __init__(
        self, loop: Loop, desk: OperationDesk, messages: MessageStore, patiently: Patience, clock: Clock
    ) -> None:
        self._loop = loop
        self._desk = desk
        self._messages = messages
        self._patiently = patiently
        self._clock = clock

    async def work(self, claim: Claim, recorder: Recorder, cancellation: Cancellation) -> End | Postponed:
        """All that is left of it, but for its ending. Raises NotTheHolder, LogTailLost."""
        operation = await self._patiently(claim.task.id, self._desk.of_task, claim.task.id)
        if operation is None or operation.outcome is None:
            raise RuntimeError("a follow-up has an operation with an outcome")
        lost = lost_attempts(claim, recorder)
        history = await self._patiently(claim.task.id, self._messages.history, claim.task.session_id)
        context = context_of(claim.task, history)
        try:
            await self._begin(claim, recorder, operation, operation.outcome)
            call = recorder.fold.call(operation.call_id)
            if call is not None and not has_result(recorder, operation):
                if not _is_allowed(operation):
                    await tell_result(recorder, operation, operation.outcome)
                elif claim.task.id == operation.task_id:
                    await self._loop.run_approved(claim, recorder, context, call, cancellation)
                else:  # it is redriven: what was allowed has been done, or begun
                    await recorder.put(_told_before(history, operation))
            if lost >= MAX_LOST_ATTEMPTS and claim.task.cancel_requested_at is None:
                log.error("task_lost_too_often", task_id=claim.task.id, epoch=claim.epoch, lost_attempts=lost)
                return await self._in_plain_words(claim, recorder, operation, operation.outcome, "worker_lost")
            reason = await self._loop.run(claim, recorder, context, cancellation)
        except TaskCancelled:
            log.info("follow_up_cancelled", task_id=claim.task.id, epoch=claim.epoch)
            await settle(recorder, CANCELLED)
            return cancelled(claim, recorder.fold, self._clock.now())
        except (NotTheHolder, LogTailLost):
            raise
        except Exception as error:
            # The edge of what a model may do: a mistake of ours there is tried again like a failure of its own.
            error_type = error.error_type if isinstance(error, ModelCallFailed) else "unexpected_error"
            if not isinstance(error, ModelCallFailed):
                log.exception("follow_up_crashed", task_id=claim.task.id, epoch=claim.epoch)
            # Whoever has said something meanwhile is not left without an answer for minutes.
            if claim.failed_tries < len(RETRY_SECONDS) and not recorder.fold.promoted:
                seconds = RETRY_SECONDS[claim.failed_tries]
                log.info("follow_up_postponed", task_id=claim.task.id, error_type=error_type, seconds=seconds)
                await recorder.flush()
                return Postponed(seconds, error_type)
            log.warning("follow_up_failed", task_id=claim.task.id, epoch=claim.epoch, error_type=error_type)
            return await self._in_plain_words(claim, recorder, operation, operation.outcome, error_type)
        await settle(recorder)
        return succeeded(claim, recorder.fold, reason, self._clock.now())

    async def _begin(self, claim: Claim, recorder: Recorder, operation: Operation, outcome: Outcome) -> None:
        """What the log lacks of the operation; until it is there, the operation's row says it."""
        await tell_beginning(recorder, claim.task, operation)
        await recorder.put(e.DataAttempt(e.AttemptData(claim.epoch)))
        await tell_end(recorder, operation, outcome)

    async def _in_plain_words(
        self, claim: Claim, recorder: Recorder, operation: Operation, outcome: Outcome, error_type: str
    ) -> End:
        """The model cannot be had: what came of the operation is told without it."""
        await settle(recorder)
        fold = recorder.fold
        if fold.step_is_open:
            await recorder.put(e.FinishStep() if fold.model_call_ended else e.ResetStep())
        if not fold.step_is_open:
            await recorder.put(e.StartStep())
        said = _of_allowed(fold.call(operation.call_id)) if _is_allowed(operation) else _of_outcome(outcome)
        told = f"{operation.tool} {said}\n\nI could not go on with it. {message_for(error_type)}"
        await recorder.say(TextPiece(told))
        await settle(recorder)
        return failed(claim, fold, error_type, self._clock.now())


def _told_before(history: History, operation: Operation) -> e.ToolOutputAvailable | e.ToolOutputError:
    """What the conversation has of its call's result, from when its follow-up was first tried."""
    call_id = operation.call_id
    told = (part for message in history.messages if message.task_id == operation.task_id for part in message.parts)
    for part in told:
        match part:
            case {"toolCallId": str() as called, "state": "output-available", "output": output} if called == call_id:
                return e.ToolOutputAvailable(call_id, output, part.get("preliminary"))
            case {"toolCallId": str() as called, "state": "output-error", "errorText": text} if called == call_id:
                return e.ToolOutputError(call_id, text)
    return e.ToolOutputError(call_id, NO_RESULT)


def _is_allowed(operation: Operation) -> bool:
    """Whether a person has said yes: what came of it is what the tool gave then, and not that answer."""
    return operation.executor == "person" and operation.tool != ASK and operation.outcome == YES


def _of_outcome(outcome: Outcome) -> str:
    """What came of an operation, in plain words."""
    match outcome:
        case Succeeded(result):
            return f"is done. Its result: {_short(result)}"
        case Failed(_, message):
            return f"has failed. {message}"
        case Cancelled():
            return "was cancelled."
        case other:
            assert_never(other)


def _of_allowed(call: Part | None) -> str:
    """The same of what a person has allowed, as the log has it."""
    match call:
        case {"state": "output-available", "preliminary": True}:
            return "was allowed, and has begun."
        case {"state": "output-available", "output": output}:
            return f"is done. Its result: {_short(output)}"
        case {"state": "output-error", "errorText": text}:
            return f"has failed. {_uncoded(text)}"
        case _:
            return f"was allowed. {_uncoded(NO_RESULT)}"


def _uncoded(text: str) -> str:
    """What people read of a failure in a log."""
    return text.partition("] ")[2] if text.startswith("[code:") else text


def _short(result: e.Json) -> str:
    text = result if isinstance(result, str) else orjson.dumps(result).decode()
    return text if len(text) <= MAX_TOLD_CHARACTERS else f"{text[:MAX_TOLD_CHARACTERS]}…"
