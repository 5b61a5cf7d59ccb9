"""A turn: what a message asks for, and how it ends."""

from typing import Final

import structlog

from service.agent.cancellation import Cancellation, Cancelled
from service.agent.context import Context, context_of
from service.agent.ending import Bounced, cancelled, failed, succeeded
from service.agent.loop import Loop
from service.agent.recorder import Recorder, settle
from service.agent.step import Clock
from service.model import events as e
from service.model.errors import LogTailLost, NotTheHolder
from service.model.failures import CANCELLED, ModelCallFailed
from service.model.task import Claim, End
from service.operations.patience import Patience
from service.sessions.ports import MessageStore

log = structlog.get_logger()

MAX_LOST_ATTEMPTS: Final = 3
"""After so many holders in a row that were lost with a task, the next one only ends it: it may be what ends them."""


class Turns:
    """Works on turns. `provider` is who asks for the model's key."""

    def __init__(self, loop: Loop, messages: MessageStore, patiently: Patience, clock: Clock, *, provider: str) -> None:
        self._loop = loop
        self._messages = messages
        self._patiently = patiently
        self._clock = clock
        self._provider = provider

    async def work(self, claim: Claim, recorder: Recorder, cancellation: Cancellation) -> End:
        """All that is left of the turn, but for its ending. Raises NotTheHolder, LogTailLost."""
        lost = lost_attempts(claim, recorder)
        history = await self._patiently(claim.task.id, self._messages.history, claim.task.session_id)
        context = context_of(claim.task, history, recorder.fold.input)
        await self._begin(claim, recorder, context.input)
        if lost >= MAX_LOST_ATTEMPTS and claim.task.cancel_requested_at is None:
            log.error("task_lost_too_often", task_id=claim.task.id, epoch=claim.epoch, lost_attempts=lost)
            return await self._failed(claim, recorder, context, "worker_lost")
        try:
            reason = await self._loop.run(claim, recorder, context, cancellation)
        except Cancelled:
            log.info("turn_cancelled", task_id=claim.task.id, epoch=claim.epoch)
            await settle(recorder, CANCELLED)
            return cancelled(claim, recorder.fold, self._clock.now())
        except ModelCallFailed as error:
            log.info("turn_failed", task_id=claim.task.id, epoch=claim.epoch, error_type=error.error_type)
            return await self._failed(claim, recorder, context, error.error_type)
        except (NotTheHolder, LogTailLost):
            raise
        except Exception:
            # The edge of what a model may do: a mistake of ours there ends this task as failed, and no other.
            log.exception("turn_crashed", task_id=claim.task.id, epoch=claim.epoch)
            return await self._failed(claim, recorder, context, "unexpected_error")
        await settle(recorder)
        return succeeded(claim, recorder.fold, reason, self._clock.now())

    async def _failed(self, claim: Claim, recorder: Recorder, context: Context, error_type: str) -> End:
        """With the input given back, unless some attempt made the model say anything, or took more messages in."""
        await settle(recorder)
        now, fold, message_id = self._clock.now(), recorder.fold, claim.task.input_id
        if fold.produced_output or context.promoted or message_id is None:
            return failed(claim, fold, error_type, now)
        bounced = Bounced(claim, message_id, context.input, error_type, self._provider)
        return failed(claim, fold, error_type, now, bounced)

    async def _begin(self, claim: Claim, recorder: Recorder, parts: tuple[e.InputPart, ...]) -> None:
        task = claim.task
        if recorder.fold.message_id is None:
            await recorder.put(e.Start(task.answer_id, e.StartMetadata(task.id, task.session_id)))
            if task.input_id is not None:
                await recorder.put(e.DataInput(e.InputData(task.input_id, parts)))
        await recorder.put(e.DataAttempt(e.AttemptData(claim.epoch)))


def lost_attempts(claim: Claim, recorder: Recorder) -> int:
    """How many holders in a row were lost with a task; one that never began was not ended by the task."""
    return min(claim.lost_attempts, recorder.fold.attempts)
