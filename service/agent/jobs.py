"""Background jobs: commands that run under the lease of an operation's task, from their beginning to its outcome."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, assert_never

import structlog

from service.agent.cancellation import Cancellation, Cancelled
from service.agent.operation_log import tell_progress
from service.agent.ports import Commands, RunningCommand
from service.agent.recorder import Recorder
from service.agent.step import Clock
from service.model.errors import (
    CommandNotStarted,
    InvalidInput,
    LogTailLost,
    NotTheHolder,
    StoreUnavailable,
    TakenOver,
    TooManyCommands,
    cause_of,
)
from service.model.events import Json
from service.model.failures import message_for
from service.model.ids import OperationId
from service.model.job import CommandEnd, Exited, Lost, Signalled
from service.model.operation import Cancelled as OperationCancelled
from service.model.operation import Completion, Delivery, Failed, Operation, Outcome, Progress, Succeeded
from service.model.task import Claim, Told
from service.operations.operations import Operations
from service.operations.patience import Patience
from service.operations.ports import OperationDesk

log = structlog.get_logger()

AT_ONCE: Final = 16
"""So many jobs run in a process; what would be one more waits until one has ended, here or elsewhere."""

ROOM_SECONDS: Final = 5.0
"""After so long a job that found no room is tried again."""

LOOK_SECONDS: Final = 2.0
"""Between two looks at a job: what it printed is told, and whether it is still wanted is asked."""

TAIL_CHARACTERS: Final = 2000
"""Of what a job has printed, as its progress."""

STOP_SECONDS: Final = 0.8
"""How long the command of a worker that is told to stop is waited for, and then how long the database.

Both together are less than a worker waits for what it stops. A command that does not end is killed behind that.
"""

BY: Final = Delivery("service", "job")


class Jobs:
    """Works on operations that are background jobs. Without `commands` none is begun here, and lost ones are ended."""

    def __init__(
        self,
        commands: Commands | None,
        desk: OperationDesk,
        operations: Operations,
        patiently: Patience,
        clock: Clock,
        *,
        at_once: int = AT_ONCE,
    ) -> None:
        self._commands = commands
        self._desk = desk
        self._operations = operations
        self._patiently = patiently
        self._clock = clock
        self._at_once = at_once
        self._places: set[OperationId] = set()
        self._killing: set[asyncio.Task[CommandEnd]] = set()

    async def work(self, claim: Claim, operation: Operation, recorder: Recorder, cancellation: Cancellation) -> Told:
        """Run a pending job to its end, and complete its operation; or say when there may be room for it.

        A job runs once. Of one that another holder has begun nothing is known any more: it is completed as `died`, and
        so is one that is stopped with its worker. One that is not wanted any more, since somebody else has completed
        its operation, is killed. Raises NotTheHolder when it is over, since a completion takes the task away.
        """
        if operation.begun_by is None:
            if self._commands is None or len(self._places) + len(self._killing) >= self._at_once:
                log.info("job_waits", operation_id=operation.id, task_id=claim.task.id)
                return Told(operation.progress_number, ROOM_SECONDS)
            self._places.add(operation.id)
            try:
                if await self._patiently(claim.task.id, self._desk.begin_job, claim):
                    await self._run(self._commands, claim, operation, recorder, cancellation)
                    raise TakenOver
            finally:
                self._places.discard(operation.id)
        await self._complete(claim, operation, _died())
        raise TakenOver

    async def _run(
        self, commands: Commands, claim: Claim, operation: Operation, recorder: Recorder, cancellation: Cancellation
    ) -> None:
        """Raises NotTheHolder where somebody else has completed it."""
        log.info("job_began", operation_id=operation.id, task_id=claim.task.id, epoch=claim.epoch)
        outcome: Outcome = _died()
        try:
            try:
                outcome = await self._outcome(commands, claim, operation, recorder, cancellation)
            except NotTheHolder:
                raise
            except Exception:
                # The edge of a job: a mistake of ours ends this one, by the path that all of them take.
                log.exception("job_crashed", operation_id=operation.id, task_id=claim.task.id)
                outcome = Failed("unexpected_error", message_for("unexpected_error"))
            await self._complete(claim, operation, outcome)
        except asyncio.CancelledError:
            await self._say_soon(claim, operation, outcome)
            raise

    async def _outcome(
        self, commands: Commands, claim: Claim, operation: Operation, recorder: Recorder, cancellation: Cancellation
    ) -> Outcome:
        arguments = operation.arguments
        command = arguments.get("command") if isinstance(arguments, dict) else None
        try:
            running = await commands.start(operation.session_id, operation.id, str(command))
        except (InvalidInput, TooManyCommands, CommandNotStarted) as error:
            log.warning("job_not_started", operation_id=operation.id, task_id=claim.task.id, cause=cause_of(error))
            return Failed(error.error_type, str(error))
        async with self._killed_at_the_end(running, operation):
            try:
                end = await self._watch(running, claim, recorder, cancellation)
            except Cancelled:
                return OperationCancelled("cancelled by owner")
            return _outcome_of(end, running.output())

    @asynccontextmanager
    async def _killed_at_the_end(self, running: RunningCommand, operation: Operation) -> AsyncGenerator[None]:
        """The command does not run on, however this is left; a holder that is stopped does not wait for it for long."""
        patience: float | None = None
        try:
            yield
        except asyncio.CancelledError:
            patience = STOP_SECONDS
            raise
        finally:
            killing = asyncio.create_task(running.kill(), name=f"kill-{operation.id}")
            self._killing.add(killing)
            killing.add_done_callback(self._killing.discard)
            await asyncio.wait([killing], timeout=patience)

    async def _watch(
        self, running: RunningCommand, claim: Claim, recorder: Recorder, cancellation: Cancellation
    ) -> CommandEnd:
        """How it ended. Raises NotTheHolder where it is not wanted any more, and Cancelled."""
        ended = asyncio.create_task(running.wait(), name=f"job-{claim.task.id}")
        tail, has_log = "", True
        try:
            while True:
                is_cancelled = await self._is_cancelled(ended, cancellation)
                if ended.done():
                    return ended.result()
                known = await self._patiently(claim.task.id, self._desk.of_task, claim.task.id)
                if known is None or known.status != "pending":
                    log.info("job_unwanted", task_id=claim.task.id, epoch=claim.epoch)
                    raise TakenOver
                if is_cancelled:
                    raise Cancelled
                has_log = has_log and await _has_told(recorder, known)
                if (printed := running.output()[-TAIL_CHARACTERS:]) != tail:
                    tail = printed  # the row has it first; the next look finds it there, and tells the log
                    report = Progress(known.id, {"output": tail}, BY)
                    await self._patiently(claim.task.id, self._operations.take, report)
        finally:
            ended.cancel()

    async def _is_cancelled(self, ended: asyncio.Task[CommandEnd], cancellation: Cancellation) -> bool:
        """Let some time pass, until the command has ended or it is to be cancelled; whether that is so."""
        pause = asyncio.ensure_future(self._clock.sleep(LOOK_SECONDS))
        try:
            async with cancellation.scope():
                await asyncio.wait([ended, pause], return_when=asyncio.FIRST_COMPLETED)
        except Cancelled:
            return True
        finally:
            pause.cancel()
        return False

    async def _complete(self, claim: Claim, operation: Operation, outcome: Outcome) -> None:
        await self._patiently(claim.task.id, self._operations.take, _completion(operation, outcome))

    async def _say_soon(self, claim: Claim, operation: Operation, outcome: Outcome) -> None:
        """Complete it where it is pending. Where that is not possible now, the next holder says that it died."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                known = await self._desk.of_task(claim.task.id)
                if known is not None and known.status == "pending":
                    await self._operations.take(_completion(operation, outcome))
        except (TimeoutError, StoreUnavailable) as error:
            log.warning("job_end_untold", operation_id=operation.id, task_id=claim.task.id, cause=cause_of(error))


async def _has_told(recorder: Recorder, known: Operation) -> bool:
    """Tell the newest progress, whoever reported it; False for a log whose store lost a part of it.

    The next holder tells that again; the command is not run again for it.
    """
    try:
        await tell_progress(recorder, known)
    except LogTailLost:
        log.warning("job_log_lost", operation_id=known.id, task_id=known.task_id)
        return False
    return True


def _completion(operation: Operation, outcome: Outcome) -> Completion:
    return Completion(operation.id, outcome, BY, follow_up=not isinstance(outcome, OperationCancelled))


def _died(details: Json = None) -> Failed:
    return Failed("died", message_for("died"), details)


def _outcome_of(end: CommandEnd, output: str) -> Outcome:
    match end:
        case Exited(0):
            return Succeeded({"exit_code": 0, "output": output})
        case Exited(code):
            return Failed("exit_code", message_for("exit_code"), {"exit_code": code, "output": output})
        case Signalled(number):
            return Failed("killed", message_for("killed"), {"signal": number, "output": output})
        case Lost():
            return _died({"output": output})
        case other:
            assert_never(other)
