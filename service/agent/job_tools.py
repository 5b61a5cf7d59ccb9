"""The tools for background jobs: `start_job` begins one, `jobs` looks at those of the session, and kills."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from service.agent.ports import Tool
from service.agent.tools import CallRefused
from service.model.caller import EVERYONES
from service.model.encoding import rfc3339
from service.model.errors import NotFound
from service.model.events import Json
from service.model.ids import OperationId, SessionId
from service.model.operation import (
    Cancelled,
    Completion,
    Delivery,
    Operation,
    OperationFilter,
    plain_outcome,
)
from service.model.task import CancelRequested
from service.operations.asking import BeginsOnly
from service.operations.operations import Operations
from service.operations.patience import Patience
from service.operations.ports import OperationDesk
from service.sessions.ports import Doorbell

START_JOB: Final = "start_job"

DEADLINE_SECONDS: Final = 3600.0
"""Of a job, where its call says nothing else."""

MAX_DEADLINE_SECONDS: Final = 24 * 3600.0
"""A call that wants more is refused."""

MAX_COMMAND_BYTES: Final = 100_000
"""A longer command is refused."""

MAX_LISTED: Final = 50
"""Jobs of a session, the newest; older ones are there by their ids."""

MAX_SHOWN_CHARACTERS: Final = 200
"""Of a command in a list."""

KILLED: Final = "killed on request"


class JobWanted(BaseModel):
    """What `start_job` is given."""

    model_config = ConfigDict(extra="forbid", strict=True)

    command: Annotated[str, Field(min_length=1, description="For bash, in the session's folder. It has no input.")]
    deadline_seconds: Annotated[float, Field(gt=0, le=MAX_DEADLINE_SECONDS)] = DEADLINE_SECONDS

    @field_validator("command")
    @classmethod
    def _is_for_a_shell(cls, command: str) -> str:
        if "\0" in command or len(command.encode()) > MAX_COMMAND_BYTES:
            raise ValueError(f"a command has at most {MAX_COMMAND_BYTES} bytes, none of them NUL")
        return command


def start_job(desk: OperationDesk, patiently: Patience) -> BeginsOnly[JobWanted]:
    """The tool `start_job`: its task is due at once, and whoever claims it, and has room, runs the command."""
    says = (
        "Starts a shell command in the background and returns at once. When it has ended, you are told how, "
        "with its output. It is killed at its deadline. Use `jobs` to look at it meanwhile."
    )
    return BeginsOnly(START_JOB, says, JobWanted, "job", lambda wanted: wanted.deadline_seconds, desk, patiently)


class JobsAsked(BaseModel):
    """What `jobs` is given: `list`, or a job's id, and whether it is to be killed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    list: Annotated[bool, Field(description="The newest jobs of this session.")] = False
    job: Annotated[
        str | None,
        Field(
            pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
            description="The operation_id of a job: how it stands, with its output.",
        ),
    ] = None
    kill: Annotated[bool, Field(description="End that job. You are not told of its end again.")] = False

    @model_validator(mode="after")
    def _asks_one_thing(self) -> "JobsAsked":
        if self.list == (self.job is not None) or (self.kill and self.job is None):
            raise ValueError("either list is true, or job is an id, which may stand with kill")
        return self


class SessionJobs:
    """The `jobs` tool of one session; of others' jobs it knows nothing."""

    def __init__(self, operations: Operations, doorbell: Doorbell, session_id: SessionId) -> None:
        self._operations = operations
        self._doorbell = doorbell
        self._session_id = session_id

    @property
    def tool(self) -> Tool[JobsAsked]:
        """For a toolbox."""
        return Tool(
            "jobs",
            "Background jobs of this session: lists them, shows one with the newest of its output, kills one.",
            JobsAsked,
            self.ask,
            is_repeatable=True,
        )

    async def ask(self, asked: JobsAsked) -> Json:
        """The answer. Raises CallRefused for a job that is none of this session's."""
        if asked.job is None:
            wanted = OperationFilter(executor="job", session_id=self._session_id)
            found = await self._operations.newest(EVERYONES, wanted, MAX_LISTED)
            return {"jobs": [_line(await self._job(each.id)) for each in found]}
        job = await self._job(OperationId(asked.job))
        if asked.kill and job.status == "pending":
            killed = Completion(job.id, Cancelled(KILLED), Delivery("service", "jobs"), follow_up=False)
            await self._operations.take(killed)
            await self._doorbell.ring(CancelRequested(job.task_id))  # else its holder sees it a little later
            job = await self._job(job.id)
        return _shown(job)

    async def _job(self, operation_id: OperationId) -> Operation:
        try:
            job = await self._operations.read(EVERYONES, operation_id)
        except NotFound:
            job = None
        if job is None or (job.session_id, job.executor) != (self._session_id, "job"):
            raise CallRefused("not_found", "This session has no job of this id.")
        return job


def _line(job: Operation) -> dict[str, Json]:
    """A job in a list. `waiting` is one that no worker had room for yet."""
    command = str(job.arguments["command"]) if isinstance(job.arguments, dict) else ""
    short = command if len(command) <= MAX_SHOWN_CHARACTERS else f"{command[:MAX_SHOWN_CHARACTERS]}…"
    pending = "waiting" if job.begun_by is None else "running"
    line = {"job": job.id, "status": pending if job.status == "pending" else job.status, "command": short}
    times = {"started_at": job.created_at, "deadline": job.deadline, "ended_at": job.ended_at}
    return line | {name: rfc3339(time) for name, time in times.items() if time is not None}


def _shown(job: Operation) -> dict[str, Json]:
    """A job with its newest output: all of it that is kept, once it has ended by itself."""
    progress = job.progress if isinstance(job.progress, dict) else {}
    told = {"output": progress.get("output", "")} if job.outcome is None else {"outcome": plain_outcome(job.outcome)}
    if isinstance(job.outcome, Cancelled):
        told["output"] = progress.get("output", "")
    return _line(job) | told
