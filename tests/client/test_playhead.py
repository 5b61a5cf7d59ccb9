"""What can be asked, what goes over the wire for it, and what is shown of a token: nothing."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable

import orjson
import pytest
from aiohttp import web

from service.client import (
    Forbidden,
    NoSuchThing,
    NotUnderstood,
    Patience,
    Playhead,
    Refused,
    Unauthenticated,
    Unreachable,
)
from service.model.errors import InvalidInput
from service.model.ids import SessionId, TaskId
from service.model.session import Posted
from tests.client.misbehaving import Answer, misbehaving, status

SECRET = "hunter2.abc-_~+/="
TASK = TaskId("t")


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
