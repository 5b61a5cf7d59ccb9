"""A task whose operation is pending: its log is brought up to date, or ended where no follow-up is to come.

A background job is run from here.
"""

from dataclasses import replace

from service.agent.cancellation import Cancellation
from service.agent.ending import cancelled, failed, succeeded
from service.agent.jobs import Jobs
from service.agent.operation_log import tell_beginning, tell_end, tell_progress, tell_result
from service.agent.recorder import Recorder
from service.agent.step import Clock
from service.model.errors import TakenOver
from service.model.operation import Cancelled, Failed, Outcome, Succeeded
from service.model.task import Claim, End, Told
from service.operations.patience import Patience
from service.operations.ports import OperationDesk


class Waiting:
    """Works on tasks that wait. Without `jobs` background jobs are left to others."""

    def __init__(self, desk: OperationDesk, jobs: Jobs | None, patiently: Patience, clock: Clock) -> None:
        self._desk = desk
        self._jobs = jobs
        self._patiently = patiently
        self._clock = clock

    async def work(self, claim: Claim, recorder: Recorder, cancellation: Cancellation) -> End | Told:
        """Tell what the log lacks; the end where the operation has its outcome, and nobody is to go on with it.

        Raises NotTheHolder, behind a background job whenever it has run.
        """
        operation = await self._patiently(claim.task.id, self._desk.of_task, claim.task.id)
        if operation is None:
            raise RuntimeError("a task that waits has an operation")
        if operation.outcome is not None and operation.has_follow_up:
            raise TakenOver  # since the claim: what came of it is for the follow-up to tell
        await tell_beginning(recorder, claim.task, operation)
        await tell_progress(recorder, operation)
        if operation.outcome is None:
            await recorder.flush()
            if operation.executor == "job" and self._jobs is not None:
                return await self._jobs.work(claim, operation, recorder, cancellation)
            return Told(operation.progress_number)
        await tell_end(recorder, operation, operation.outcome)
        await tell_result(recorder, operation, operation.outcome)
        await recorder.flush()
        return replace(self._end(claim, recorder, operation.outcome), answer=None)  # who asked has been answered

    def _end(self, claim: Claim, recorder: Recorder, outcome: Outcome) -> End:
        now = self._clock.now()
        match outcome:
            case Succeeded():
                return succeeded(claim, recorder.fold, "stop", now)
            case Failed(error_type):
                return failed(claim, recorder.fold, error_type, now)
            case Cancelled():
                return cancelled(claim, recorder.fold, now)
