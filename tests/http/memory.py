"""A service on a real socket, over stores in memory whose every call is counted."""

import base64
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from service.access.keys import mint
from service.access.stream_tokens import StreamTokens
from service.adapters.memory_archive import MemoryArchive
from service.adapters.memory_database import MemoryDatabase
from service.adapters.memory_doorbell import MemoryDoorbell
from service.adapters.memory_keys import MemoryKeys
from service.adapters.memory_log import MemoryHints, MemoryLogStore
from service.adapters.memory_messages import MemoryMessages
from service.adapters.memory_operations import MemoryOperations
from service.adapters.memory_sessions import MemorySessions
from service.adapters.memory_tasks import MemoryTasks
from service.http.health import HealthRoutes
from service.model.caller import EVERYONES, Caller, Scope
from service.model.events import TextPart
from service.model.ids import OperationId, OwnerId, TaskId
from service.model.intake import DeadLetter, DeadReason
from service.model.operation import Executor, NewOperation, Operation
from service.model.remote import RemoteTool
from service.model.session import NewMessage
from service.model.task import Claim
from service.registry.watch import StoreWatch
from service.settings import Settings
from service.wiring import House, StoreUrls, open_app
from tests.http.conftest import served
from tests.http.wire import Answer, Header, ask

ANN = Caller("user", OwnerId("ann"), frozenset({"read", "write"}))
HI = NewMessage((TextPart("Hi"),))
SECRETS = {name: f"whsec_{base64.b64encode(name.encode() * 8).decode()}" for name in ("render", "search")}
TOOLS = tuple(RemoteTool(name, "", {"type": "object"}, "http://h/", secret) for name, secret in SECRETS.items())


class Counted:
    """A port whose calls are noted; it may be told to fail."""

    def __init__(self, port: object, called: list[str]) -> None:
        self._port = port
        self._called = called
        self.error: Exception | None = None

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self._called.append(verb)
            if self.error is not None:
                raise self.error
            return getattr(self._port, verb)(*arguments, **named)

        return call


class Letters:
    """The port `DeadLetterBox`, over a list."""

    def __init__(self) -> None:
        self.kept: list[DeadLetter] = []
        self.redriven: list[tuple[str, DeadLetter]] = []
        """Who wanted it, and which."""

    def add(self, reason: DeadReason, body: bytes = b"{}", app_id: str | None = "render") -> DeadLetter:
        number = len(self.kept) + len(self.redriven)
        letter = DeadLetter(f"{number:016x}", reason, "Why.", _now(), None, app_id, len(body), body[:4096])
        self.kept.append(letter)
        return letter

    async def list(self, limit: int) -> Sequence[DeadLetter]:
        return self.kept[:limit]

    async def redrive(self, by: str, *, reason: DeadReason | None = None, letter_id: str | None = None) -> int:
        wanted = [each for each in self.kept if reason in (None, each.reason) and letter_id in (None, each.id)]
        self.kept = [each for each in self.kept if each not in wanted]
        self.redriven += [(by, each) for each in wanted]
        return len(wanted)


@dataclass
class Doors:
    """A service, and what it stands on."""

    keys: MemoryKeys
    has_logs: bool = False
    """Whether its tasks have logs, since some worker works on them; else streams are told that there are none."""
    begun: int = 0
    called: list[str] = field(default_factory=list)
    """The calls inward, but for those that look up a key."""
    asked: str = ""
    """The last path that was asked."""
    url: str = ""
    app: web.Application = field(default_factory=web.Application)
    session_id: str = ""
    task_id: str = ""
    doomed_id: str = ""
    """A session to be deleted."""
    operation_id: str = ""
    """Of the tool `render`, begun by a turn of Ann's that runs."""
    claim: Claim | None = None
    """Of that turn."""

    def __post_init__(self) -> None:
        database = MemoryDatabase()
        hints, tasks, sessions = MemoryHints(), MemoryTasks(database), MemorySessions(database)
        messages = MemoryMessages(database)
        logs, archive, watch = MemoryLogStore(hints), MemoryArchive(), StoreWatch({}, _now, time.monotonic)
        self.sessions, self.messages, self.archive, self.tasks = sessions, messages, archive, tasks
        self.lookups = Counted(self.keys, [])
        self.stores = [Counted(port, self.called) for port in (logs, archive, sessions, tasks, archive, messages)]
        counted_logs, counted_archive, counted_sessions, counted_tasks, directory, counted_messages = self.stores
        operations = self.operations = MemoryOperations(database)
        counted_operations = Counted(operations, self.called)
        self.stores.append(counted_operations)
        self.letters = Letters()
        self.house = House(
            StoreUrls("redis://memory", "postgresql://memory"),
            logs=counted_logs,
            hot=logs,
            archive=archive,
            archived=counted_archive,
            hints=hints,
            sessions=counted_sessions,
            removals=sessions,
            messages=counted_messages,
            chats=counted_messages,
            tasks=counted_tasks,
            queue=tasks,
            step_store=tasks,
            desk=operations,
            inbox=counted_operations,
            operations=counted_operations,
            directory=tasks if self.has_logs else directory,
            rows=tasks,
            backlogs=tasks,
            seals=archive,
            doorbell=MemoryDoorbell(),
            keys=self.lookups,
            token_key=self.keys,
            health=HealthRoutes(watch),
            watch=watch,
            tools=TOOLS,
            letters=Counted(self.letters, self.called),
        )

    async def begin(
        self, tool: str = "render", executor: Executor = "remote", deadline_seconds: float | None = 3600
    ) -> Operation:
        """Another operation of Ann's."""
        assert self.claim is not None
        self.begun += 1
        new = NewOperation(f"call-{self.begun}", tool, executor, {"n": self.begun}, deadline_seconds)
        return (await self.operations.begin(self.claim, new)).operation

    async def key(self, *scopes: Scope, owner: str | None = "ann", lifetime_seconds: int | None = None) -> str:
        text, new = mint(None if owner is None else OwnerId(owner), scopes, "", lifetime_seconds)
        await self.keys.create(new)
        return text

    async def stream_token(self, task_id: str, moved_seconds: float = 0) -> str:
        tokens = StreamTokens(self.keys, lambda: _now() + timedelta(seconds=moved_seconds))
        return (await tokens.mint(ANN, TaskId(task_id))).text

    async def ask(self, method: str, path: str, headers: Sequence[Header] = (), **more: Any) -> Answer:
        """With a body that is taken where one is needed: nothing but the credential is to be wrong."""
        body = b'{"text": "Hi"}' if "/messages" in path and method == "POST" else None
        body = b'{"success": true}' if path.partition("?")[0].endswith("/complete") else body
        body = b'{"approved": true}' if path.partition("?")[0].endswith("/approve") else body
        body = NOTHING_SAID if path.partition("?")[0] == "/api/chat" else body
        self.asked = path
        return await ask(self.url, method, path, body, headers, **more)

    @property
    def names(self) -> dict[str, str]:
        """What stands for itself in a route's path."""
        return {
            "session_id": self.session_id,
            "task_id": self.task_id,
            "chat_id": self.session_id,
            "operation_id": self.operation_id,
            "file": "main.js",
            "folder": "model",
            "name": "fold.js",
        }

    @property
    def guarded(self) -> list[tuple[str, str]]:
        """Every route that there is but the public ones, with the session's and the task's ids in its path."""
        return [(method, path) for method, path in self.all_routes if path not in PUBLIC]

    @property
    def all_routes(self) -> list[tuple[str, str]]:
        names = self.names
        doomed = names | {"session_id": self.doomed_id}
        listed = [(route.method, route.resource.canonical) for route in self.app.router.routes() if route.resource]
        return [(method, path.format_map(doomed if method == "DELETE" else names)) for method, path in listed]


NOTHING_SAID = b'{"id": "c", "trigger": "regenerate-message", "messages": []}'
"""Asks a chat for another answer, which it has none of."""
PUBLIC = {"/", "/console/main.js", "/console/model/fold.js", "/healthz", "/readyz", "/openapi.json"}


def _now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def opened(*, has_logs: bool = False, **settings: Any) -> AsyncIterator[Doors]:
    doors = Doors(MemoryKeys(), has_logs)
    asking = await doors.sessions.create(ANN.owner)
    await doors.messages.post(EVERYONES, asking.id, HI)
    (doors.claim,) = await doors.tasks.claim(1, 1e6)
    doors.operation_id = OperationId((await doors.begin()).id)
    doors.doomed_id = (await doors.sessions.create(ANN.owner)).id
    session = await doors.sessions.create(ANN.owner)
    doors.session_id = session.id
    doors.task_id = (await doors.messages.post(EVERYONES, session.id, HI)).task_id
    chosen = Settings(_env_file=None, **settings)
    async with open_app(doors.house, chosen) as app, served(app, chosen) as url:
        doors.app, doors.url = app, url
        yield doors


def bearer(text: str) -> Header:
    return "Authorization", f"Bearer {text}"
