"""The command as a user runs it, loaded once; and one service for those that ask one."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from service.adapters.postgres import Database, postgres_pool
from service.adapters.postgres_operations import PostgresOperations
from service.adapters.postgres_tasks import PostgresTasks
from service.client import Event, Playhead
from service.model.caller import EVERYONES
from service.model.encoding import frames
from service.model.ids import TaskId
from service.model.operation import Accepted, Completion, Delivery, Executor, NewOperation, Operation, Succeeded
from service.model.task import Claim
from service.wiring import StoreUrls
from tests.conftest import REPOSITORY
from tests.processes import serve
from tests.sessions.databases import own_database

PLAIN = {"TERM": "dumb", "NO_COLOR": "1"}
COLOURS = {"TERM": "xterm-256color", "NO_COLOR": "", "COLUMNS": "20"}
NO_TASK = "01a200c7-2bc0-740f-b3ec-bbe6f3b979e2"
STEERING = "\x1b[31mred\x1b]0;title\x07 \x9b31m\x7f \r back"


@dataclass(frozen=True)
class Ran:
    code: int | None
    out: str
    err: str


Command = Callable[..., Awaitable[Ran]]


@pytest.fixture(scope="session")
def loaded() -> Iterator[Path]:
    """Where a process listens that has the command loaded."""
    with tempfile.TemporaryDirectory(prefix="playhead-") as folder:
        command = (sys.executable, "-m", "tests.cli.loaded", f"{folder}/socket")
        environment = os.environ | PLAIN
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY, env=environment
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"listening\n"
            yield Path(folder, "socket")


@pytest.fixture
def playhead(loaded: Path) -> Command:
    """Run the command to its end, with these PLAYHEAD_ settings and no others."""

    async def run(
        folder: Path,
        *arguments: str,
        settings: Mapping[str, str] | None = None,
        terminal: Mapping[str, str] | None = None,
        interrupt_at: str | None = None,
    ) -> Ran:
        """With `terminal`, on a pseudo-terminal with this environment; its text is in `out`, with lone line feeds."""
        asked = {
            "folder": str(folder),
            "environment": environment_of(settings or {}) | dict(terminal or {}),
            "arguments": arguments,
            "terminal": terminal is not None,
            "interrupt_at": interrupt_at,
        }
        reader, writer = await asyncio.open_unix_connection(loaded, limit=1024 * 1024)
        writer.write(json.dumps(asked).encode() + b"\n")
        answer = json.loads(await reader.read())
        writer.close()
        await writer.wait_closed()
        return Ran(answer["code"], answer["out"].replace("\r\n", "\n"), answer["err"])

    return run


@dataclass(frozen=True)
class Logs:
    """A service, and tasks of it."""

    url: str
    stores: dict[str, str]
    counted: TaskId
    events: list[Event]
    """Of `counted`, which is archived."""
    failed: TaskId
    steering: TaskId
    running: TaskId
    """It says "Live" and then waits for as long as the tests take."""

    @property
    def frames(self) -> bytes:
        return frames([(str(event.position).encode(), event.data) for event in self.events])

    async def begin(
        self, tool: str = "render", executor: Executor = "remote", deadline_seconds: float | None = 3600
    ) -> Operation:
        """An operation of the turn that runs, as its worker would begin it."""
        async with postgres_pool(self.stores["POSTGRES_URL"], connections=1) as pool:
            database = Database(pool)
            task = await PostgresTasks(database).read(EVERYONES, self.running)
            (lease,) = await database.fetch("SELECT epoch FROM leases WHERE task_id = $1", self.running)
            assert task is not None
            claim = Claim(task, lease["epoch"], None, 0)
            new = NewOperation(f"call-{uuid4()}", tool, executor, {"n": 1}, deadline_seconds)
            return (await PostgresOperations(database).begin(claim, new)).operation

    async def failed_follow_up(self, tool: str) -> Operation:
        """An operation that is done, and whose follow-up is as one that has failed."""
        operation = await self.begin(tool)
        async with postgres_pool(self.stores["POSTGRES_URL"], connections=1) as pool:
            database = Database(pool)
            done = Completion(operation.id, Succeeded("done"), Delivery("http", "test"))
            assert isinstance(await PostgresOperations(database).complete(done), Accepted)
            await database.fetch(  # it was not begun: its session is busy
                "UPDATE tasks SET status = 'failed', ending = '[]', finished_at = now(), log_closed = true"
                " WHERE id = $1",
                operation.task_id,
            )
        return operation

    def at(self, door: str) -> tuple[list[str], dict[str, str]]:
        """The options and the settings with which commands ask the service (`url`) or its stores (`stores`)."""
        return (["--stores"], self.stores) if door == "stores" else ([], {"URL": self.url})


@pytest.fixture(scope="session")
def one_database(stores: StoreUrls) -> Iterator[str]:
    with own_database(stores.postgres) as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def logs(stores: StoreUrls, one_database: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Logs]:
    """One service for all tests of commands that ask one."""
    settings = {"REDIS_URL": stores.redis, "POSTGRES_URL": one_database}
    async with (
        serve(tmp_path_factory.mktemp("service") / "log", settings) as service,
        Playhead(service.url) as playhead,
    ):
        counted = await said_to(playhead, "/reason Well\n/count 12 rate=40")
        failed = await said_to(playhead, "/fail validation_error")
        steering = await said_to(playhead, f"/say {STEERING}")
        running = await said_to(playhead, "/say Live\n/wait 290")
        events = [event async for event in playhead.follow(counted)]
        for task_id in (failed, steering):
            assert [event async for event in playhead.follow(task_id)]
        async with asyncio.timeout(20):
            while (await playhead.verify(counted))["read_from"] != "both":
                pass  # each look is a round trip
        yield Logs(service.url, settings, counted, events, failed, steering, running)
        await playhead.cancel(running)  # else the service waits for it when it stops


async def said_to(playhead: Playhead, text: str) -> TaskId:
    return (await playhead.post(await playhead.create_session(), text)).task_id


def environment_of(settings: Mapping[str, str]) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PLAYHEAD_")}
    return environment | {f"PLAYHEAD_{name}": value for name, value in settings.items()} | PLAIN
