"""What is refused: the right status, the same shape, nothing stored, and nothing of our inside in the answer."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import structlog

from service.adapters.postgres import Database, postgres_pool
from service.http import app, bodies
from service.wiring import open_app
from tests.http.bad_requests import NOBODYS, TABLE, USUAL_TYPES, text
from tests.http.conftest import Doors, begun, served
from tests.http.stall import LONGEST_STALL_SECONDS, longest_stall
from tests.http.wire import Answer, Header, ask, send

pytestmark = pytest.mark.asyncio(loop_scope="module")

SESSION = f"/sessions/{NOBODYS}"
Stored = Callable[[], Awaitable[list[str | None]]]


INSIDE = (b"Traceback", b"asyncpg", b"redis", b"pydantic", b"aiohttp", b".py", b"postgres", b"/work", b"Python")


TABLES = (
    "operations",
    "completions",
    "sessions",
    "tasks",
    "messages",
    "pending_messages",
    "idempotency_keys",
    "api_keys",
    "leases",
    "log_archives",
)
SNAPSHOT = " UNION ALL ".join(
    f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) AS sum FROM {t} t" for t in TABLES
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stored(doors: Doors) -> AsyncIterator[Stored]:
    """What all rows add up to, whenever it is asked."""
    async with postgres_pool(doors.house.urls.postgres, connections=1) as pool:

        async def sums() -> list[str | None]:
            return [row["sum"] for row in await Database(pool).fetch(SNAPSHOT)]

        yield sums


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there(doors: Doors) -> dict[str, str]:
    """What bad requests would change: a session, and its task; and an operation."""
    operation = await begun(doors.house)
    session_id = (await ask(doors.url, "POST", "/sessions")).json["id"]
    posted = (await ask(doors.url, "POST", f"/sessions/{session_id}/messages", text("Hi"))).json
    return {
        "{session}": session_id,
        "{task}": posted["task_id"],
        "{operation}": operation.id,
        "HOST": doors.url.removeprefix("http://"),
    }


async def test_there_are_enough_of_them() -> None:
    bads = [bad for bads in TABLE.values() for bad in bads]
    assert len(bads) >= 800
    assert len(set(bads)) > 0.98 * len(bads)


@pytest.mark.parametrize("name", TABLE)
async def test_a_bad_request_is_a_problem_and_nothing_else(
    doors: Doors, stored: Stored, there: dict[str, str], name: str
) -> None:
    before = await stored()
    for bad in TABLE[name]:
        headers = [(name, _filled(value, there) if isinstance(value, str) else value) for name, value in bad.headers]
        answer = await ask(doors.url, bad.method, _filled(bad.path, there), bad.body, headers)
        assert answer.status == bad.status, (bad, answer.body)
        assert answer.seconds < 1, bad
        assert not any(word in answer.body for word in INSIDE), bad
        assert answer.headers["cache-control"] == "no-store, private"
        assert answer.headers["content-type"].partition(";")[0] == "application/problem+json"
        if bad.method != "HEAD":
            problem = answer.json
            assert problem["error_type"] == (bad.error_type or USUAL_TYPES[bad.status]), (bad, answer.body)
            assert (problem["status"], problem["type"]) == (bad.status, "about:blank")
            assert all(isinstance(problem[name], str) and problem[name] for name in ("title", "detail"))
    assert await stored() == before


def _filled(text: str, there: dict[str, str]) -> str:
    for name, value in there.items():
        text = text.replace(name, value)
    return text


# --- what the parser of HTTP refuses by itself ------------------------------------------------------------------------


MALFORMED = {
    "no HTTP": b"hello\r\n\r\n",
    "no method": b"BREW /sessions HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a space in the path": b"GET /health z HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a version to come": b"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "a NUL in a header": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    "a header without a colon": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nnocolon\r\n\r\n",
    "a space before the colon": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX : a\r\n\r\n",
    "two lengths": b"POST /sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a negative length": b"POST /sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "length and chunks (smuggling)": (
        b"POST /sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "a chunk without a size": b"POST /sessions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a path that is too long": b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a header that is too long": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 10_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_not_http_is_refused_without_a_word_of_it_or_of_our_inside(
    doors: Doors, stored: Stored, request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = await stored()
    caplog.set_level(0)
    with structlog.testing.capture_logs() as logs:
        answer = await send(doors.url, request_bytes, seconds=1)
    assert_refused_and_closed(answer, 400, "malformed_request")
    assert len(logs) == 1
    for word in re.findall(rb"[A-Za-z]{3,}", request_bytes.replace(b"HTTP", b"")):
        assert word not in answer.body
        assert word.decode() not in caplog.text + str(logs)
    assert await stored() == before


def assert_refused_and_closed(answer: Answer, status: int, error_type: str) -> None:
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store, private"
    assert answer.headers.get("connection") == "close" or answer.version == "HTTP/1.0"
    problem = answer.json
    assert set(problem) == {"type", "title", "status", "detail", "error_type"}
    assert (problem["type"], problem["status"], problem["error_type"]) == ("about:blank", status, error_type)
    assert not any(word in answer.body for word in INSIDE)


async def test_what_is_refused_before_any_route_is_a_problem_too(doors: Doors) -> None:
    answer = await ask(doors.url, "POST", "/sessions", None, [("Expect", "a-miracle")])
    assert_refused_and_closed(answer, 417, "http_error")
    assert b"miracle" not in answer.body


# --- what would take long to refuse -----------------------------------------------------------------------------------

MIB = 1024 * 1024
MANY: dict[str, bytes] = {
    "half a million numbers": b'{"parts":[' + b",".join([b"1"] * 524_000) + b"]}",
    "a third of a million arrays": b'{"parts":[' + b",".join([b"[]"] * 349_000) + b"]}",
    "nested pairs": b'{"parts":[' + b",".join([b"[[]]"] * 209_000) + b"]}",
    "objects": b'{"parts":[' + b",".join([b'{"a":1}'] * 130_000) + b"]}",
    "strings": b'{"parts":[' + b",".join([b'""'] * 349_000) + b"]}",
    "unknown fields": b"{" + b",".join(b'"hush%d":1' % n for n in range(70_000)) + b"}",
    "one field again and again": b"{" + b",".join([b'"hush":1'] * 110_000) + b"}",
    "unknown fields in each part": (
        b'{"parts":[' + b",".join([b"{" + b",".join(b'"%d":1' % n for n in range(900)) + b"}"] * 100) + b"]}"
    ),
    "brackets": b"[" * MIB,
    "quotes": b'"' * MIB,
    "backslashes": b'{"text":"' + b"\\" * (MIB - 11) + b'"}',
    "a long name": b'{"' + b"hush" * 250_000 + b'":1}',
    "a thousand long names": b"{" + b",".join(b'"%s%d":1' % (b"hush" * 250, n) for n in range(900)) + b"}",
    "a long kind": b'{"parts":[{"type":"' + b"hush" * 250_000 + b'","text":"x"}]}',
    "a long text in the wrong place": b'{"parts":"' + b"hush" * 250_000 + b'"}',
}
LARGEST_REFUSAL = 4096


@pytest.mark.alone
@pytest.mark.parametrize("body", MANY.values(), ids=MANY.keys())
async def test_no_body_holds_everybody_up_and_little_of_it_comes_back(doors: Doors, body: bytes) -> None:
    assert len(body) <= MIB
    async with longest_stall() as stall:
        answer = await ask(doors.url, "POST", f"{SESSION}/messages", body, seconds=20)
    assert answer.status in {400, 422}
    assert max(stall) < LONGEST_STALL_SECONDS
    assert len(answer.body) < LARGEST_REFUSAL
    assert b"hush" * 100 not in answer.body


WRONG = {
    b'{"text": 1}': [("text", "This must be a string.")],
    b'{"txt": "x", "text": "x"}': [("txt", "There is no such field.")],
    b'{"%s": "x", "text": "x"}' % (b"y" * 65): [("y" * 64 + "…", "There is no such field.")],
    b'{"parts": {}}': [("parts", "This must be an array.")],
    b'{"parts": []}': [("parts", "This takes at least 1 item.")],
    json.dumps({"parts": [{"type": "text", "text": "x"}] * 101}).encode(): [("parts", "This takes at most 100 items.")],
    b'{"parts": ["x"]}': [("parts.0", "This must be an object.")],
    b'{"parts": [{"type": "hush", "text": 1}]}': [
        ("parts.0.type", "This must be 'text'."),
        ("parts.0.text", "This must be a string."),
    ],
    b'{"parts": [{"type": "text"}]}': [("parts.0.text", "This field is needed.")],
    b"{}": [("", "Give text or parts, one of the two.")],
}


@pytest.mark.parametrize("body", WRONG)
async def test_what_is_wrong_with_a_body_is_said_by_field_and_without_its_values(doors: Doors, body: bytes) -> None:
    answer = await ask(doors.url, "POST", f"{SESSION}/messages", body)
    assert answer.json["detail"] == "The body is not what this route takes."
    assert [(each["field"], each["message"]) for each in answer.json["errors"]] == WRONG[body]
    assert b"hush" not in answer.body


@pytest.mark.parametrize("body", [b"[]", b"null", b'"hush"', b"1", b"true"])
async def test_what_is_no_object_is_told_so(doors: Doors, body: bytes) -> None:
    answer = await ask(doors.url, "POST", f"{SESSION}/messages", body)
    assert (answer.status, answer.json["detail"]) == (422, "The body must be a JSON object.")


async def test_how_long_a_text_may_be_is_counted_in_characters(doors: Doors) -> None:
    """However else it is checked."""
    answer = await ask(doors.url, "POST", "/sessions", json.dumps({"title": "x" * 201, "model": ""}).encode())
    assert [(each["field"], each["message"]) for each in answer.json["errors"]] == [
        ("title", "This takes at most 200 characters."),
        ("model", "This takes at least 1 character."),
    ]


async def test_of_many_mistakes_the_first_are_listed_and_all_are_counted(doors: Doors) -> None:
    body = json.dumps({"text": "x"} | {f"field{n}": 1 for n in range(40)}).encode()
    answer = await ask(doors.url, "POST", f"{SESSION}/messages", body)
    assert [each["field"] for each in answer.json["errors"]] == [f"field{n}" for n in range(20)]
    assert answer.json["detail"].endswith("The first 20 of 40 mistakes are listed.")


async def test_what_stands_in_a_text_is_not_counted(doors: Doors) -> None:
    session_id = (await ask(doors.url, "POST", "/sessions")).json["id"]
    for said in ('[{"a":1,"b":[2,3]},' * 5_000, '\\",' * 20_000, '\\\\"' * 10_000):
        answer = await ask(doors.url, "POST", f"/sessions/{session_id}/messages", text(said))
        assert answer.status in {202, 409}, answer.body


# --- what never comes whole -------------------------------------------------------------------------------------------

POST = b"POST /sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BROKEN = {
    "a body that stops": POST + b"Content-Length: 10\r\n\r\n{",
    "a body that never begins": POST + b"Content-Length: 10\r\n\r\n",
    "a chunk that stops": POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
}


@pytest.mark.parametrize("request_bytes", BROKEN.values(), ids=BROKEN.keys())
async def test_pitfall_57_a_body_is_not_waited_for_for_ever(
    doors: Doors, stored: Stored, request_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.2)
    before = await stored()
    answer = await send(doors.url, request_bytes, until=b"}\n", seconds=2)
    assert_refused_and_closed(answer, 408, "request_timeout")
    assert await stored() == before


async def test_pitfall_57_a_head_is_not_waited_for_for_ever(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "IDLE_SECONDS", 0.2)
    async with (
        open_app(doors.house, doors.settings) as routes,
        served(routes, doors.settings) as url,
        asyncio.timeout(5),
    ):
        for half in (b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "):
            reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
            writer.write(half)
            assert await reader.read() == b""
            writer.close()


CODINGS = ["gzip", "deflate", "br", "zstd", "hush", "gzip, gzip", "identity, gzip", ""]


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_body_that_is_compressed_is_refused_unread(doors: Doors, coding: str) -> None:
    for headers in ([("Content-Encoding", coding)], [("Content-Encoding", "identity"), ("Content-Encoding", coding)]):
        answer = await ask(doors.url, "POST", "/sessions", b"hush-hush!", headers)
        assert (answer.status, answer.json["error_type"]) == (415, "unsupported_media_type")
        assert b"hush" not in answer.body
    assert (await ask(doors.url, "POST", "/sessions", b"{}", [("Content-Encoding", "Identity")])).status == 201


async def test_a_body_that_says_that_it_is_too_large_is_not_waited_for(doors: Doors) -> None:
    answer = await send(doors.url, POST + b"Content-Length: 10000000000\r\n\r\n", until=b"}\n", seconds=2)
    assert (answer.status, answer.json["error_type"]) == (413, "body_too_large")


async def test_of_two_origins_both_must_be_our_own(doors: Doors) -> None:
    headers: list[Header] = [("Origin", doors.url), ("Origin", "http://evil.test")]
    assert (await ask(doors.url, "GET", "/healthz", None, headers)).status == 403
    assert (await ask(doors.url, "GET", "/healthz", None, [("Origin", doors.url)])).status == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        POST + b"Content-Length: 2\r\n\r\n{}",
    ],
)
async def test_who_has_sent_all_and_says_so_is_answered(doors: Doors, request_bytes: bytes) -> None:
    async with asyncio.timeout(2):
        reader, writer = await asyncio.open_connection(urlsplit(doors.url).hostname, urlsplit(doors.url).port)
        writer.write(request_bytes)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 20")
    assert answer.endswith(b"}\n")


async def test_who_says_that_no_more_comes_of_half_a_request_is_not_waited_for(doors: Doors) -> None:
    for half in (b"", b"GET /hea", BROKEN["a body that stops"]):
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(urlsplit(doors.url).hostname, urlsplit(doors.url).port)
            writer.write(half)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()


async def test_a_client_that_goes_while_it_posts_is_no_mistake_of_ours(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, left = asyncio.Event(), asyncio.Event()
    read_body = bodies.read_body

    async def parse(*arguments: Any) -> object:
        reading.set()
        try:
            return await read_body(*arguments)
        finally:
            left.set()

    monkeypatch.setattr(bodies, "read_body", parse)
    with structlog.testing.capture_logs() as logs:
        _, writer = await asyncio.open_connection(urlsplit(doors.url).hostname, urlsplit(doors.url).port)
        writer.write(BROKEN["a body that stops"])
        await reading.wait()
        writer.transport.abort()
        await left.wait()
        assert (await ask(doors.url, "GET", "/healthz")).status == 200
    assert logs == []
