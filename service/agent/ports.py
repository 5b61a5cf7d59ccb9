"""What the agent needs of the outside."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel

from service.model.events import Json
from service.model.generation import Piece, Prompt, ToolDescription
from service.model.ids import SessionId, TaskId
from service.model.job import CommandEnd
from service.model.operation import Operation
from service.model.task import Claim

Input = TypeVar("Input", bound=BaseModel)


class Model(Protocol):
    """A language model."""

    @property
    def provider(self) -> str:
        """Who asks for the key, as a person would name it; told with `data-authentication-required`."""

    def stream(self, task_id: TaskId, prompt: Prompt) -> AsyncGenerator[Piece]:
        """Answer the prompt, piece by piece, ending with CallEnded.

        Tries once. Raises ModelCallFailed with its type, before or amid the pieces; a model that connects too slowly or
        is silent for too long is a `timeout`. Closing the generator ends the call at the provider. `task_id` tells
        repeated calls for one task apart from others; nothing of it reaches a provider.
        """


@dataclass(frozen=True, slots=True)
class Tool(Generic[Input]):
    """Something that a model may ask for. `run` may be interrupted, and then has to end: its turn waits for that."""

    name: str
    description: str
    """For the model."""
    input: type[Input]
    """The arguments; the model sees their JSON Schema."""
    run: Callable[[Input], Awaitable[Json]]
    """Gives the output, which the model and the log are told. What it raises is told to neither: the call failed."""
    is_repeatable: bool = False
    """Whether it may run again where a worker was lost amid it; else the model is told that its outcome is unknown."""
    deadline_seconds: float = 60
    """How long a call may take; then it is interrupted, and has failed."""
    needs_approval: bool = False
    """Whether a person is asked before each call; it runs in the follow-up of a yes."""
    is_always_granted: bool = False
    """Whether sessions have it that grant other tools only."""


class OperationTool(Protocol):
    """Something that a model may ask for, and that the outside does: its calls are operations."""

    @property
    def description(self) -> ToolDescription:
        """For the model."""

    @property
    def needs_approval(self) -> bool:
        """Whether a person is asked before each call; the operation begins in the follow-up of a yes."""

    def why_not(self, arguments: Json) -> str | None:
        """What is the matter with these arguments; None: they fit. Names none of their values."""

    async def start(self, claim: Claim, call_id: str, arguments: Json) -> Operation:
        """Begin the operation and tell the outside; or answer the one that this call, or the same work, has already.

        One that has ended with no follow-up to come is the call's result. Waits for stores that are away. Raises
        NotTheHolder, TooManyOperations. Interrupted, the operation is there or not.
        """


class RunningCommand(Protocol):
    """A background command, while it runs and afterwards."""

    def output(self) -> str:
        """What it has printed so far: at most 16,000 characters, head and tail, between them how many are left out."""

    async def wait(self) -> CommandEnd:
        """How it ended. Returns when no process of it is left, as far as they can be ended; a repeat says the same."""

    async def kill(self) -> CommandEnd:
        """Have it end, in seconds: asked at first, then by force. Returns what `wait` does.

        A repeat waits with the first; behind the end nothing happens. It is done also if the waiting is cancelled.
        """


class Commands(Protocol):
    """Where background commands run. They end with the process that started them, however that ends."""

    async def start(self, session_id: SessionId, job_id: str, command: str) -> RunningCommand:
        """Have a shell run the command in the session's folder; returns when it runs. It has no deadline here.

        Nothing is started twice: raises InvalidInput for the id of a job that runs here, and for a command or ids that
        cannot be. Raises TooManyCommands, at once, where as many run as may, and CommandNotStarted.
        """
