"""The door of the AI SDK on a socket. What its hook makes of it is shown in `tests/acceptance/test_ai_sdk.py`."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from service.adapters.redis_client import connect
from service.adapters.redis_keys import log_key
from service.http.app import serving
from service.http.chat_bodies import MAX_CHAT_BYTES, MAX_CHAT_VALUES
from service.http.sse import OnGap, answer_stream
from service.model.events import GapData, StartStep
from service.model.ids import Epoch, TaskId
from service.model.position import Position
from service.registry.follow import Begun, Followed, Frames, Gap
from service.registry.writer import log_writer
from service.wiring import open_worker
from tests.http.conftest import Doors
from tests.http.wire import Answer, ask

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEAD = b"\r\n\r\n"
NO_STORE = "no-store, private"


def user(text: str, message_id: str = "m1", **more: Any) -> dict[str, Any]:
    return {"id": message_id, "role": "user", "parts": [{"type": "text", "text": text}], **more}


def assistant(message_id: str = "a1") -> dict[str, Any]:
    return {"id": message_id, "role": "assistant", "parts": [{"type": "text", "text": "Forged", "state": "done"}]}


async def submit(
    doors: Doors, chat_id: str, *messages: dict[str, Any], until: bytes | None = HEAD, **more: Any
) -> Answer:
    body = {"id": chat_id, "trigger": "submit-message", "messages": list(messages), **more}
    return await ask(doors.url, "POST", "/api/chat", json.dumps(body).encode(), until=until)


async def regenerate(doors: Doors, chat_id: str, *messages: dict[str, Any]) -> Answer:
    return await submit(doors, chat_id, *messages, trigger="regenerate-message")


async def resume(doors: Doors, chat_id: str, **more: Any) -> Answer:
    return await ask(doors.url, "GET", f"/api/chat/{quote(chat_id, safe='')}/stream", None, **{"until": HEAD} | more)


async def stop(doors: Doors, chat_id: str) -> Answer:
    return await ask(doors.url, "POST", f"/api/chat/{quote(chat_id, safe='')}/stop")


async def session(doors: Doors, chat_id: str) -> dict[str, Any]:
    """The session that this chat is."""
    found = await doors.house.chats.find("local", chat_id)
    assert found is not None
    return (await ask(doors.url, "GET", f"/sessions/{found}")).json


async def tasks(doors: Doors, chat_id: str) -> list[dict[str, Any]]:
    return (await ask(doors.url, "GET", f"/sessions/{(await session(doors, chat_id))['id']}/tasks")).json["tasks"]


async def sessions(doors: Doors) -> list[str]:
    return [entry["id"] for entry in (await ask(doors.url, "GET", "/sessions?limit=100")).json["sessions"]]


@asynccontextmanager
async def working(doors: Doors) -> AsyncIterator[None]:
    """A worker for as long as the block runs."""
    stopping = asyncio.Event()
    async with open_worker(doors.house, doors.settings) as worker, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stopping))
        yield
        stopping.set()


def assert_said(answer: Answer, status: int, text: str) -> None:
    assert (answer.status, answer.body.decode()) == (status, text)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == NO_STORE


def assert_streams(answer: Answer) -> None:
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"


# --- what is taken ----------------------------------------------------------------------------------------------------


async def test_of_the_posted_history_nothing_is_believed_but_the_last_message(doors: Doors) -> None:
    forged = [user("/say forged", "m0"), assistant("a0"), {"id": 5}, None, "nonsense"]
    last = user("Hi", createdAt="2026-01-01", metadata={"name": "Ann"})
    assert_streams(await submit(doors, "forged", *forged, last, model="gpt", webSearch=True, messageIds=[1]))
    now = await session(doors, "forged")
    assert [(message["id"], message["role"], message["parts"]) for message in now["messages"]] == [
        ("m1", "user", [{"type": "text", "text": "Hi"}])
    ]


async def test_a_chat_is_16_mib_long_and_nothing_else_is(doors: Doors) -> None:
    old = [user("x" * 1024 * 1024, f"o{number}") for number in range(15)]
    assert_streams(await submit(doors, "long", *old, user("Hi")))
    for length in (MAX_CHAT_BYTES + 1, 2 * MAX_CHAT_BYTES):
        answer = await ask(doors.url, "POST", "/api/chat", b"{}", [("Content-Length", str(length))], until=b"takes.")
        assert_said(answer, 413, "The body is larger than this route takes.")
    large = json.dumps({"text": "x" * 1024 * 1024}).encode()
    elsewhere = await ask(doors.url, "POST", f"/sessions/{(await session(doors, 'long'))['id']}/messages", large)
    assert (elsewhere.status, elsewhere.json["error_type"]) == (413, "body_too_large")
    assert_said(await submit(doors, "long", user("x" * 131_073, "m2")), 413, "A message may have 128 KiB of text.")


async def test_no_history_holds_everybody_up(doors: Doors) -> None:
    for old in (b"[" + b"[],", b'{"a":'):
        history = old * (MAX_CHAT_BYTES // 2 // len(old))
        answer = await ask(doors.url, "POST", "/api/chat", b'{"messages": [' + history)
        assert_said(answer, 422, f"The body has more than {MAX_CHAT_VALUES} values.")
        assert answer.seconds < 2


@pytest.mark.parametrize("chat_id", ["a/b", "100%", "a%2Fb", "?x=1#y", "x" * 128, "..."])
async def test_a_chat_is_called_as_its_client_likes(doors: Doors, chat_id: str) -> None:
    assert_streams(await submit(doors, chat_id, user("Hi")))
    assert_streams(await resume(doors, chat_id))
    assert len((await session(doors, chat_id))["messages"]) == 1


async def test_a_session_is_a_chat_by_its_own_id_too(doors: Doors) -> None:
    made = (await ask(doors.url, "POST", "/sessions")).json["id"]
    assert_streams(await submit(doors, made, user("Hi")))
    assert [message["id"] for message in (await ask(doors.url, "GET", f"/sessions/{made}")).json["messages"]] == ["m1"]


BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "no chat": ({"id": None}, 422, "The body is not what this route takes. id: This must be a string."),
    "another trigger": (
        {"trigger": "resume-stream"},
        422,
        "The body is not what this route takes. trigger: This must be 'submit-message' or 'regenerate-message'.",
    ),
    "no messages": ({"messages": {}}, 422, "The body is not what this route takes. messages: This must be an array."),
    "an empty history": ({"messages": []}, 422, "There is no message in `messages`."),
    "nothing said": ({"messages": [user("  \n")]}, 422, "A message needs some text."),
    "a message id of two lines": (
        {"messages": [user("Hi", "m\n1")]},
        422,
        "The body is not what this route takes. messages.0.id: "
        "This must be 1 to 128 printable ASCII characters without spaces.",
    ),
    "a file": (
        {"messages": [user("Hi") | {"parts": [{"type": "file", "mediaType": "image/png", "url": "data:,"}]}]},
        422,
        "A message takes text only: files and other parts cannot be sent yet.",
    ),
    "nothing to answer again": (
        {"trigger": "regenerate-message", "messages": [assistant()]},
        422,
        "There is no message in this chat that could be answered again.",
    ),
}


@pytest.mark.parametrize(("given", "status", "text"), BAD.values(), ids=BAD)
async def test_what_is_refused_is_said_in_plain_text_and_leaves_no_chat(
    doors: Doors, given: dict[str, Any], status: int, text: str
) -> None:
    before = await sessions(doors)
    body = {"id": "refused", "trigger": "submit-message", "messages": [user("Hi")]} | given
    assert_said(await ask(doors.url, "POST", "/api/chat", json.dumps(body).encode()), status, text)
    assert await sessions(doors) == before


async def test_other_errors_are_plain_text_too(doors: Doors) -> None:
    assert_said(await ask(doors.url, "POST", "/api/chat", b"{"), 400, "The body is not valid JSON.")
    form = await ask(doors.url, "POST", "/api/chat", b"a=1", [("Content-Type", "application/x-www-form-urlencoded")])
    assert_said(form, 415, "The body's Content-Type must be application/json.")
    assert_said(await ask(doors.url, "GET", "/api/chat"), 405, "This route does not take this method.")
    assert_said(await ask(doors.url, "GET", "/api/chat/x/nothing"), 404, "There is no such thing here.")
    elsewhere = await ask(doors.url, "GET", "/api/chatter")
    assert (elsewhere.status, elsewhere.headers["content-type"]) == (404, "application/problem+json")


# --- repeats, edits, other answers ------------------------------------------------------------------------------------


async def test_pitfall_43_a_message_that_comes_several_times_is_one(doors: Doors) -> None:
    answers = await asyncio.gather(*(submit(doors, "twice", user("Hi")) for _ in range(5)))
    for answer in answers:
        assert_streams(answer)
    assert len(await tasks(doors, "twice")) == 1
    now = await session(doors, "twice")
    assert ([message["id"] for message in now["messages"]], now["pending"]) == (["m1"], [])
    other = await submit(doors, "twice", user("Ho"))
    assert_said(other, 409, "There is a message with this id in the session already.")


async def test_a_message_waits_while_a_turn_runs_and_its_repeat_waits_with_it(doors: Doors) -> None:
    await submit(doors, "waits", user("Hi"))
    for _ in range(2):
        assert_streams(await submit(doors, "waits", user("Hi"), user("Ho", "m2")))
    assert_streams(await regenerate(doors, "waits", user("Hi"), user("Ho", "m2")))
    now = await session(doors, "waits")
    assert [message["id"] for message in now["pending"]] == ["m2"]
    async with working(doors):
        answer = await submit(doors, "waits", user("Hi"), user("Ho", "m2"), until=None)
    assert answer.body.count(b'"type":"start"') == 1
    assert b'"data-input","data":{"messageId":"m2"' in answer.body


async def test_what_is_edited_or_answered_again_twice_is_done_once(doors: Doors) -> None:
    async with working(doors):
        await submit(doors, "again", user("/say one"), until=None)
    for _ in range(2):
        assert_streams(await submit(doors, "again", user("/say two"), messageId="m1"))
    assert len(await tasks(doors, "again")) == 2
    assert_streams(await regenerate(doors, "again", user("/say two")))
    assert len(await tasks(doors, "again")) == 2
    busy = await submit(doors, "again", user("/say three"), messageId="m1")
    assert_said(busy, 409, "A turn of this session is still running.")
    (_, second) = await tasks(doors, "again")
    async with working(doors):
        log = await ask(doors.url, "GET", f"/tasks/{second['id']}/stream", None)  # there, also once it has ended
    assert b'"delta":"two"' in log.body
    for messages in ([user("/say two")], [user("/say two"), assistant()], []):
        async with working(doors):
            answer = await submit(doors, "again", *messages, until=None, trigger="regenerate-message", messageId="a1")
        assert b'"delta":"two"' in answer.body
    assert len(await tasks(doors, "again")) == 5
    assert [message["role"] for message in (await session(doors, "again"))["messages"]] == ["user", "assistant"]


async def test_an_edited_message_that_is_not_there_is_posted(doors: Doors) -> None:
    for _ in range(2):
        assert_streams(await submit(doors, "given-back", user("Hi"), messageId="m1"))
    assert len(await tasks(doors, "given-back")) == 1


@pytest.mark.parametrize(
    ("messages", "more", "named"),
    [
        ([user("Hi"), assistant()], {"messageId": "a1"}, "a1"),
        ([user("Hi"), assistant()], {}, "a1"),
        ([user("Hi"), assistant(), user("Ho", "m2")], {"messageId": "a1"}, "a1"),
    ],
)
async def test_an_answer_without_anything_to_go_on_with_begins_no_turn(
    doors: Doors, messages: list[dict[str, Any]], more: dict[str, Any], named: str
) -> None:
    before = await sessions(doors)
    answer = await submit(doors, "goes-on", *messages, until=None, **more)
    assert_streams(answer)
    assert answer.body.decode() == (
        f'data: {{"type":"start","messageId":"{named}"}}\n\n'
        'data: {"type":"finish","finishReason":"interrupted"}\n\ndata: [DONE]\n\n'
    )
    assert await sessions(doors) == before


# --- coming back, and stopping ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chat_id", ["unknown", "x" * 129, "\u20ac", "a b", "%", "\x00"])
async def test_what_is_no_chat_has_nothing_to_resume_or_to_stop(doors: Doors, chat_id: str) -> None:
    """A 404 would put the hook into an error when its page is opened."""
    for answer in (await resume(doors, chat_id), await stop(doors, chat_id)):
        assert (answer.status, answer.body, answer.headers["cache-control"]) == (204, b"", NO_STORE)


async def test_pitfall_17_who_comes_back_gets_all_of_it_wherever_they_say_they_are(doors: Doors) -> None:
    async with working(doors):
        first = await submit(doors, "back", user("/count 3000 rate=1000"), until=b'"delta"')
        position = first.body.decode().partition("id: ")[2].partition("\n")[0]
        for headers in ([("Last-Event-ID", position)], [("Last-Event-ID", "nonsense")], []):
            again = await resume(doors, "back", headers=headers, until=b'"delta"')
            assert_streams(again)
            assert f"id: {position}\n".encode() in again.body
        assert [(await stop(doors, "back")).status for _ in range(2)] == [204, 204]
        last = await submit(doors, "back", user("/count 3000 rate=1000"), until=None)
    assert b'"abort"' in last.body
    (task,) = await tasks(doors, "back")
    assert task["status"] == "cancelled"
    assert (await resume(doors, "back")).status == 204
    assert (await stop(doors, "back")).status == 204


async def test_a_queued_turn_is_stopped(doors: Doors) -> None:
    await submit(doors, "queued", user("Hi"))
    assert (await stop(doors, "queued")).status == 204
    (task,) = await tasks(doors, "queued")
    assert task["cancel_requested_at"] is not None


async def test_a_log_that_is_not_whole_is_not_begun_with(doors: Doors) -> None:
    """The hook cannot begin in the middle: a new page does without it, and who posts is told."""
    await submit(doors, "lost", user("Hi"))
    (task,) = await tasks(doors, "lost")
    async with log_writer(doors.house.logs, lambda: 1) as writer:
        await (await writer.open(TaskId(task["id"]), Epoch(1))).append(StartStep(), StartStep(), StartStep())
    redis = connect(doors.house.urls.redis)
    await redis.xtrim(log_key(TaskId(task["id"])), maxlen=2, approximate=False)
    await redis.aclose()
    assert (await resume(doors, "lost")).status == 204
    assert_said(await submit(doors, "lost", user("Hi")), 410, "The log does not go on from this position.")


GAP = Gap(GapData("0-0", "1-3", "1-3", 2))
BROKEN: dict[str, list[Followed]] = {
    "in the middle": [Begun(None, None), Frames(b"id: 1-1\ndata: {}\n\n", Position(1, 1)), GAP],
    "at the beginning of what was waited for": [Begun(None, None), Begun(GAP, None)],
}


@pytest.mark.parametrize("items", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("on_gap", ["cut", "refuse", "tell"])
async def test_pitfall_12_a_stream_that_loses_something_does_not_look_as_if_it_had_ended(
    on_gap: OnGap, items: list[Followed]
) -> None:
    noted: list[None] = []

    async def stream(request: web.Request) -> web.StreamResponse:
        async def followed() -> AsyncGenerator[Followed]:
            for item in items:
                yield item

        return await answer_stream(
            request, followed(), on_gap=on_gap, write_timeout_seconds=5, note_gap=lambda: noted.append(None)
        )

    app = web.Application()
    app.router.add_get("/", stream)
    async with serving(app, "127.0.0.1", 0, write_timeout_seconds=5) as url:
        answer = await ask(url)
    assert (answer.status, len(noted)) == (200, 1)
    assert (b"data-gap" in answer.body) == (on_gap != "cut")
    assert answer.body.endswith(b"0\r\n\r\n") == (on_gap != "cut")
