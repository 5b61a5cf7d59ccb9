"""A turn, from its claim to its end.

There is one path, whoever walks it: the holder opens the log, folds what is there, and does what is still to be done.
For the first holder that is everything. The order of writes is the promise: the log says what the model says; the
database decides how the task ended; only then the log says that it ended; then the task owes nothing.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeAlias

import structlog

from service.agent.cancellation import Cancellation, Cancelled
from service.agent.context import NO_RESULT, Context, context_of
from service.agent.ending import Bounced, as_told, cancelled, closing, failed, succeeded
from service.agent.loop import Loop
from service.agent.patience import Patience
from service.agent.recorder import Recorder
from service.agent.step import Clock, Steps
from service.agent.tools import Toolbox
from service.model import events as e
from service.model.encoding import BrokenEvent
from service.model.errors import LogTailLost, NotTheHolder
from service.model.failures import ModelCallFailed
from service.model.fold import BrokenLog, LogFold
from service.model.task import Claim, End, TaskStatus
from service.registry.ports import LogStore
from service.registry.replay import fold_log
from service.registry.task_log import TaskLog
from service.registry.writer import LogWriter
from service.sessions.ports import MessageStore, StepStore, TaskQueue

log = structlog.get_logger()

MAX_LOST_ATTEMPTS: Final = 3
"""After so many holders in a row that were lost with a task, the next one only ends it: it may be what ends them."""

_Decision: TypeAlias = Callable[[Claim, Recorder, Cancellation], Awaitable[End]]
"""What ends a task that has not ended."""


class Turns:
    """Runs turns."""

    def __init__(
        self,
        *,
        writer: LogWriter,
        logs: LogStore,
        queue: TaskQueue,
        messages: MessageStore,
        step_store: StepStore,
        steps: Steps,
        tools: Toolbox,
        clock: Clock,
    ) -> None:
        self._writer = writer
        self._logs = logs
        self._queue = queue
        self._messages = messages
        self._steps = steps
        self._clock = clock
        self._patiently = Patience(clock.sleep)
        self._loop = Loop(steps, tools, step_store, self._patiently, clock)

    async def run(self, claim: Claim, retake: Callable[[Claim], Awaitable[Claim]], cancellation: Cancellation) -> bool:
        """Bring a claimed task to its end and its log to its terminal event; answers whether its end began a next turn.

        `retake` gives the claim a new epoch, for a log that its store has forgotten. Returns early, having written
        nothing more, once another holder has the task. Waits for stores that are away, until its holder stops it.
        """
        try:
            return await self._run(claim, retake, cancellation)
        except NotTheHolder as error:
            log.info("turn_left", task_id=claim.task.id, epoch=claim.epoch, because=type(error).__name__)
            return False

    async def _run(self, claim: Claim, retake: Callable[[Claim], Awaitable[Claim]], cancellation: Cancellation) -> bool:
        """Each try has an epoch and a log of its own.

        Of the one before nothing more is sent, and what is on its way still is fenced when the next one opens the log.
        """
        decide, given_ms, begun = self._work, 0, self._clock.monotonic()
        while True:
            if claim.task.cancel_requested_at is not None:
                cancellation.request()
            task_log: TaskLog | None = None
            try:
                task_log = await self._patiently(
                    claim.task.id, self._writer.open, claim.task.id, claim.epoch, later_than_ms=given_ms
                )
                how, next_is_due = await self._attempt(claim, task_log, decide, cancellation)
                seconds = round(self._clock.monotonic() - begun, 3)
                log.info("turn_ended", task_id=claim.task.id, epoch=claim.epoch, how=how, seconds=seconds)
                return next_is_due
            except NotTheHolder:
                raise
            except LogTailLost:
                log.warning("turn_resumes_after_loss", task_id=claim.task.id, epoch=claim.epoch)
            except Exception:
                # The edge of a turn: a mistake of ours ends this task and no other.
                if decide == self._abandon:
                    raise
                log.exception("turn_given_up", task_id=claim.task.id, epoch=claim.epoch)
                decide = self._give_up if decide == self._work else self._abandon
            finally:
                if task_log is not None:
                    given_ms = max(given_ms, task_log.last.ms)
                    task_log.fail(NotTheHolder())
            claim = await self._patiently(claim.task.id, retake, claim)

    async def _attempt(
        self, claim: Claim, task_log: TaskLog, decide: _Decision, cancellation: Cancellation
    ) -> tuple[TaskStatus, bool]:
        """Answers how the task ended, and whether its end began a next turn."""
        try:
            fold = await self._patiently(claim.task.id, fold_log, self._logs, claim.task.id, task_log.last)
        except (BrokenLog, BrokenEvent):
            # What it holds is kept; the task can only be ended.
            log.exception("log_not_understood", task_id=claim.task.id, epoch=claim.epoch)
            fold, decide = LogFold(message_id=claim.task.answer_id), self._give_up
        owed, how, next_is_due = claim.owed, claim.task.status, False
        if owed is None:
            if task_log.was_closed:
                end = as_told(claim, fold, self._clock.now())
            else:
                end = await decide(claim, Recorder(task_log, fold), cancellation)
            ended = await self._patiently(claim.task.id, self._queue.end, claim, end)
            owed, how, next_is_due = ended.owed, end.status, ended.next_is_due
        if not task_log.was_closed:
            await task_log.append(*closing(claim, fold, owed))
        await self._patiently(claim.task.id, self._queue.close, claim)
        return how, next_is_due

    async def _give_up(self, claim: Claim, recorder: Recorder, cancellation: Cancellation) -> End:
        """A task that cannot be run has failed."""
        await _settle(recorder)
        return failed(claim, recorder.fold, "unexpected_error", self._clock.now())

    async def _abandon(self, claim: Claim, recorder: Recorder, cancellation: Cancellation) -> End:
        """The same without its answer, which may be what cannot be stored: no holder would ever be done with it."""
        return replace(await self._give_up(claim, recorder, cancellation), answer=None)

    async def _work(self, claim: Claim, recorder: Recorder, cancellation: Cancellation) -> End:
        lost = min(claim.lost_attempts, recorder.fold.attempts)  # a holder that never began was not ended by the task
        context = await self._context(claim, recorder.fold.input)
        await self._begin(claim, recorder, context.input)
        if lost >= MAX_LOST_ATTEMPTS and claim.task.cancel_requested_at is None:
            log.error("task_lost_too_often", task_id=claim.task.id, epoch=claim.epoch, lost_attempts=lost)
            return await self._failed(claim, recorder, context, "worker_lost")
        try:
            reason = await self._loop.run(claim, recorder, context, cancellation)
        except Cancelled:
            log.info("turn_cancelled", task_id=claim.task.id, epoch=claim.epoch)
            await _settle(recorder, "[code:cancelled] Cancelled.")
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
        await _settle(recorder)
        return succeeded(claim, recorder.fold, reason, self._clock.now())

    async def _failed(self, claim: Claim, recorder: Recorder, context: Context, error_type: str) -> End:
        """With the input given back, unless some attempt made the model say anything, or took more messages in."""
        await _settle(recorder)
        now, fold = self._clock.now(), recorder.fold
        if fold.produced_output or context.promoted:
            return failed(claim, fold, error_type, now)
        return failed(claim, fold, error_type, now, Bounced(claim, context.input, error_type, self._steps.provider))

    async def _begin(self, claim: Claim, recorder: Recorder, parts: tuple[e.InputPart, ...]) -> None:
        task = claim.task
        if recorder.fold.message_id is None:
            await recorder.put(e.Start(task.answer_id, e.StartMetadata(task.id, task.session_id)))
            await recorder.put(e.DataInput(e.InputData(task.input_id, parts)))
        await recorder.put(e.DataAttempt(e.AttemptData(claim.epoch)))

    async def _context(self, claim: Claim, told: tuple[e.InputPart, ...]) -> Context:
        history = await self._patiently(claim.task.id, self._messages.history, claim.task.session_id)
        return context_of(claim.task, history, told)


async def _settle(recorder: Recorder, of_calls: str = NO_RESULT) -> None:
    """What was said is in the log when this returns: nothing is open that grows, no call is without a result."""
    await recorder.close_parts()
    waiting = [
        call for call in recorder.fold.open_step_calls if call["state"] in ("input-streaming", "input-available")
    ]
    await recorder.put(*(e.ToolOutputError(call["toolCallId"], of_calls) for call in waiting))
    await recorder.flush()
