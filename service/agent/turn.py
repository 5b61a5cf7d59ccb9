"""A turn, from its claim to its end.

There is one path, whoever walks it: the holder opens the log, folds what is there, and does what is still to be done.
For the first holder that is everything. The order of writes is the promise: the log says what the model says; the
database decides how the task ended; only then the log says that it ended; then the task owes nothing.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeAlias, TypeVar

import structlog

from service.agent.cancellation import Cancellation, Cancelled
from service.agent.ending import Bounced, as_told, cancelled, closing, failed, succeeded
from service.agent.recorder import Recorder
from service.agent.step import Clock, Steps
from service.model import events as e
from service.model.encoding import BrokenEvent
from service.model.errors import LogTailLost, NotTheHolder, StoreUnavailable, cause_of
from service.model.failures import ModelCallFailed
from service.model.fold import BrokenLog, LogFold, Part
from service.model.generation import Utterance
from service.model.ids import TaskId
from service.model.task import Claim, End, TaskStatus
from service.registry.ports import LogStore
from service.registry.replay import fold_log
from service.registry.task_log import TaskLog
from service.registry.writer import LogWriter
from service.sessions.ports import MessageStore, TaskQueue

log = structlog.get_logger()

MAX_LOST_ATTEMPTS: Final = 3
"""After so many holders in a row that were lost with a task, the next one only ends it: it may be what ends them."""

STORE_RETRY_SECONDS: Final = 0.25
"""Between two tries of a write whose store is away. Tries end with the lease: its holder is then stopped."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
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
        steps: Steps,
        clock: Clock,
    ) -> None:
        self._writer = writer
        self._logs = logs
        self._queue = queue
        self._messages = messages
        self._steps = steps
        self._clock = clock

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
                task_log = await self._persistently(
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
                if decide == self._give_up:
                    raise
                log.exception("turn_given_up", task_id=claim.task.id, epoch=claim.epoch)
                decide = self._give_up
            finally:
                if task_log is not None:
                    given_ms = max(given_ms, task_log.last.ms)
                    task_log.fail(NotTheHolder())
            claim = await self._persistently(claim.task.id, retake, claim)

    async def _attempt(
        self, claim: Claim, task_log: TaskLog, decide: _Decision, cancellation: Cancellation
    ) -> tuple[TaskStatus, bool]:
        """Answers how the task ended, and whether its end began a next turn."""
        try:
            fold = await self._persistently(claim.task.id, fold_log, self._logs, claim.task.id, task_log.last)
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
            ended = await self._persistently(claim.task.id, self._queue.end, claim, end)
            owed, how, next_is_due = ended.owed, end.status, ended.next_is_due
        if not task_log.was_closed:
            await task_log.append(*closing(claim, fold, owed))
        await self._persistently(claim.task.id, self._queue.close, claim)
        return how, next_is_due

    async def _give_up(self, claim: Claim, recorder: Recorder, cancellation: Cancellation) -> End:
        """A task that cannot be run has failed."""
        await _settle(recorder)
        return failed(claim, recorder.fold, "unexpected_error", self._clock.now())

    async def _work(self, claim: Claim, recorder: Recorder, cancellation: Cancellation) -> End:
        lost = min(claim.lost_attempts, recorder.fold.attempts)  # a holder that never began was not ended by the task
        history = await self._history(claim)
        await self._begin(claim, recorder, history.input)
        if lost >= MAX_LOST_ATTEMPTS and claim.task.cancel_requested_at is None:
            log.error("task_lost_too_often", task_id=claim.task.id, epoch=claim.epoch, lost_attempts=lost)
            return await self._failed(claim, recorder, history, "worker_lost")
        try:
            async with cancellation.scope():
                reason = await self._steps.make(claim, recorder, history.utterances)
        except Cancelled:
            log.info("turn_cancelled", task_id=claim.task.id, epoch=claim.epoch)
            await _settle(recorder)
            return cancelled(claim, recorder.fold, self._clock.now())
        except ModelCallFailed as error:
            log.info("turn_failed", task_id=claim.task.id, epoch=claim.epoch, error_type=error.error_type)
            return await self._failed(claim, recorder, history, error.error_type)
        except (NotTheHolder, LogTailLost):
            raise
        except Exception:
            # The edge of what a model may do: a mistake of ours there ends this task as failed, and no other.
            log.exception("turn_crashed", task_id=claim.task.id, epoch=claim.epoch)
            return await self._failed(claim, recorder, history, "unexpected_error")
        await _settle(recorder)
        return succeeded(claim, recorder.fold, reason, self._clock.now())

    async def _failed(self, claim: Claim, recorder: Recorder, history: "_History", error_type: str) -> End:
        """With the input given back, unless some attempt made the model say anything."""
        await _settle(recorder)
        now, fold = self._clock.now(), recorder.fold
        if fold.produced_output:
            return failed(claim, fold, error_type, now)
        return failed(claim, fold, error_type, now, Bounced(claim, history.input, error_type, self._steps.provider))

    async def _begin(self, claim: Claim, recorder: Recorder, parts: tuple[e.InputPart, ...]) -> None:
        task = claim.task
        if recorder.fold.message_id is None:
            await recorder.put(e.Start(task.answer_id, e.StartMetadata(task.id, task.session_id)))
            await recorder.put(e.DataInput(e.InputData(task.input_id, parts)))
        await recorder.put(e.DataAttempt(e.AttemptData(claim.epoch)))

    async def _history(self, claim: Claim) -> "_History":
        history = await self._persistently(claim.task.id, self._messages.history, claim.task.session_id)
        messages = history.messages
        asked = next((input_parts(m.parts) for m in messages if m.id == claim.task.input_id), ())
        said = [Utterance(m.role, input_parts(m.parts)) for m in messages]
        return _History(asked, [utterance for utterance in said if utterance.parts])

    async def _persistently(
        self,
        task_id: TaskId,
        call: Callable[_Arguments, Awaitable[_Result]],
        *arguments: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> _Result:
        """The call's result, as soon as its store is there: until then it is tried again, as long as the caller runs.

        That it waits is told once, and that it goes on.
        """
        away: str | None = None
        while True:
            try:
                result = await call(*arguments, **named)
            except StoreUnavailable as error:
                if away is None:
                    away = type(error).__name__
                    log.warning("turn_waits", task_id=task_id, because=away, cause=cause_of(error))
                await self._clock.sleep(STORE_RETRY_SECONDS)
            else:
                if away is not None:
                    log.info("turn_goes_on", task_id=task_id, because=away)
                return result


@dataclass(frozen=True, slots=True)
class _History:
    """The conversation so far, and the part of it that this turn answers."""

    input: tuple[e.InputPart, ...]
    utterances: Sequence[Utterance]


def input_parts(parts: Sequence[Part]) -> tuple[e.InputPart, ...]:
    """What a model gets to see of a stored message: its text and its files."""
    seen: list[e.InputPart] = []
    for part in parts:
        match part:
            case {"type": "text", "text": text}:
                seen.append(e.TextPart(text))
            case {"type": "file", "mediaType": media_type, "url": url}:
                seen.append(e.FilePart(media_type, url))
    return tuple(seen)


async def _settle(recorder: Recorder) -> None:
    """What was said is in the log when this returns, with nothing left open that grows."""
    await recorder.close_parts()
    await recorder.flush()
