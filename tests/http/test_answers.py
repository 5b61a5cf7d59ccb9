"""What is answered: to what is allowed, to a mistake of ours, and while a store is away."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import structlog

from consumers import tasks
from service.adapters.postgres import Database, postgres_pool
from service.http.app import STOP_SECONDS, serving
from service.http.bodies import SETTINGS
from service.model.caller import EVERYONES
from service.model.errors import DatabaseUnavailable, LogUnavailable, MailboxFull, PlayheadError, SessionBusy
from service.model.events import TextPart
from service.model.session import NewMessage
from service.registry import hub, watch
from service.settings import Settings
from service.wiring import House, StoreUrls, open_app, open_house, open_worker
from tests.adapters.upstream import SECRET, Upstream
from tests.http.conftest import Doors, served, settings_for
from tests.http.wire import Answer, Line, ask, line
from tests.sessions.databases import say
from tests.sessions.texts import ODD_TEXTS

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOBODYS = "01890000-0000-7000-8000-000000000000"
NO_STORE = "no-store, private"


@asynccontextmanager
async def door(house: House, settings: Settings) -> AsyncIterator[str]:
    async with open_app(house, settings) as app, served(app, settings) as url:
        yield url


async def post(url: str, session_id: str, text: str) -> Answer:
    return await ask(url, "POST", f"/sessions/{session_id}/messages", json.dumps({"text": text}).encode())


def assert_problem(answer: Answer, status: int, error_type: str) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == NO_STORE
    problem = answer.json
    assert set(problem) == {"type", "title", "status", "detail", "error_type"}
    assert (problem["status"], problem["error_type"], problem["type"]) == (status, error_type, "about:blank")
    assert b"Traceback" not in answer.body


# --- what is allowed --------------------------------------------------------------------------------------------------


async def test_a_conversation_by_its_routes(doors: Doors) -> None:
    created = await ask(doors.url, "POST", "/sessions")
    assert (created.status, created.headers["cache-control"]) == (201, NO_STORE)
    session = created.json
    assert set(session) == {"id", "owner", "created_at", "status", *SETTINGS}
    assert (session["owner"], session["status"]) == ("local", "idle")
    assert session["created_at"].endswith("Z")

    posted = await post(doors.url, session["id"], "Hi")
    assert (posted.status, posted.headers["cache-control"]) == (202, NO_STORE)
    task_id = posted.json["task_id"]
    assert posted.json["status"] == "accepted"
    assert posted.json["stream"] == f"/tasks/{task_id}/stream"

    read = await ask(doors.url, "GET", f"/sessions/{session['id']}")
    assert (read.status, read.headers["cache-control"]) == (200, NO_STORE)
    assert read.json["status"] == "busy"
    assert (read.json["pending"], read.json["earlier"]) == ([], None)
    (message,) = read.json["messages"]
    assert (message["id"], message["task_id"]) == (posted.json["message_id"], task_id)
    assert (message["role"], message["parts"]) == ("user", [{"type": "text", "text": "Hi"}])

    task = await ask(doors.url, "GET", f"/tasks/{task_id}")
    assert (task.status, task.headers["cache-control"]) == (200, NO_STORE)
    expected = {
        "id": task_id,
        "session_id": session["id"],
        "kind": "turn",
        "status": "queued",
        "message_id": posted.json["message_id"],
        "error_type": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
        "started_at": None,
        "finished_at": None,
        "stream": f"/tasks/{task_id}/stream",
    }
    assert {name: task.json[name] for name in expected} == expected

    again = await post(doors.url, session["id"], "Hi again")
    assert (again.status, again.json["status"], again.json["task_id"]) == (202, "pending", task_id)
    (pending,) = (await ask(doors.url, "GET", f"/sessions/{session['id']}")).json["pending"]
    assert (pending["id"], pending["parts"]) == (again.json["message_id"], [{"type": "text", "text": "Hi again"}])


async def test_a_task_is_cancelled_as_often_as_it_is_asked_for(doors: Doors) -> None:
    session_id = (await ask(doors.url, "POST", "/sessions")).json["id"]
    path = f"/tasks/{(await post(doors.url, session_id, 'Hi')).json['task_id']}"
    first, second = [await ask(doors.url, "POST", f"{path}/cancel") for _ in range(2)]
    assert (first.status, first.headers["cache-control"]) == (202, NO_STORE)
    assert first.json["status"] == "queued"  # a worker ends it; there is none here yet
    assert first.json["cancel_requested_at"].endswith("Z")
    assert (second.status, second.json) == (202, first.json)
    stop = asyncio.Event()
    async with open_worker(doors.house, doors.settings) as worker, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        stream = await ask(doors.url, "GET", f"{path}/stream")
        stop.set()
    assert b'"type":"abort"' in stream.body
    ended = await ask(doors.url, "POST", f"{path}/cancel")
    assert (ended.status, ended.json["status"]) == (200, "cancelled")
    assert_problem(await ask(doors.url, "POST", f"/tasks/{NOBODYS}/cancel"), 404, "not_found")
    assert_problem(await ask(doors.url, "GET", f"{path}/cancel"), 405, "method_not_allowed")
    assert (await ask(doors.url, "POST", f"{path}/cancel", b'{"because": 1}')).status == 422
    again = await post(doors.url, session_id, "Hi again")
    assert again.status == 202  # the session is free


async def test_a_long_conversation_is_read_page_by_page(doors: Doors) -> None:
    session_id = (await ask(doors.url, "POST", "/sessions")).json["id"]
    async with postgres_pool(doors.house.urls.postgres, connections=1) as pool:
        said = await say(Database(pool), session_id, [10] * 230)
    path, pages = f"/sessions/{session_id}", []
    while path is not None:
        page = await ask(doors.url, "GET", path)
        assert (page.status, page.headers["cache-control"]) == (200, NO_STORE)
        pages.append([message["id"] for message in page.json["messages"]])
        path = page.json["earlier"]
    assert [len(page) for page in pages] == [100, 100, 30]
    assert pages[2] + pages[1] + pages[0] == said
    unknown = await ask(doors.url, "GET", f"/sessions/{session_id}?before={NOBODYS}")
    assert_problem(unknown, 422, "validation_error")


@pytest.mark.parametrize("body", [None, b"", b"{}", b" {} "])
async def test_a_session_needs_no_body(doors: Doors, body: bytes | None) -> None:
    assert (await ask(doors.url, "POST", "/sessions", body)).status == 201


@pytest.mark.parametrize("text", [text for text in ODD_TEXTS.values() if text.strip()])
async def test_pitfall_59_a_text_is_read_as_it_was_posted(doors: Doors, text: str) -> None:
    session_id = (await ask(doors.url, "POST", "/sessions")).json["id"]
    assert (await post(doors.url, session_id, text)).status == 202
    read = await ask(doors.url, "GET", f"/sessions/{session_id}")
    assert read.json["messages"][0]["parts"] == [{"type": "text", "text": text}]


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
async def test_json_is_json_however_it_is_spelled(doors: Doors, kind: str) -> None:
    assert (await ask(doors.url, "POST", "/sessions", b"{}", [("Content-Type", kind)])).status == 201


@pytest.mark.parametrize("host", ["localhost", "LocalHost:99", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:8080"])
async def test_this_machine_s_names_are_answered_to(doors: Doors, host: str) -> None:
    assert (await ask(doors.url, "GET", "/healthz", None, [("Host", host)])).status == 200
    assert (await ask(doors.url, "GET", "/healthz", None, [("Host", host), ("Origin", f"http://{host}")])).status == 200


async def test_a_page_from_elsewhere_is_not_even_told_how_things_are(doors: Doors) -> None:
    for path in ("/healthz", "/readyz", f"/tasks/{NOBODYS}/stream", "/nowhere"):
        answer = await ask(doors.url, "GET", path, None, [("Origin", "http://evil.test")])
        assert_problem(answer, 403, "forbidden_origin")
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_pitfall_18_a_stop_cuts_streams_at_once_and_in_the_middle(doors: Doors) -> None:
    """As a lost connection does, so that every reader comes back: the body's end is not there."""
    session_id = (await ask(doors.url, "POST", "/sessions")).json["id"]
    path = (await post(doors.url, session_id, "Hi")).json["stream"]
    async with open_app(doors.house, doors.settings) as app:
        async with served(app, doors.settings) as url:
            address = urlsplit(url)
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            begun = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - begun < STOP_SECONDS / 2
    rest = await reader.read()
    assert not rest.endswith(b"0\r\n\r\n")
    writer.close()


async def test_a_port_that_has_just_been_used_can_be_listened_on_again(doors: Doors) -> None:
    port, settings = 0, doors.settings
    async with open_app(doors.house, settings) as app:
        for _ in range(2):
            async with serving(app, "127.0.0.1", port, write_timeout_seconds=settings.write_timeout_seconds) as url:
                assert (await ask(url, "GET", "/healthz")).status == 200  # the server's end stays in TIME_WAIT
            port = urlsplit(url).port or 0


# --- a mistake of ours ------------------------------------------------------------------------------------------------


class Broken:
    """Every port of the doors; each call raises this."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def create(self, *_: object) -> Any:
        raise self._error

    read = post = cancel = facts = newest = of_session = current = change = delete = create


PORTS = ("sessions", "messages", "tasks", "directory")


class NoStatus(PlayheadError):
    """hunter2 is in this text, since nobody thought of a status for it."""


@pytest.mark.parametrize("error", [RuntimeError("hunter2"), KeyError("hunter2"), NoStatus()], ids=repr)
async def test_a_mistake_of_ours_is_a_500_that_shows_nothing(doors: Doors, error: Exception) -> None:
    house = dataclasses.replace(doors.house, **dict.fromkeys(PORTS, Broken(error)))
    with structlog.testing.capture_logs() as logs:
        async with door(house, doors.settings) as url:
            answers = [
                await ask(url, "POST", "/sessions"),
                await ask(url, "GET", f"/sessions/{NOBODYS}"),
                await post(url, NOBODYS, "hush-hush"),
                await ask(url, "GET", f"/tasks/{NOBODYS}"),
                await ask(url, "POST", f"/tasks/{NOBODYS}/cancel"),
                await ask(url, "GET", f"/tasks/{NOBODYS}/stream"),
                await ask(url, "GET", "/sessions"),
                await ask(url, "PATCH", f"/sessions/{NOBODYS}"),
                await ask(url, "DELETE", f"/sessions/{NOBODYS}"),
                await ask(url, "GET", f"/sessions/{NOBODYS}/stream"),
                await ask(url, "GET", f"/sessions/{NOBODYS}/tasks"),
                await ask(url, "GET", "/tasks"),
            ]
    for answer in answers:
        assert_problem(answer, 500, "unexpected_error")
        assert b"hunter2" not in answer.body
    assert len([entry for entry in logs if entry["log_level"] == "error"]) == len(answers)
    assert "hush-hush" not in str(logs)


@pytest.mark.parametrize(
    ("error", "status"),
    [(DatabaseUnavailable(), 503), (LogUnavailable(), 503), (SessionBusy(), 409), (MailboxFull(), 429)],
)
async def test_an_error_has_the_status_of_its_class(doors: Doors, error: PlayheadError, status: int) -> None:
    house = dataclasses.replace(doors.house, sessions=Broken(error))
    async with door(house, doors.settings) as url:
        answer = await ask(url, "POST", "/sessions")
    assert_problem(answer, status, error.error_type)
    assert answer.headers.get("retry-after") == ("1" if status in (429, 503) else None)


# --- stores that are away ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Lines:
    """A house whose stores can be cut off."""

    house: House
    settings: Settings
    redis: Line
    postgres: Line


@asynccontextmanager
async def house_behind_lines(stores: StoreUrls, dsn: str) -> AsyncIterator[Lines]:
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    socket = f"{query['host'][0]}/.s.PGSQL.{query.get('port', ['5432'])[0]}"
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(line(urlsplit(stores.redis).path))
        postgres = await stack.enter_async_context(line(socket))
        settings = settings_for(
            f"redis://127.0.0.1:{redis.port}/0",
            f"postgresql://postgres@127.0.0.1:{postgres.port}{parts.path}?sslmode=disable",
        )
        yield Lines(await stack.enter_async_context(open_house(settings)), settings, redis, postgres)


@asynccontextmanager
async def behind_lines(stores: StoreUrls, dsn: str) -> AsyncIterator[tuple[str, Line, Line]]:
    """A service whose stores can be cut off: its URL, the line to Redis, the line to PostgreSQL."""
    async with house_behind_lines(stores, dsn) as lines, door(lines.house, lines.settings) as url:
        yield url, lines.redis, lines.postgres


async def told(logs: Sequence[MutableMapping[str, Any]], event: str, **fields: object) -> None:
    """Wait until the log says so."""
    said = {"event": event, **fields}
    async with asyncio.timeout(5):
        while not any(said.items() <= entry.items() for entry in logs):  # noqa: ASYNC110 - whoever says it goes on
            await asyncio.sleep(0.01)


async def test_readiness_says_which_store_is_away_and_life_goes_on(stores: StoreUrls, dsn: str) -> None:
    async with behind_lines(stores, dsn) as (url, redis, postgres):

        async def ready() -> tuple[int, Any]:
            answer = await ask(url, "GET", "/readyz")
            assert answer.headers["cache-control"] == NO_STORE
            alive = await ask(url, "GET", "/healthz")
            assert (alive.status, alive.json) == (200, {"status": "ok"})
            return answer.status, answer.json

        def away(**since: str) -> tuple[int, Any]:
            dependencies: dict[str, dict[str, str]] = {"redis": {"status": "ok"}, "postgres": {"status": "ok"}}
            dependencies |= {name: {"status": "away", "since": when} for name, when in since.items()}
            body = {"status": "unavailable" if since else "ok", "dependencies": dependencies}
            return (503 if since else 200), body

        assert await ready() == away()
        redis.cut()
        gone = {"redis": (await ready())[1]["dependencies"]["redis"]["since"]}
        assert await ready() == away(**gone)  # since then, however often one asks
        postgres.cut()
        gone["postgres"] = (await ready())[1]["dependencies"]["postgres"]["since"]
        assert await ready() == away(**gone)
        assert gone["redis"] < gone["postgres"]
        await redis.open()
        assert await ready() == away(postgres=gone["postgres"])
        await postgres.open()
        assert await ready() == away()


async def test_that_a_store_is_away_is_seen_though_nobody_asks(
    stores: StoreUrls, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(watch, "AWAY_SECONDS", 0.02)
    with structlog.testing.capture_logs() as logs:
        async with house_behind_lines(stores, dsn) as lines:
            lines.redis.cut()
            await told(logs, "store_is_away")
            await lines.redis.open()
            await told(logs, "store_is_back")
    assert [entry["store"] for entry in logs if entry["event"].startswith("store_is")] == ["redis", "redis"]


async def test_a_worker_whose_redis_is_away_claims_nothing_until_it_is_back(
    stores: StoreUrls, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((watch, "WATCH_SECONDS"), (watch, "AWAY_SECONDS"), (tasks, "POLL_SECONDS")):
        monkeypatch.setattr(module, name, 0.02)
    stop = asyncio.Event()
    with structlog.testing.capture_logs() as logs:
        async with (
            house_behind_lines(stores, dsn) as lines,
            open_worker(lines.house, lines.settings) as worker,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(worker.run(stop))
            lines.redis.cut()
            await told(logs, "claims_held_back")
            session = await lines.house.sessions.create(None)
            task_id = (
                await lines.house.messages.post(EVERYONES, session.id, NewMessage((TextPart("/say Hello"),)))
            ).task_id
            await lines.redis.open()
            await told(logs, "turn_ended", task_id=task_id, how="succeeded")
            stop.set()
    events = ["claims_held_back", "claims_go_on", "task_claimed"]
    lines_of_ours = [entry for entry in logs if entry.get("task_id", task_id) == task_id]
    assert [entry["event"] for entry in lines_of_ours if entry["event"] in events] == events


@pytest.mark.parametrize("swallowing", ["redis", "postgres"])
async def test_readiness_does_not_wait_for_a_store_that_never_answers(
    stores: StoreUrls, dsn: str, swallowing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PROBE_SECONDS", 0.2)
    async with behind_lines(stores, dsn) as (url, redis, postgres):
        (redis if swallowing == "redis" else postgres).swallow()
        answer = await ask(url, "GET", "/readyz")
        assert answer.status == 503
        states = {name: state["status"] for name, state in answer.json["dependencies"].items()}
        assert states == {"redis": "ok", "postgres": "ok"} | {swallowing: "away"}
        assert answer.seconds < 1
        redis.cut()
        postgres.cut()


async def test_a_store_that_is_away_is_a_503_that_may_be_tried_again(
    stores: StoreUrls, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "CONFIRM_SECONDS", 0.2)
    async with behind_lines(stores, dsn) as (url, redis, postgres):
        session_id = (await ask(url, "POST", "/sessions")).json["id"]
        redis.cut()
        posted = await post(url, session_id, "Hi")  # the bell is a hint: nothing is lost with it
        assert posted.status == 202
        stream = f"/tasks/{posted.json['task_id']}/stream"
        answers = [await ask(url, "GET", stream)]
        postgres.cut()
        answers += [
            await ask(url, "POST", "/sessions"),
            await ask(url, "GET", f"/sessions/{session_id}"),
            await post(url, session_id, "Hi"),
            await ask(url, "GET", stream),
        ]
        for answer in answers:
            assert_problem(answer, 503, "service_unavailable")
            assert answer.headers["retry-after"] == "1"
        await asyncio.gather(redis.open(), postgres.open())
        assert (await ask(url, "GET", f"/sessions/{session_id}")).json["status"] == "busy"


# --- secrets ----------------------------------------------------------------------------------------------------------

KEY = "sk-never-to-be-seen"


async def test_the_model_s_key_is_in_no_answer_and_in_no_log(
    doors: Doors, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    caplog.set_level(0)
    with structlog.testing.capture_logs() as logs:
        async with Upstream(key=KEY) as upstream:
            settings = settings_for(
                doors.settings.redis_url or "",
                doors.settings.postgres_url or "",
                model_url=upstream.url,
                model="m",
                model_key=KEY,
                model_idle_seconds=0.2,
            )
            stop = asyncio.Event()
            async with open_worker(doors.house, settings) as worker, asyncio.TaskGroup() as group:
                group.create_task(worker.run(stop))
                for text in ("status 401", "status 500", "say hello", "garbage", "cut 1", "stall 1"):
                    session_id = (await ask(doors.url, "POST", "/sessions")).json["id"]
                    task_id = (await post(doors.url, session_id, text)).json["task_id"]
                    if text in {"status 500", "cut 1", "stall 1"}:  # it would be tried again for a quarter of a minute
                        await ask(doors.url, "GET", f"/tasks/{task_id}/stream", until=b"data-retry")
                        await ask(doors.url, "POST", f"/tasks/{task_id}/cancel")
                    paths = (f"/tasks/{task_id}/stream", f"/tasks/{task_id}", f"/sessions/{session_id}")
                    seen += [(await ask(doors.url, "GET", path)).body.decode() for path in paths]
                stop.set()
            assert {request.headers["Authorization"] for request in upstream.requests} == {f"Bearer {KEY}"}
    shown = capfd.readouterr()
    said = "\n".join([*seen, str(logs), caplog.text, shown.out, shown.err, repr(settings), str(settings)])
    assert "data-authentication-required" in said
    assert KEY not in said
    assert SECRET not in said
