"""Calls to remote tools over real sockets: what each answer means, and what each way of not getting one."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from service.adapters.remote_tool import MAX_ANSWER_BYTES, MAX_CONNECTIONS_TO_ONE, RemoteTools
from service.model.events import Json
from service.model.failures import message_for
from service.model.ids import OperationId, SessionId, TaskId
from service.model.remote import Answered, NotTaken, RemoteAnswer, RemoteCall, RemoteTool, Taken, callback_url
from service.model.trace import TraceParent
from tests.adapters.remote_service import SECRET, Act, Service, said

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TOOL = RemoteTool("render", "Renders.", {"type": "object"}, "", KEY, call_seconds=20)
OPERATION, TASK, SESSION = OperationId("0190-op"), TaskId("0190-task"), SessionId("0190-session")
CALL = RemoteCall(OPERATION, TASK, SESSION, {"scene": "ä", "n": 1}, f"https://p.test/operations/{OPERATION}/complete")
SHORT_SECONDS = 0.3


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
async def tools() -> AsyncIterator[RemoteTools]:
    async with RemoteTools(now) as opened:
        yield opened


async def answer_to(tools: RemoteTools, act: Act, seconds: float = 20) -> tuple[RemoteAnswer, Service]:
    """What a call makes of this answer, and that the service was told once."""
    async with Service(act) as service:
        answer = await tools.call(replace(TOOL, url=service.url, call_seconds=seconds), CALL)
        assert service.connections == 1
        return answer, service


def failed(error_type: str, status: int | None = None, *, again: bool = False) -> NotTaken:
    details: Json = None if status is None else {"status": status}
    return NotTaken(error_type, message_for(error_type, "run render"), details, is_retryable=again)


async def test_the_service_is_told_all_and_can_tell_who_asks(tools: RemoteTools) -> None:
    _, service = await answer_to(tools, said(b"1"))
    (request,) = service.requests
    assert request.line == "POST /run HTTP/1.1"
    assert request.body == {
        "operation_id": OPERATION,
        "task_id": TASK,
        "session_id": SESSION,
        "tool": "render",
        "arguments": {"scene": "ä", "n": 1},
        "callback_url": CALL.callback_url,
    }
    assert Webhook(KEY).verify(request.raw, dict(request.headers)) == request.body
    assert (request.headers["webhook-id"], request.headers["Content-Type"]) == (OPERATION, "application/json")
    assert request.headers["Accept-Encoding"] == "identity"
    assert "traceparent" not in request.headers


async def test_without_a_public_url_no_place_is_told(tools: RemoteTools) -> None:
    assert callback_url("https://p.test/base", OPERATION) == "https://p.test/base/operations/0190-op/complete"
    assert callback_url(None, OPERATION) is None
    async with Service(said(b"1")) as service:
        await tools.call(replace(TOOL, url=service.url), replace(CALL, callback_url=callback_url(None, OPERATION)))
        assert service.requests[0].body["callback_url"] is None


async def test_the_trace_goes_on_at_the_service() -> None:
    span = TraceParent(f"00-{'a' * 32}-{'b' * 16}-01")
    async with RemoteTools(now, lambda: span) as tools:
        _, service = await answer_to(tools, said(b"1"))
    assert service.requests[0].headers["traceparent"] == span


RESULTS: list[Any] = [
    None,
    "",
    0,
    False,
    {},
    [],
    "ok",
    1.5,
    {"a": [None]},
    {"success": "yes"},
    {"success": 1},
    {"result": 1},
]


@pytest.mark.parametrize("result", RESULTS, ids=json.dumps)
async def test_pitfall_36_any_json_is_a_result_as_it_comes(tools: RemoteTools, result: Json) -> None:
    plain = json.dumps(result).encode()
    assert (await answer_to(tools, said(plain)))[0] == Answered(result)
    wrapped = json.dumps({"success": True, "result": result}).encode()
    assert (await answer_to(tools, said(wrapped, "201 Created")))[0] == Answered(result)


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "204 No Content", "299 Fine"])
async def test_an_empty_answer_is_a_result_of_null(tools: RemoteTools, status: str) -> None:
    assert (await answer_to(tools, said(b"", status)))[0] == Answered(None)


@pytest.mark.parametrize(
    "act",
    [
        said(b"", "202 Accepted"),
        said(b'{"success": false, "error_type": "x"}', "202 Accepted"),
        said(b"{{{", "202 Accepted"),
        Act(b"HTTP/1.1 202 Accepted\r\nContent-Length: 99\r\n\r\n", "hold"),
    ],
    ids=["empty", "a completion", "junk", "a body that does not come"],
)
async def test_202_says_that_it_is_taken_whatever_the_body(tools: RemoteTools, act: Act) -> None:
    assert (await answer_to(tools, act))[0] == Taken()


async def test_a_service_that_says_no_says_why(tools: RemoteTools) -> None:
    said_no = {"success": False, "error": "No such scene.", "error_type": "patch_error", "details": {"scene": 3}}
    body = json.dumps(said_no | {"operation_id": OPERATION, "task_id": TASK}).encode()
    answer, _ = await answer_to(tools, said(body))
    assert answer == NotTaken("patch_error", "No such scene.", {"scene": 3})
    answer, _ = await answer_to(tools, said(b'{"success": false}'))
    assert answer == NotTaken("unknown", "Something went wrong. Please try again.")
    answer, _ = await answer_to(tools, said(b'{"success": false, "error_type": "rate_limit"}'))
    assert answer == NotTaken("rate_limit", message_for("rate_limit"))


STATUSES = [
    ("408 Request Timeout", failed("timeout", 408)),
    ("429 Too Many Requests", failed("rate_limit", 429, again=True)),
    ("503 Service Unavailable", failed("service_unavailable", 503, again=True)),
    ("504 Gateway Timeout", failed("timeout", 504)),
    ("301 Moved Permanently", failed("http_error", 301)),
    ("302 Found", failed("http_error", 302)),
    ("307 Temporary Redirect", failed("http_error", 307)),
    ("308 Permanent Redirect", failed("http_error", 308)),
    ("400 Bad Request", failed("http_error", 400)),
    ("401 Unauthorized", failed("http_error", 401)),
    ("404 Not Found", failed("http_error", 404)),
    ("500 Internal Server Error", failed("http_error", 500)),
    ("502 Bad Gateway", failed("http_error", 502)),
]


@pytest.mark.parametrize(("status", "expected"), STATUSES, ids=[status for status, _ in STATUSES])
async def test_what_a_status_means(tools: RemoteTools, status: str, expected: NotTaken) -> None:
    answer, _ = await answer_to(tools, said(f'{{"success": true, "x": "{SECRET}"}}'.encode(), status))
    assert answer == expected


async def test_of_a_refusal_no_body_is_waited_for(tools: RemoteTools) -> None:
    answer, _ = await answer_to(tools, Act(b"HTTP/1.1 503 Away\r\nTransfer-Encoding: chunked\r\n\r\n", "hold"))
    assert answer == failed("service_unavailable", 503, again=True)


async def test_a_redirect_is_not_followed(tools: RemoteTools) -> None:
    async with Service(said(b"1")) as other:
        answer, _ = await answer_to(tools, said(b"", "307 Temporary Redirect", f"Location: {other.url}"))
        assert answer == failed("http_error", 307)
        assert other.connections == 0


NESTED = b"[" * 65 + b"]" * 65
UNREADABLE = {
    "junk": b"<html>It works</html>",
    "blank": b" ",
    "half": b'{"a": ',
    "two": b"1 2",
    "nan": b"NaN",
    "no utf-8": b'"\xff"',
    "bare, too deep": NESTED,
    "very deep": b"[" * 100_000,
    "too deep": b'{"success": true, "result": ' + NESTED + b"}",
    "another operation": b'{"success": true, "operation_id": "0190-other"}',
    "another task": b'{"success": true, "task_id": "0190-other"}',
    "success with error": b'{"success": true, "error": "x"}',
    "failure with result": b'{"success": false, "result": 1}',
    "unknown member": b'{"success": true, "data": 1}',
    "progress": b'{"success": true, "progress": 1}',
    "error type": b'{"success": false, "error_type": "Not One"}',
    "one byte too many": b'"' + b"x" * (MAX_ANSWER_BYTES - 1) + b'"',
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
async def test_an_answer_that_is_not_by_the_contract_is_none(tools: RemoteTools, body: bytes) -> None:
    assert (await answer_to(tools, said(body)))[0] == failed("invalid_response", 200)


async def test_an_answer_may_have_a_mebibyte(tools: RemoteTools) -> None:
    text = "x" * (MAX_ANSWER_BYTES - 2)
    assert (await answer_to(tools, said(f'"{text}"'.encode())))[0] == Answered(text)


async def test_an_endless_answer_is_not_read_on(tools: RemoteTools) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    answer, _ = await answer_to(tools, Act(head + chunk * 17, "hold"))
    assert answer == failed("invalid_response", 200)


async def test_a_compressed_answer_is_not_unpacked(tools: RemoteTools) -> None:
    answer, _ = await answer_to(tools, said(b"\x1f\x8b\x08\x00", "200 OK", "Content-Encoding: gzip"))
    assert answer == failed("invalid_response", 200)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 two OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
    ids=["another protocol", "no status", "a head without end"],
)
async def test_what_is_no_http_is_no_answer(tools: RemoteTools, data: bytes) -> None:
    assert (await answer_to(tools, Act(data)))[0] == failed("invalid_response")


HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"
LOST = {
    "closed before an answer": Act(),
    "reset before an answer": Act(then="reset"),
    "reset before the request was read": Act(then="reset", reads=False),
    "closed amid the head": Act(b"HTTP/1.1 200 O"),
    "closed amid the body": Act(HALF),
    "reset amid the body": Act(HALF, "reset"),
    "closed amid a chunk": Act(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"),
    "silent": Act(then="hold"),
    "silent amid the body": Act(HALF, "hold"),
}


@pytest.mark.parametrize("act", LOST.values(), ids=LOST)
async def test_pitfall_53_a_call_whose_answer_is_lost_may_be_taken(tools: RemoteTools, act: Act) -> None:
    """Whatever the text: that of a disconnect has "connect" in it, a time-out has none."""
    seconds = SHORT_SECONDS if act.then == "hold" else 20
    answer, service = await answer_to(tools, act, seconds)
    assert answer == Taken()
    assert service.connections == 1


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def black_hole() -> Iterator[str]:
    """Where nobody is refused, and nobody let in: the queue of those who want to connect is full."""
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.mark.parametrize("url", ["http://127.0.0.1:{}/", "https://127.0.0.1:{}/"])
async def test_pitfall_53_who_refuses_was_not_reached(tools: RemoteTools, url: str) -> None:
    answer = await tools.call(replace(TOOL, url=url.format(unused_port())), CALL)
    assert answer == failed("connection_error", again=True)


async def test_pitfall_53_a_name_that_is_nobody_s_was_not_reached(tools: RemoteTools) -> None:
    assert await tools.call(replace(TOOL, url="http://nobody.invalid/"), CALL) == failed("connection_error", again=True)


async def test_pitfall_53_tls_to_a_plain_port_does_not_reach_it(tools: RemoteTools) -> None:
    async with Service(Act(b"HTTP/1.1 400 Bad Request\r\n\r\n", "hold", reads=False)) as service:
        url = service.url.replace("http:", "https:")
        assert await tools.call(replace(TOOL, url=url), CALL) == failed("connection_error", again=True)


@pytest.mark.parametrize("connects", [True, False])
async def test_pitfall_53_a_time_out_amid_connecting_is_none_of_the_answer(connects: bool) -> None:
    """Whichever of the two bounds comes first."""
    short, long = (SHORT_SECONDS, 20.0) if connects else (20.0, SHORT_SECONDS)
    async with RemoteTools(now, connect_seconds=short) as tools:
        with black_hole() as url:
            tool = replace(TOOL, url=url, call_seconds=long)
            assert await tools.call(tool, CALL) == failed("connection_error", again=True)
        async with Service(Act(then="hold", reads=False)) as service:
            tool = replace(tool, url=service.url.replace("http:", "https:"))
            assert await tools.call(tool, CALL) == failed("connection_error", again=True)


async def test_a_certificate_that_nobody_vouches_for_is_not_taken(tools: RemoteTools, tmp_path: Path) -> None:
    async with Service(said(b"1"), tls=self_signed(tmp_path)) as service:
        assert await tools.call(replace(TOOL, url=service.url), CALL) == failed("connection_error", again=True)
        assert service.requests == []


def self_signed(folder: Path) -> ssl.SSLContext:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "here")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime(2020, 1, 1)).not_valid_after(datetime(2120, 1, 1))
    certificate = builder.sign(key, hashes.SHA256())
    encoding = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "both.pem").write_bytes(key.private_bytes(encoding, *plain) + certificate.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context


async def test_a_url_that_cannot_be_asked_is_a_request_that_failed(tools: RemoteTools) -> None:
    assert await tools.call(replace(TOOL, url="ftp://127.0.0.1/"), CALL) == failed("request_error")


async def test_pitfall_58_what_no_header_can_carry_is_not_sent(tools: RemoteTools) -> None:
    async with Service(said(b"1")) as service:
        call = replace(CALL, operation_id=OperationId("0190\r\nx: y"))
        assert await tools.call(replace(TOOL, url=service.url), call) == failed("unexpected_error")
        assert service.requests == []


async def test_each_call_has_a_connection_of_its_own_and_no_cookie(tools: RemoteTools) -> None:
    act = said(b"1", "200 OK", "Set-Cookie: session=1", "Connection: keep-alive")
    async with Service(replace(act, then="hold")) as service:
        for _ in range(3):
            assert await tools.call(replace(TOOL, url=service.url), CALL) == Answered(1)
        assert len({request.peer for request in service.requests}) == 3
        assert not any("Cookie" in request.headers for request in service.requests)


async def test_who_finds_no_free_connection_has_not_reached_the_service() -> None:
    async with RemoteTools(now, connect_seconds=2) as tools, Service(Act(then="hold")) as service:
        tool = replace(TOOL, url=service.url)
        async with asyncio.TaskGroup() as group:
            held = [group.create_task(tools.call(tool, CALL)) for _ in range(MAX_CONNECTIONS_TO_ONE)]
            await service.has(MAX_CONNECTIONS_TO_ONE)
            assert await tools.call(tool, CALL) == failed("connection_error", again=True)
            assert len(service.requests) == MAX_CONNECTIONS_TO_ONE
            for call in held:
                call.cancel()


async def test_who_is_cancelled_lets_the_connection_go(tools: RemoteTools) -> None:
    async with Service(Act(then="hold")) as service:
        call = asyncio.create_task(tools.call(replace(TOOL, url=service.url), CALL))
        await service.has(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    # the service waits for the other side to go before it is closed


async def test_nothing_of_it_is_shown(tools: RemoteTools) -> None:
    """Neither the secret, nor the address, nor what was asked, nor what was answered."""
    hidden = ("whsec_", KEY[6:], "hush", "hunter2", SECRET)
    call = replace(CALL, arguments={"word": "hunter2"})
    acts = [
        said(f'"{SECRET}"'.encode()),
        said(SECRET.encode()),
        said(SECRET.encode(), "500 No"),
        Act(),
        Act(b"SSH\r\n\r\n"),
    ]
    with capture_logs() as lines:
        for act in acts:
            async with Service(act) as service:
                tool = replace(TOOL, url=f"{service.url}?hush")
                answer = await tools.call(tool, call)
                shown = repr(tool) if isinstance(answer, Answered) else f"{tool!r} {answer!r}"
                assert not [each for each in hidden if each in shown]
        await tools.call(replace(TOOL, url="http://hush.invalid/"), call)
        await tools.call(replace(TOOL, url="http://127.0.0.1/hush"), replace(call, arguments={"word": "hunter2\ud800"}))
    assert len(lines) == len(acts) + 3
    assert not [each for each in hidden if each in repr(lines)]
    line = {"log_level": "info", "event": "remote_tool_called", "tool": "render", "operation_id": OPERATION}
    line |= {"task_id": TASK, "answer": "Taken", "error_type": None, "cause": "ServerDisconnectedError"}
    assert lines[3] == line
