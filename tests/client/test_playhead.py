"""What can be asked, what goes over the wire for it, and what is shown of a token: nothing."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable

import orjson
import pytest
from aiohttp import web

from service.client import (
    Approval,
    Failed,
    Forbidden,
    Incomplete,
    NoSuchThing,
    NotUnderstood,
    Patience,
    Playhead,
    Refused,
    Reply,
    Succeeded,
    Unauthenticated,
    Unreachable,
)
from service.model.errors import InvalidInput
from service.model.export import ExportLines
from service.model.ids import OperationId, OwnerId, SessionId, TaskId
from service.model.operation import OperationFilter
from service.model.session import Posted
from service.model.task import TaskFilter
from tests.client.misbehaving import Answer, misbehaving, status, stream

SECRET = "hunter2.abc-_~+/="
TASK = TaskId("t")
OPERATION = OperationId("o")


def answered(body: object, code: int = 200) -> Answer:
    return status(code, orjson.dumps(body), Content_Type="application/json")


async def test_a_conversation_is_begun_posted_to_and_its_task_read_and_cancelled() -> None:
    task = {"id": "t", "status": "running"}
    posted = {"task_id": "t", "message_id": "m", "status": "accepted", "stream": "/tasks/t/stream"}
    answers = [answered({"id": "s"}, 201), answered(posted, 202), answered(posted, 202), answered(task), answered(task)]
    async with misbehaving(*answers) as service, Playhead(service.url + "/under/", SECRET) as playhead:
        assert await playhead.create_session() == "s"
        assert await playhead.post(SessionId("s"), "hello", idempotency_key="k") == Posted(TASK, "m")  # type: ignore[arg-type]
        assert await playhead.post(SessionId("s"), [{"type": "text", "text": "hello"}]) == Posted(TASK, "m")  # type: ignore[arg-type]
        assert await playhead.task(TASK) == task
        assert await playhead.cancel(TASK) == task
        asked = [(request.method, request.path, await request.read()) for request in service.asked]
        assert asked == [
            ("POST", "/under/sessions", b"{}"),
            ("POST", "/under/sessions/s/messages", b'{"text":"hello"}'),
            ("POST", "/under/sessions/s/messages", b'{"parts":[{"type":"text","text":"hello"}]}'),
            ("GET", "/under/tasks/t", b""),
            ("POST", "/under/tasks/t/cancel", b"{}"),
        ]
        assert [request.headers.get("Idempotency-Key") for request in service.asked] == [None, "k", None, None, None]
        assert {request.headers["Authorization"] for request in service.asked} == {f"Bearer {SECRET}"}
        assert [request.content_type for request in service.asked if request.method == "POST"] == [
            "application/json"
        ] * 4


async def test_operations_are_completed_reported_on_answered_cancelled_and_looked_up() -> None:
    receipt = {"status": "succeeded", "operation_id": "o", "task_id": "t", "completion_id": "c"}
    pending, whole = {"status": "pending", "operation_id": "o"}, {"id": "o", "deliveries": []}
    answers = [
        *[answered(receipt)] * 5,
        answered(pending, 202),
        *[answered(receipt)] * 4,
        answered(whole),
        answered(whole),
    ]
    async with misbehaving(*answers) as service, Playhead(service.url) as playhead:
        for result in ({"a": 1}, "", None):
            assert await playhead.complete(OPERATION, Succeeded(result), "k" if result == "" else None) == receipt
        assert await playhead.complete(OPERATION, Failed("timeout", "Too late.")) == receipt
        assert await playhead.complete(OPERATION, Failed("unknown", "No.", {"n": 0})) == receipt
        await playhead.report_progress(OPERATION, 0, "p")
        for said in (
            Approval(approved=True),
            Approval(approved=False),
            Approval(approved=False, reason="No."),
            Reply(None),
        ):
            assert await playhead.answer(OPERATION, said) == receipt
        assert await playhead.cancel_operation(OPERATION) == whole
        assert await playhead.operation(OPERATION) == whole
        asked = [(request.method, request.path, await request.read()) for request in service.asked]
        keys = [request.headers.get("Idempotency-Key") for request in service.asked]
    assert asked == [
        ("POST", "/operations/o/complete", b'{"success":true,"result":{"a":1}}'),
        ("POST", "/operations/o/complete", b'{"success":true,"result":""}'),
        ("POST", "/operations/o/complete", b'{"success":true,"result":null}'),
        ("POST", "/operations/o/complete", b'{"success":false,"error_type":"timeout","error":"Too late."}'),
        ("POST", "/operations/o/complete", b'{"success":false,"error_type":"unknown","error":"No.","details":{"n":0}}'),
        ("POST", "/operations/o/complete", b'{"progress":0}'),
        ("POST", "/operations/o/approve", b'{"approved":true}'),
        ("POST", "/operations/o/approve", b'{"approved":false}'),
        ("POST", "/operations/o/approve", b'{"approved":false,"reason":"No."}'),
        ("POST", "/operations/o/approve", b'{"answer":null}'),
        ("POST", "/operations/o/cancel", b"{}"),
        ("GET", "/operations/o", b""),
    ]
    assert keys == [None, "k", None, None, None, "p", *[None] * 6]


async def test_operations_are_listed_page_by_page_as_they_are_wanted() -> None:
    first = answered({"operations": [{"n": 2}], "earlier": "/operations?before=2"})
    last = answered({"operations": [{"n": 1}], "earlier": None})
    wanted = OperationFilter("pending", "remote", "a b", SessionId("s"), is_stuck=True)
    async with misbehaving(first, last) as service, Playhead(service.url) as playhead:
        assert [each["n"] async for each in playhead.operations(wanted)] == [2, 1]
        asked = [dict(request.query) for request in service.asked]
    only = {"status": "pending", "executor": "remote", "tool": "a b", "session": "s", "stuck": "1", "limit": "100"}
    assert asked == [only, only | {"before": "2"}]


async def test_follow_ups_are_tried_again_and_dead_letters_sent_again() -> None:
    redriven = {"operation_id": "o", "task_id": "t", "stream": "/tasks/t/stream"}
    answers = redriven, {"dead_letters": [{"id": "l"}]}, {"redriven": 2}, {"redriven": 1}, {"redriven": 0}
    async with misbehaving(*map(answered, answers)) as service, Playhead(service.url) as playhead:
        assert await playhead.redrive(OPERATION) == redriven
        assert await playhead.dead_letters(7) == [{"id": "l"}]
        assert await playhead.redrive_letters(reason="failed") == 2
        assert await playhead.redrive_letters(letter_id="l") == 1
        assert await playhead.redrive_letters() == 0
        asked = [(request.method, request.path_qs, await request.read()) for request in service.asked]
    again = ("POST", "/dead-letters/redrive")
    assert asked == [
        ("POST", "/operations/o/redrive", b"{}"),
        ("GET", "/dead-letters?limit=7", b""),
        *((*again, body) for body in (b'{"reason":"failed"}', b'{"id":"l"}', b"{}")),
    ]


async def test_an_outcome_that_json_cannot_say_is_not_sent() -> None:
    async with misbehaving() as service, Playhead(service.url) as playhead:
        for result in ("\ud800", object()):
            with pytest.raises(InvalidInput):
                await playhead.complete(OPERATION, Succeeded(result))  # type: ignore[arg-type]
        with pytest.raises(InvalidInput):
            await playhead.complete(OPERATION, Succeeded(None), "a b")
    assert service.asked == []


@pytest.mark.parametrize("task_id", ["../healthz", "..", ".", "a/b?c#d", "%2e%2e/x", "ä", "a b"])
async def test_an_id_stays_in_its_place_of_the_path(task_id: str) -> None:
    async with misbehaving(answered({})) as service, Playhead(service.url) as playhead:
        await playhead.task(TaskId(task_id))
        (request,) = service.asked
        assert request.match_info["path"] == f"tasks/{task_id}"
        assert request.raw_path.count("/") == 2
        assert not request.query_string
        assert "Authorization" not in request.headers


CALLS: dict[str, Callable[[Playhead], Awaitable[object]]] = {
    "create_session": lambda playhead: playhead.create_session(),
    "post": lambda playhead: playhead.post(SessionId("s"), "x"),
    "task": lambda playhead: playhead.task(TASK),
    "cancel": lambda playhead: playhead.cancel(TASK),
    "follow": lambda playhead: anext(playhead.follow(TASK)),
    "tasks": lambda playhead: anext(playhead.tasks()),
    "verify": lambda playhead: playhead.verify(TASK),
    "session": lambda playhead: playhead.session(SessionId("s")),
    "operation": lambda playhead: playhead.operation(OPERATION),
    "operations": lambda playhead: anext(playhead.operations()),
    "complete": lambda playhead: playhead.complete(OPERATION, Succeeded(None)),
    "report_progress": lambda playhead: playhead.report_progress(OPERATION, 1),
    "answer": lambda playhead: playhead.answer(OPERATION, Reply(None)),
    "cancel_operation": lambda playhead: playhead.cancel_operation(OPERATION),
    "redrive": lambda playhead: playhead.redrive(OPERATION),
    "dead_letters": lambda playhead: playhead.dead_letters(),
    "redrive_letters": lambda playhead: playhead.redrive_letters(),
}
ERRORS: list[tuple[Answer, type[Exception]]] = [
    (status(401), Unauthenticated),
    (status(403), Forbidden),
    (status(404), NoSuchThing),
    (status(409), Refused),
    (status(503), Unreachable),
    (status(429), Unreachable),
    (status(302, Location="http://127.0.0.1:1/"), NotUnderstood),
    (status(200, b"<html>"), NotUnderstood),
    (status(200, b"[]"), NotUnderstood),
]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_what_goes_wrong_is_one_of_our_errors_and_shows_no_token(
    call: Callable[[Playhead], Awaitable[object]], caplog: pytest.LogCaptureFixture
) -> None:
    for answer, kind in ERRORS:
        async with misbehaving(answer) as service:
            async with Playhead(service.url, SECRET, patience=Patience(1, 0.01, 0.01, 0.02)) as playhead:
                with pytest.raises(kind) as raised:
                    await call(playhead)
                assert SECRET not in f"{playhead!r}{raised.value!r}"
            url = service.url
        assert "hunter2" not in "".join(traceback.format_exception(raised.value))
    async with Playhead(url, SECRET, patience=Patience(1, 0.01, 0.01, 0.02)) as playhead:
        with pytest.raises(Unreachable) as gone:
            await call(playhead)
    assert SECRET not in "".join(traceback.format_exception(gone.value)) + caplog.text


async def test_a_list_is_read_page_by_page_as_far_as_was_asked_for() -> None:
    pages = [
        answered({"tasks": [{"n": n} for n in range(first, first - 100, -1)], "earlier": f"/tasks?before={first - 99}"})
        for first in (300, 200)
    ]
    last = answered({"tasks": [{"n": 100}], "earlier": None})
    wanted = TaskFilter(status="failed", owner=OwnerId("a b&c"))
    async with misbehaving(*pages, last) as service, Playhead(service.url) as playhead:
        assert [task["n"] async for task in playhead.tasks(wanted)] == list(range(300, 99, -1))
        asked = [dict(request.query) for request in service.asked]
    only = {"status": "failed", "owner": "a b&c", "limit": "100"}
    assert asked == [only, only | {"before": "201"}, only | {"before": "101"}]
    async with misbehaving(*pages, last) as service, Playhead(service.url) as playhead:
        assert len([task async for task in playhead.tasks(limit=200)]) == 200
        assert [request.query["limit"] for request in service.asked] == ["100", "100"]


@pytest.mark.parametrize("earlier", ["", "/tasks", "/tasks?before=x", "/tasks?before=7", "/tasks?before=8", 5, {}])
async def test_a_page_that_leads_nowhere_is_told(earlier: object) -> None:
    """Else a service could have a client ask for ever."""
    first, again = ({"sessions": [{}], "earlier": place} for place in ("/sessions?before=7", earlier))
    async with misbehaving(answered(first), answered(again)) as service, Playhead(service.url) as playhead:
        with pytest.raises(NotUnderstood):
            assert [entry async for entry in playhead.sessions()]


def exported(*events: bytes) -> list[bytes]:
    lines = ExportLines(NAMED, None, redact=False)
    return [lines.manifest(), *(lines.event((b"1-%d" % n, data)) for n, data in enumerate(events, 1)), lines.end()]


NAMED = TaskId("01a200c7-2bc0-740f-b3ec-bbe6f3b979e2")
WHOLE = exported(b'{"a":1}', b'{"b":2}', b'{"c":3}')
NOT_WHOLE: dict[str, list[bytes]] = {
    "nothing": [],
    "no last line": WHOLE[:-1],
    "half of the last line": [*WHOLE[:-1], WHOLE[-1][:40]],
    "no end of the last line": [*WHOLE[:-1], WHOLE[-1][:-1]],
    "no manifest": WHOLE[1:],
    "another task's": [WHOLE[0].replace(b"01a2", b"01a3"), *WHOLE[1:]],
    "an event is missing": [*WHOLE[:2], *WHOLE[3:]],
    "an event came twice": [*WHOLE[:2], *WHOLE[1:]],
    "a byte is another": [*WHOLE[:2], WHOLE[2].replace(b"2}", b"3}"), *WHOLE[3:]],
    "something follows": [*WHOLE, WHOLE[1]],
    "two files": [*WHOLE, *WHOLE],
}


async def test_an_export_is_given_out_as_it_comes() -> None:
    text = b"".join(WHOLE)
    pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
    async with misbehaving(stream(*pieces)) as service, Playhead(service.url) as playhead:
        assert [line async for line in playhead.export(NAMED, redact=True)] == WHOLE
        assert dict(service.asked[0].query) == {"redact": "1"}


@pytest.mark.parametrize("lines", NOT_WHOLE.values(), ids=NOT_WHOLE)
async def test_an_export_that_is_not_whole_is_none(lines: list[bytes]) -> None:
    async with misbehaving(stream(b"".join(lines))) as service, Playhead(service.url) as playhead:
        with pytest.raises(Incomplete):
            assert [line async for line in playhead.export(NAMED)]


@pytest.mark.parametrize("then", ["cut", "silent"])
async def test_an_export_that_breaks_off_is_told(then: str) -> None:
    hasty = Patience(silence_seconds=0.1)
    for lines in (WHOLE[:2], WHOLE):
        answer = stream(*lines, then=then)
        async with misbehaving(answer) as service, Playhead(service.url, patience=hasty) as playhead:
            with pytest.raises(Unreachable):
                assert [line async for line in playhead.export(NAMED)]


async def test_an_export_has_no_endless_line() -> None:
    async with misbehaving(stream(WHOLE[0], *[b"x" * 65536] * 5)) as service, Playhead(service.url) as playhead:
        with pytest.raises(NotUnderstood):
            assert [line async for line in playhead.export(NAMED)]


async def test_a_service_that_is_not_ready_says_so_and_deleting_answers_nothing() -> None:
    async with misbehaving(answered({"status": "stopping"}, 503), status(204)) as service:
        async with Playhead(service.url) as playhead:
            assert await playhead.ready() == {"status": "stopping"}
            await playhead.delete_session(SessionId("s"))
        assert [(request.method, request.path) for request in service.asked] == [
            ("GET", "/readyz"),
            ("DELETE", "/sessions/s"),
        ]


@pytest.mark.parametrize("answer", [{}, {"id": 1}, {"id": None}])
async def test_an_answer_without_what_was_asked_for_is_told(answer: object) -> None:
    async with misbehaving(answered(answer)) as service, Playhead(service.url) as playhead:
        with pytest.raises(NotUnderstood):
            await playhead.create_session()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8080",
        "ftp://h",
        "http://",
        "http://u:hunter2@h",
        "http://hunter2@h/",
        f"http://h/?token={SECRET}",
        f"http://h/#{SECRET}",
        "http://h:99999",
        "http://[::1",
    ],
)
def test_what_is_no_url_of_a_service_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Playhead(url)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("token", [f"{SECRET}\n", f"{SECRET}\r\nX: y", f"{SECRET} x", f"{SECRET}ä"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Playhead("http://h", token)
    assert SECRET not in str(raised.value)


async def test_a_message_that_json_cannot_say_is_refused() -> None:
    async with misbehaving(answered({})) as service, Playhead(service.url) as playhead:
        with pytest.raises(InvalidInput):
            await playhead.post(SessionId("s"), "\ud800")
    assert service.asked == []


@pytest.mark.parametrize("key", ["a\nb", "a\rb", "a b", "", "\u00e9", "\ud800", "x" * 129])
async def test_pitfall_58_a_key_that_no_service_takes_is_not_sent(key: str) -> None:
    async with misbehaving() as service, Playhead(service.url) as playhead:
        with pytest.raises(InvalidInput):
            await playhead.post(SessionId("s"), "hello", idempotency_key=key)
        assert not service.asked


async def test_what_no_url_can_say_is_no_id() -> None:
    async with misbehaving(*[status(404)] * 2) as service, Playhead(service.url) as playhead:
        for asked in (playhead.task(TaskId("\ud800")), anext(playhead.follow(TaskId("\ud800")))):
            with pytest.raises(NoSuchThing):
                await asked


async def test_who_is_cancelled_leaves_nothing_behind() -> None:
    """A follower that is cut off anywhere closes its connection."""

    asked = asyncio.Event()

    async def never(_: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with misbehaving(never) as service, Playhead(service.url) as playhead:
        reading = asyncio.create_task(anext(playhead.follow(TASK)))  # type: ignore[arg-type]
        await asked.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert asyncio.all_tasks() == {asyncio.current_task()}
