"""Where commands ask: a running service by its URL, or its stores directly. Commands do not care which."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeAlias
from uuid import UUID

import orjson
import typer

from service.cli.serve import refuse_private_stores
from service.client import Event, Gap, Patience, Playhead
from service.http.bodies import task_body
from service.model.caller import EVERYONES
from service.model.encoding import unframed
from service.model.errors import ConfigurationError, NotFound
from service.model.events import TextPart
from service.model.ids import SessionId, TaskId
from service.model.position import Position
from service.model.session import UNSET, NewMessage, Posted
from service.registry.follow import Begun, Follower, Frames
from service.registry.follow import Gap as ToldGap
from service.sessions.conversations import Conversations
from service.sessions.tasks import Tasks
from service.settings import PREFIX, Settings, load_settings
from service.wiring import make_conversations, make_tasks, open_follower, open_house

UrlOption: TypeAlias = Annotated[
    str | None, typer.Option("--url", help="The service; else PLAYHEAD_URL, else the one of this machine.")
]
TokenOption: TypeAlias = Annotated[
    str | None, typer.Option("--token", help="An API key or a JWT; better in PLAYHEAD_TOKEN, which nobody else sees.")
]
StoresOption: TypeAlias = Annotated[
    bool, typer.Option("--stores", help="Ask PLAYHEAD_REDIS_URL and PLAYHEAD_POSTGRES_URL directly, and no service.")
]


class Door(Protocol):
    """What commands ask for. Raises NotFound, Gap and what says that nobody answers."""

    async def create_session(self) -> SessionId:
        """A new, empty session."""

    async def post(self, session_id: SessionId, message: str) -> Posted:
        """Post a text, once."""

    async def task(self, task_id: TaskId) -> dict[str, Any]:
        """The task as it stands, as `GET /tasks/{id}` answers it."""

    def follow(self, task_id: TaskId, after: Position) -> AsyncGenerator[Event]:
        """The events behind a position, each once and in its order, until the terminal one."""


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
        async with Playhead(where.url or _url(settings), token, patience=_patience(settings)) as playhead:
            yield playhead
        return
    if where.url is not None or where.token is not None:
        raise ConfigurationError("--stores: no service is asked, so there is neither --url nor --token")
    refuse_private_stores(settings, "--stores: it asks the stores that a service works with")
    async with open_house(settings) as house, open_follower(house, settings) as follower:
        yield StoreDoor(make_conversations(house), make_tasks(house), follower)


def _url(settings: Settings) -> str:
    if settings.url is None and settings.http_port == 0:
        raise ConfigurationError(f"{PREFIX}URL: needed, since {PREFIX}HTTP_PORT does not say where the service is")
    return settings.url or f"http://127.0.0.1:{settings.http_port}"


def _patience(settings: Settings) -> Patience:
    """A service that was told to be silent for longer is given more time."""
    silence_seconds = max(Patience().silence_seconds, 2 * settings.heartbeat_seconds)
    return Patience(silence_seconds=silence_seconds, give_up_seconds=4 * silence_seconds)


class StoreDoor:
    """The stores directly, by what the doors over HTTP ask of them too."""

    def __init__(self, conversations: Conversations, tasks: Tasks, follower: Follower) -> None:
        self._conversations = conversations
        self._tasks = tasks
        self._follower = follower

    async def create_session(self) -> SessionId:
        return (await self._conversations.create(None, UNSET)).id

    async def post(self, session_id: SessionId, message: str) -> Posted:
        return await self._conversations.post(EVERYONES, session_id, NewMessage((TextPart(message),)))

    async def task(self, task_id: TaskId) -> dict[str, Any]:
        return dict(task_body(await self._tasks.read(EVERYONES, _known_form(task_id))))

    async def follow(self, task_id: TaskId, after: Position) -> AsyncGenerator[Event]:
        async with aclosing(self._follower.follow(_known_form(task_id), after)) as items:
            async for item in items:
                match item:
                    case Begun(ToldGap(gap), _) | ToldGap(gap):
                        raise Gap(gap)
                    case Frames(frames, _):
                        for position, data in unframed(frames):
                            yield Event(Position.stored(position), orjson.loads(data), data)
                    case _:
                        pass  # a heartbeat, or the end


def _known_form(task_id: TaskId) -> TaskId:
    """What is no task's id is no task's."""
    try:
        known = str(UUID(task_id)) == task_id
    except ValueError:
        known = False
    if not known:
        raise NotFound
    return task_id
