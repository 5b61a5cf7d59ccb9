"""A follow-up: the agent goes on with the outcome of an operation, and tells its session how that ended."""

from typing import Final

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
from service.model.failures import CANCELLED, ModelCallFailed, message_for
from service.model.generation import TextPiece
from service.model.operation import Cancelled, Failed, Operation, Outcome, Succeeded
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
                if operation.executor == "person" and operation.tool != ASK and operation.outcome == YES:
                    await self._loop.run_approved(claim, recorder, context, call, cancellation)
                else:
                    await tell_result(recorder, operation, operation.outcome)
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
                return Postponed(seconds)
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
        await recorder.say(TextPiece(_plain_words(operation.tool, outcome, error_type)))
        await settle(recorder)
        return failed(claim, fold, error_type, self._clock.now())


def _plain_words(tool: str, outcome: Outcome, error_type: str) -> str:
    match outcome:
        case Succeeded(result):
            text = result if isinstance(result, str) else orjson.dumps(result).decode()
            is_short = len(text) <= MAX_TOLD_CHARACTERS
            said = f"{tool} is done. Its result: {text if is_short else text[:MAX_TOLD_CHARACTERS] + '…'}"
        case Failed(_, message):
            said = f"{tool} has failed. {message}"
        case Cancelled():
            said = f"{tool} was cancelled."
    return f"{said}\n\nI could not go on with it. {message_for(error_type)}"
