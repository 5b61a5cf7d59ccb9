"""Where commands ask: a running service by its URL, or its stores directly. Commands do not care which."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeAlias

import typer

from service.cli.serve import refuse_private_stores
from service.cli.store_door import StoredLogs, StoreDoor
from service.client import Event, Patience, Playhead
from service.model.errors import ConfigurationError
from service.model.ids import OperationId, SessionId, TaskId
from service.model.intake import DeadReason
from service.model.operation import Failed, OperationFilter, Succeeded
from service.model.position import Position
from service.model.session import UNSET, Posted, SessionSettings
from service.model.task import TaskFilter
from service.settings import PREFIX, Settings, load_settings
from service.wiring import (
    make_conversations,
    make_exporter,
    make_operations,
    make_prover,
    make_tasks,
    open_follower,
    open_house,
)

UrlOption: TypeAlias = Annotated[
    str | None, typer.Option("--url", help="The service; else PLAYHEAD_URL, else the one of this machine.")
]
TokenOption: TypeAlias = Annotated[
    str | None, typer.Option("--token", help="An API key or a JWT; better in PLAYHEAD_TOKEN, which nobody else sees.")
]
StoresOption: TypeAlias = Annotated[
    bool, typer.Option("--stores", help="Ask PLAYHEAD_REDIS_URL and PLAYHEAD_POSTGRES_URL directly, and no service.")
]

JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="For programs.")]


class LogDoor(Protocol):
    """What commands ask of a task's log. Raises NotFound, and what says that it is gone or that nobody answers."""

    def follow(self, task_id: TaskId, after: Position) -> AsyncGenerator[Event]:
        """The events behind a position, each once and in its order, until the terminal one. Raises Gap."""

    async def verify(self, task_id: TaskId) -> dict[str, Any]:
        """The proof of the log, as `GET /tasks/{id}/verify` answers it."""

    def export(self, task_id: TaskId, *, redact: bool = False) -> AsyncGenerator[bytes]:
        """The lines of a closed log as a file, some at a time. Who gets to the end has all of it."""


class TaskDoor(Protocol):
    """What commands ask of tasks."""

    def tasks(self, wanted: TaskFilter, limit: int | None) -> AsyncGenerator[dict[str, Any]]:
        """The newest that are wanted first, so many or all; each as `GET /tasks/{id}` answers it."""

    async def task(self, task_id: TaskId) -> dict[str, Any]:
        """The task as it stands, as `GET /tasks/{id}` answers it."""

    async def cancel(self, task_id: TaskId) -> dict[str, Any]:
        """Have it ended as cancelled, unless it has ended; the task as it stands."""


class SessionDoor(Protocol):
    """What commands ask of sessions."""

    async def create_session(self, settings: SessionSettings = UNSET) -> SessionId:
        """A new, empty session."""

    def sessions(self, limit: int | None) -> AsyncGenerator[dict[str, Any]]:
        """The newest first, so many or all, as `GET /sessions` answers them."""

    async def session(self, session_id: SessionId) -> dict[str, Any]:
        """The session with its newest messages, as `GET /sessions/{id}` answers it."""

    async def delete_session(self, session_id: SessionId) -> None:
        """Have nobody find it any more; what runs of it is cancelled."""

    async def post(self, session_id: SessionId, message: str) -> Posted:
        """Post a text, once."""


class OperationDoor(Protocol):
    """What commands ask of operations."""

    def operations(self, wanted: OperationFilter, limit: int | None) -> AsyncGenerator[dict[str, Any]]:
        """The newest that are wanted first, so many or all; each as `GET /operations` answers it."""

    async def operation(self, operation_id: OperationId) -> dict[str, Any]:
        """The operation and what came about its end, as `GET /operations/{id}` answers it."""

    async def complete(self, operation_id: OperationId, outcome: Succeeded | Failed) -> dict[str, Any]:
        """Say how it ended; the receipt. Raises what says that it has ended otherwise. A repeat is harmless."""

    async def cancel_operation(self, operation_id: OperationId) -> dict[str, Any]:
        """Have it ended as cancelled, unless it has ended; the operation as it stands then."""

    async def redrive(self, operation_id: OperationId) -> dict[str, Any]:
        """Have its follow-up tried again; the task that does. Raises what says that none has failed."""

    async def dead_letters(self, limit: int) -> Sequence[dict[str, Any]]:
        """The oldest ones, so many at most, as `GET /dead-letters` answers them."""

    async def redrive_letters(self, *, reason: DeadReason | None = None, letter_id: str | None = None) -> int:
        """Have those of a reason, or the one with this id, or all sent again; how many were."""


class Door(LogDoor, TaskDoor, SessionDoor, OperationDoor, Protocol):
    """All that commands ask for."""


@dataclass(frozen=True, slots=True)
class Where:
    """Which door was asked for."""

    url: str | None
    token: str | None
    stores: bool


def run(where: Where, ask: Callable[[Door], Awaitable[int]]) -> None:
    """Open the door, ask, and end with the exit code that is answered. Ctrl-C closes it and is quiet."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as while the program was loaded
        signal.signal(signal.SIGINT, signal.default_int_handler)
    raise typer.Exit(asyncio.run(_asked(where, ask)))


async def _asked(where: Where, ask: Callable[[Door], Awaitable[int]]) -> int:
    async with open_door(where) as door:
        return await ask(door)


@asynccontextmanager
async def open_door(where: Where) -> AsyncGenerator[Door]:
    """The door, open while the block runs. Raises ConfigurationError, and InvalidInput for what is no URL."""
    settings = load_settings()
    if not where.stores:
        token = settings.token if where.token is None else where.token
        async with service_at(where.url, token, settings) as playhead:
            yield playhead
        return
    if where.url is not None or where.token is not None:
        raise ConfigurationError("--stores: no service is asked, so there is neither --url nor --token")
    refuse_private_stores(settings, "--stores: it asks the stores that a service works with")
    async with open_house(settings) as house, open_follower(house, settings) as follower:
        logs = StoredLogs(follower, make_prover(house), make_exporter(house, follower))
        yield StoreDoor(make_conversations(house), make_tasks(house), make_operations(house), house.letters, logs)


def service_at(url: str | None, token: str | None, settings: Settings) -> Playhead:
    """The service at this URL, else at the one that is set, else the one of this machine."""
    return Playhead(url or service_url(settings), token, patience=_patience(settings))


def service_url(settings: Settings) -> str:
    """Where the service is as far as settings say. Raises ConfigurationError where they do not."""
    if settings.url is None and settings.http_port == 0:
        raise ConfigurationError(f"{PREFIX}URL: needed, since {PREFIX}HTTP_PORT does not say where the service is")
    return settings.url or f"http://127.0.0.1:{settings.http_port}"


def _patience(settings: Settings) -> Patience:
    """A service that was told to be silent for longer is given more time."""
    silence_seconds = max(Patience().silence_seconds, 2 * settings.heartbeat_seconds)
    return Patience(silence_seconds=silence_seconds, give_up_seconds=4 * silence_seconds)
