"""Streams that are opened while a store is away: on a real socket, over stores in memory."""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

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
from service.http.sse import HEARTBEAT
from service.model.errors import DatabaseUnavailable, LogUnavailable, StoreUnavailable
from service.model.export import prove_export
from service.model.ids import Epoch, OwnerId, TaskId
from service.model.log import Page
from service.model.position import BEGINNING, Position
from service.registry.archive import Archivist
from service.registry.task_log import TaskLog
from service.registry.watch import StoreWatch
from service.registry.writer import log_writer
from service.settings import Settings
from service.wiring import House, StoreUrls, open_app
from tests.contracts.archives import now_ms, task_made_at
from tests.http.conftest import served
from tests.http.memory import opened
from tests.http.test_positions import dechunked, ids
from tests.http.wire import Answer, Header, ask
from tests.registry.test_follow import FINISH, parts


class Switched:
    """A port that can be away."""

    def __init__(self, port: object, error: type[StoreUnavailable]) -> None:
        self._port = port
        self._error = error
        self.is_away = False

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        async def call(*arguments: object) -> Any:
            if self.is_away:
                raise self._error
            return await getattr(self._port, verb)(*arguments)

        return call


@dataclass(frozen=True)
class Doors:
    """A service, and what it stands on."""

    url: str
    store: MemoryLogStore
    archive: MemoryArchive
    redis: Switched
    postgres: Switched

    async def log(self, *, closed: bool) -> tuple[TaskId, list[str]]:
        """A hot log of a task that is known, and its positions."""
        task_id = task_made_at(now_ms())
        self.archive.know(task_id, log_closed=closed)
        async with log_writer(self.store, now_ms) as writer:
            log: TaskLog = await writer.open(task_id, Epoch(1))
            await log.append(*parts(5), *([FINISH] if closed else []))
        return task_id, [position.decode() for position, _ in (await self.store.read(task_id, BEGINNING, 100)).events]

    async def archived(self) -> tuple[TaskId, list[str]]:
        """A log of which only the archive has anything."""
        task_id, positions = await self.log(closed=True)
        await Archivist(self.store, self.store, self.archive, hot_ttl_seconds=3600).archive_some()
        self.store.forget(task_id)
        return task_id, positions

    async def stream(self, task_id: str, after: str | None = None, **more: Any) -> Answer:
        headers: list[Header] = [] if after is None else [("Last-Event-ID", after)]
        return await ask(self.url, "GET", f"/tasks/{task_id}/stream{more.pop('query', '')}", None, headers, **more)


@pytest.fixture
async def doors() -> AsyncIterator[Doors]:
    hints, archive, database = MemoryHints(), MemoryArchive(), MemoryDatabase()
    store, tasks = MemoryLogStore(hints), MemoryTasks(database)
    sessions, messages = MemorySessions(database), MemoryMessages(database)
    redis, postgres = Switched(store, LogUnavailable), Switched(archive, DatabaseUnavailable)
    keys = MemoryKeys()
    watch = StoreWatch({}, lambda: datetime.now(UTC), time.monotonic)
    house = House(
        StoreUrls("redis://memory", "postgresql://memory"),
        logs=redis,
        hot=store,
        archive=archive,
        archived=postgres,
        seals=postgres,
        hints=hints,
        sessions=sessions,
        removals=sessions,
        messages=messages,
        chats=messages,
        tasks=tasks,
        queue=tasks,
        step_store=tasks,
        desk=MemoryOperations(database),
        inbox=MemoryOperations(database),
        operations=MemoryOperations(database),
        directory=postgres,
        rows=tasks,
        backlogs=tasks,
        doorbell=MemoryDoorbell(),
        keys=keys,
        token_key=keys,
        health=HealthRoutes(watch),
        watch=watch,
    )
    settings = Settings(_env_file=None, heartbeat_seconds=0.5)
    async with open_app(house, settings) as app, served(app, settings) as url:
        yield Doors(url, store, archive, redis, postgres)


def assert_problem(answer: Answer, status: int, error_type: str) -> None:
    assert (answer.status, answer.json["error_type"]) == (status, error_type)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)


class TestWithoutPostgres:
    async def test_a_log_that_redis_has_is_streamed(self, doors: Doors) -> None:
        running, positions = await doors.log(closed=False)
        doors.postgres.is_away = True
        answer = await doors.stream(running, until=b"p4")
        assert (answer.status, ids(answer)) == (200, positions)
        refusing = await doors.stream(running, positions[1], query="?on_gap=refuse", until=b"p4")
        assert (refusing.status, ids(refusing)) == (200, positions[2:])
        assert (await doors.stream(running, positions[-1], until=b"\r\n\r\n")).status == 200

    async def test_a_log_that_has_ended_is_streamed_to_its_end(self, doors: Doors) -> None:
        ended, positions = await doors.log(closed=True)
        doors.postgres.is_away = True
        assert ids(await doors.stream(ended, positions[2])) == positions[3:]
        assert (await doors.stream(ended, positions[-1])).status == 204

    async def test_of_what_redis_has_not_nothing_is_said(self, doors: Doors) -> None:
        running, positions = await doors.log(closed=False)
        emptied, _ = await doors.log(closed=False)
        archived, _ = await doors.archived()
        doors.store.forget(emptied)
        doors.postgres.is_away = True
        for task_id in (emptied, archived, task_made_at(now_ms())):
            for after in (None, positions[2], "5-5"):
                assert_problem(await doors.stream(task_id, after), 503, "service_unavailable")
        for query in ("", "?on_gap=refuse"):
            assert_problem(await doors.stream(running, "5-5", query=query), 503, "service_unavailable")

    async def test_what_cannot_be_a_task_or_a_position_is_refused_as_ever(self, doors: Doors) -> None:
        running, _ = await doors.log(closed=False)
        doors.postgres.is_away = True
        assert_problem(await doors.stream("no-task"), 404, "not_found")
        assert_problem(await doors.stream(running, "yesterday"), 400, "validation_error")
        assert_problem(await doors.stream(running, query="?on_gap=perhaps"), 422, "validation_error")


class TestWithPostgres:
    @pytest.mark.parametrize("redis_is_away", [False, True])
    async def test_a_task_that_nobody_knows_is_none(self, doors: Doors, redis_is_away: bool) -> None:
        doors.redis.is_away = redis_is_away
        for after in (None, "5-5"):
            for query in ("", "?on_gap=refuse"):
                answer = await doors.stream(task_made_at(now_ms()), after, query=query)
                assert_problem(answer, 404, "not_found")
                assert answer.seconds < 1


class TestWithoutRedis:
    async def test_a_log_that_is_archived_is_streamed(self, doors: Doors) -> None:
        archived, positions = await doors.archived()
        doors.redis.is_away = True
        for after in (None, positions[2]):
            answer = await doors.stream(archived, after)
            assert (answer.status, ids(answer)) == (200, positions[3 if after else 0 :])
        assert (await doors.stream(archived, positions[-1])).status == 204
        gap = await doors.stream(archived, "5-5", query="?on_gap=refuse")
        assert_problem(gap, 410, "gap")

    async def test_of_any_other_one_nothing_is_said(self, doors: Doors) -> None:
        for closed in (False, True):
            hot, positions = await doors.log(closed=closed)
            doors.redis.is_away = True
            for after in (None, positions[2]):
                assert_problem(await doors.stream(hot, after), 503, "service_unavailable")
            doors.redis.is_away = False


CHAT = b'{"id": "c", "trigger": "submit-message", "messages": [{"id": "m", "role": "user", "parts": [%b]}]}'
PART = b'{"type": "text", "text": "Hi"}'
POSTED = {
    "a message": ("/sessions/{}/messages?stream=1", b'{"parts": [%b]}' % PART),
    "a chat": ("/api/chat", CHAT % PART),
}


@pytest.mark.parametrize(("path", "body"), POSTED.values(), ids=POSTED)
async def test_a_message_that_was_taken_is_not_answered_as_if_it_was_not(path: str, body: bytes) -> None:
    """Who is told to come back later would post it twice."""
    async with opened(has_logs=True, heartbeat_seconds=0.1) as posting:
        session_id = (await posting.sessions.create(OwnerId("local"))).id
        posting.stores[0].error = LogUnavailable()
        answer = await ask(posting.url, "POST", path.format(session_id), body, until=HEARTBEAT)
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")


class TestLogsForPrograms:
    async def long_log(self, doors: Doors) -> TaskId:
        """One that no first page holds."""
        task_id = task_made_at(now_ms())
        doors.archive.know(task_id)
        async with log_writer(doors.store, now_ms) as writer:
            await (await writer.open(task_id, Epoch(1))).append(*parts(400), FINISH)
        return task_id

    async def test_an_export_that_fails_in_the_middle_is_cut(self, doors: Doors) -> None:
        whole = await ask(doors.url, "GET", f"/tasks/{await self.long_log(doors)}/export")
        assert whole.body.endswith(b"}\n\r\n0\r\n\r\n")
        read = doors.store.read

        async def read_once(task_id: TaskId, after: Position, count: int) -> Page:
            page = await read(task_id, after, count)
            doors.redis.is_away = True
            return page

        doors.store.read = read_once  # type: ignore[method-assign]
        task_id = await self.long_log(doors)  # of the other one the pages are kept for a moment
        with structlog.testing.capture_logs() as logs:
            answer = await ask(doors.url, "GET", f"/tasks/{task_id}/export")
        lines = [line for line in dechunked(answer).encode().splitlines(keepends=True) if line.startswith(b"{")]
        assert (answer.status, len(lines) > 100) == (200, True)
        assert not answer.body.endswith(b"0\r\n\r\n")
        assert [finding.type for finding in prove_export(lines).findings if "export" in finding.type] == [
            "incomplete_export"
        ]
        assert [entry["event"] for entry in logs] == ["export_cut"]

    async def test_a_proof_needs_both_stores_and_a_page_one(self, doors: Doors) -> None:
        archived, _ = await doors.archived()
        ended, positions = await doors.log(closed=True)
        doors.postgres.is_away = True
        for route in ("verify", "export"):
            assert_problem(await ask(doors.url, "GET", f"/tasks/{ended}/{route}"), 503, "service_unavailable")
        page = (await ask(doors.url, "GET", f"/tasks/{ended}/events")).json
        assert ([event["id"] for event in page["events"]], page["closed"]) == (positions, True)
        doors.postgres.is_away, doors.redis.is_away = False, True
        assert (await ask(doors.url, "GET", f"/tasks/{archived}/events")).json["closed"] is True
        assert (await ask(doors.url, "GET", f"/tasks/{archived}/export")).status == 200
        assert_problem(await ask(doors.url, "GET", f"/tasks/{ended}/events"), 503, "service_unavailable")
