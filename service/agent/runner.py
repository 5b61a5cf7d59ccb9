"""A task, from its claim to its end.

There is one path, whoever walks it: the holder opens the log, folds what is there, and does what is still to be done.
For the first holder that is everything. The order of writes is the promise: the log says what the model says; the
database decides how the task ended; only then the log says that it ended; then the task owes nothing.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeAlias, assert_never

import structlog

from service.agent.cancellation import Cancellation
from service.agent.ending import as_told, closing, failed
from service.agent.follow_up import FollowUps
from service.agent.jobs import Jobs
from service.agent.loop import Loop
from service.agent.recorder import Recorder, settle
from service.agent.step import Clock, Steps
from service.agent.tools import Toolbox
from service.agent.turn import Turns
from service.agent.waiting import Waiting
from service.model.encoding import BrokenEvent
from service.model.errors import LogTailLost, NotTheHolder
from service.model.fold import BrokenLog, LogFold
from service.model.task import Claim, End, Postponed, TaskStatus, Told
from service.operations.patience import Patience
from service.operations.ports import OperationDesk
from service.registry.ports import LogStore
from service.registry.replay import fold_log
from service.registry.task_log import TaskLog
from service.registry.writer import LogWriter
from service.sessions.ports import MessageStore, StepStore, TaskQueue

log = structlog.get_logger()

_Decision: TypeAlias = Callable[[Claim, Recorder, Cancellation], Awaitable[End | Postponed | Told]]
"""What is done with a task that has not ended, as far as it goes now."""

PUT_OFF_SECONDS: Final = 60.0
"""Before a log that a mistake of ours keeps from being told is tried again."""

_ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})


class TaskRunner:
    """Runs tasks: turns, and the work on operations."""

    def __init__(
        self,
        *,
        writer: LogWriter,
        logs: LogStore,
        queue: TaskQueue,
        desk: OperationDesk,
        messages: MessageStore,
        step_store: StepStore,
        steps: Steps,
        tools: Toolbox,
        clock: Clock,
        jobs: Jobs | None = None,
    ) -> None:
        self._writer = writer
        self._logs = logs
        self._queue = queue
        self._desk = desk
        self._clock = clock
        self._patiently = Patience(clock.sleep)
        loop = Loop(steps, tools, step_store, desk, self._patiently, clock)
        self._turns = Turns(loop, messages, self._patiently, clock, provider=steps.provider)
        self._waiting = Waiting(desk, jobs, self._patiently, clock)
        self._follow_ups = FollowUps(loop, desk, messages, self._patiently, clock)

    async def run(self, claim: Claim, retake: Callable[[Claim], Awaitable[Claim]], cancellation: Cancellation) -> bool:
        """Bring a claimed task as far as it goes, in most cases to its end and its log to its terminal event.

        Answers whether a next turn began with that. `retake` gives the claim a new epoch, for a log that its store has
        forgotten. Returns early, having written nothing more, once another holder has the task. Waits for stores that
        are away, until its holder stops it.
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
        work = self._work_on(claim)
        decide, given_ms, begun = work, 0, self._clock.monotonic()
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
                action = "turn_ended" if how in _ENDED else "turn_let_go"
                log.info(action, task_id=claim.task.id, epoch=claim.epoch, how=how, seconds=seconds)
                return next_is_due
            except NotTheHolder:
                raise
            except LogTailLost:
                log.warning("turn_resumes_after_loss", task_id=claim.task.id, epoch=claim.epoch)
            except Exception:
                # The edge of a task: a mistake of ours ends this one and no other.
                if decide == self._abandon:
                    raise
                log.exception("turn_given_up", task_id=claim.task.id, epoch=claim.epoch)
                decide = self._give_up if decide == work else self._abandon
            finally:
                if task_log is not None:
                    given_ms = max(given_ms, task_log.last.ms)
                    task_log.fail(NotTheHolder())
            claim = await self._patiently(claim.task.id, retake, claim)

    def _work_on(self, claim: Claim) -> _Decision:
        if claim.task.kind == "turn":
            return self._turns.work
        return self._waiting.work if claim.task.status == "waiting" else self._follow_ups.work

    async def _attempt(
        self, claim: Claim, task_log: TaskLog, decide: _Decision, cancellation: Cancellation
    ) -> tuple[TaskStatus, bool]:
        """Answers what the task is now, and whether a next turn began with that."""
        try:
            fold = await self._patiently(claim.task.id, fold_log, self._logs, claim.task.id, task_log.last)
        except (BrokenLog, BrokenEvent):
            # What it holds is kept; the task can only be ended.
            log.exception("log_not_understood", task_id=claim.task.id, epoch=claim.epoch)
            fold, decide = LogFold(message_id=claim.task.answer_id), self._give_up
        owed, how, next_is_due = claim.owed, claim.task.status, False
        if owed is None:
            if task_log.was_closed:
                verdict: End | Postponed | Told = as_told(claim, fold, self._clock.now())
            else:
                verdict = await decide(claim, Recorder(task_log, fold), cancellation)
            match verdict:
                case Told():
                    await self._patiently(claim.task.id, self._desk.told, claim, verdict)
                    return "waiting", False
                case Postponed():
                    return "queued", await self._patiently(claim.task.id, self._desk.postpone, claim, verdict)
                case End():
                    ended = await self._patiently(claim.task.id, self._queue.end, claim, verdict)
                    owed, how, next_is_due = ended.owed, verdict.status, ended.next_is_due
                case other:
                    assert_never(other)
        if not task_log.was_closed:
            await task_log.append(*closing(claim, fold, owed))
        await self._patiently(claim.task.id, self._queue.close, claim)
        return how, next_is_due

    async def _give_up(self, claim: Claim, recorder: Recorder, cancellation: Cancellation) -> End | Told:
        """A task that cannot be run has failed. One that waits goes on waiting: its operation has an end to come."""
        if claim.task.status == "waiting":
            operation = await self._patiently(claim.task.id, self._desk.of_task, claim.task.id)
            if operation is not None and operation.outcome is None:
                return Told(operation.progress_number, again_seconds=PUT_OFF_SECONDS)
        return await self._fail(claim, recorder)

    async def _fail(self, claim: Claim, recorder: Recorder) -> End:
        await settle(recorder)
        return failed(claim, recorder.fold, "unexpected_error", self._clock.now())

    async def _abandon(self, claim: Claim, recorder: Recorder, cancellation: Cancellation) -> End:
        """The same without its answer, which may be what cannot be stored: no holder would ever be done with it."""
        return replace(await self._fail(claim, recorder), answer=None)
