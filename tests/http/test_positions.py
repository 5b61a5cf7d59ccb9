"""Positions as they come in a request: what has no such form is refused, what names no event is told."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from service.adapters.redis_client import connect
from service.adapters.redis_keys import log_key, meta_key
from service.model.ids import TaskId
from service.model.position import Position
from service.registry import follow as follower
from service.wiring import open_worker
from tests.http.conftest import Doors
from tests.http.wire import Answer, Header, ask

pytestmark = pytest.mark.asyncio(loop_scope="module")

STREAM_HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
    "x-vercel-ai-ui-message-stream": "v1",
}
BAD_FORMS = {
    "minus one": "-1",
    "a dollar": "$",
    "a plus": "+",
    "zero alone": "0",
    "no number": "1-",
    "no time": "-1",
    "a hyphen alone": "-",
    "two hyphens": "1--1",
    "three numbers": "1-1-1",
    "a sign": "+1-1",
    "a sign behind": "1-+1",
    "negative": "-1-1",
    "an underscore": "1_0-1",
    "spaces inside": "1 - 1",
    "a space inside": "1- 1",
    "hexadecimal": "0x1-1",
    "a fraction": "1.0-1",
    "an exponent": "1e3-1",
    "letters": "abc",
    "null": "null",
    "undefined": "undefined",
    "quotes": '"1-1"',
    "a comma": "1-1,1-2",
    "seventeen digits": "1" * 17 + "-1",
    "thirteen digits": "1-" + "1" * 13,
    "very long": "1" * 6000 + "-1",
    "full-width digits": "\uff11-\uff11",
    "Arabic digits": "\u0661-\u0661",
    "superscript": "1-\u00b9",
    "another hyphen": "1\u20101",
    "a zero-width space": "1-1\u200b",
    "a byte order mark": "\ufeff1-1",
    "a script": "<script>alert(1)</script>",
    "a path": "../../etc/passwd",
    "SQL": "1-1; DROP TABLE tasks",
    "a form": "%s%n{0}",
}
ONLY_IN_A_QUERY = {
    "nothing": "",
    "a NUL": "1-1\x00",
    "a line end": "1-1\n",
    "a line end and more": "1-1\r\nX: y",
    "a space in front": " 1-1",
    "a space behind": "1-1 ",
    "a tab": "1-1\t",
}


@dataclass(frozen=True)
class Turns:
    """A task that ended, another one that ended, and one that nobody works on."""

    ended: str
    positions: list[str]
    other: list[str]
    queued: str


async def posted(doors: Doors, text: str) -> str:
    session = (await ask(doors.url, "POST", "/sessions")).json["id"]
    answer = await ask(doors.url, "POST", f"/sessions/{session}/messages", json.dumps({"text": text}).encode())
    assert answer.status == 202
    task_id: str = answer.json["task_id"]
    return task_id


async def follow(doors: Doors, task_id: str, after: str | None = None, **options: bytes | None) -> Answer:
    headers: list[Header] = [] if after is None else [("Last-Event-ID", after)]
    return await ask(doors.url, "GET", f"/tasks/{task_id}/stream", None, headers, until=options.get("until"))


def ids(answer: Answer) -> list[str]:
    return [line.removeprefix("id: ") for line in dechunked(answer).split("\n") if line.startswith("id: ")]


def dechunked(answer: Answer) -> str:
    """The body; it comes in chunks unless the connection's end is its end."""
    if answer.headers.get("transfer-encoding") != "chunked":
        return answer.body.decode()
    body, rest = b"", answer.body
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body.decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def turns(doors: Doors) -> AsyncIterator[Turns]:
    stop = asyncio.Event()
    async with open_worker(doors.house, doors.settings) as worker, asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.run(stop))
        ended = await posted(doors, "/count 20")
        positions = ids(await follow(doors, ended))
        # Written later: two logs may use the same position for an event each, as long as their times are the same.
        other = ids(await follow(doors, await posted(doors, "/say Other")))
        stop.set()
    assert not {*positions} & {*other}
    yield Turns(ended, positions, other, await posted(doors, "/say Later"))


def assert_refused(answer: Answer) -> None:
    assert answer.status == 400, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["error_type"] == "validation_error"
    assert answer.seconds < 1


@pytest.mark.parametrize("form", BAD_FORMS.values(), ids=BAD_FORMS.keys())
async def test_pitfall_13_what_is_no_position_is_refused_in_the_header(doors: Doors, turns: Turns, form: str) -> None:
    for task_id in (turns.ended, turns.queued):
        assert_refused(await follow(doors, task_id, form))


@pytest.mark.parametrize("form", (BAD_FORMS | ONLY_IN_A_QUERY).values(), ids=(BAD_FORMS | ONLY_IN_A_QUERY).keys())
async def test_pitfall_13_what_is_no_position_is_refused_in_the_query(doors: Doors, turns: Turns, form: str) -> None:
    for task_id in (turns.ended, turns.queued):
        path = f"/tasks/{task_id}/stream?last_message_id={quote(form, safe='')}"
        assert_refused(await ask(doors.url, "GET", path))


async def test_pitfall_13_a_position_in_bytes_that_are_no_text_is_refused(doors: Doors, turns: Turns) -> None:
    for raw in (b"1-1\xff", b"\xc3\x28", b"\xed\xa0\x80"):
        headers: list[Header] = [("Last-Event-ID", raw)]
        assert_refused(await ask(doors.url, "GET", f"/tasks/{turns.queued}/stream", None, headers))
    assert_refused(await ask(doors.url, "GET", f"/tasks/{turns.queued}/stream?last_message_id=%FF%FE"))


async def test_pitfall_58_a_nul_in_the_header_is_refused_by_the_parser(doors: Doors, turns: Turns) -> None:
    answer = await follow(doors, turns.queued, "1-1\x00")
    assert answer.status == 400
    assert answer.seconds < 1


async def test_an_empty_header_is_refused(doors: Doors, turns: Turns) -> None:
    assert_refused(await follow(doors, turns.ended, ""))


async def test_two_positions_are_none(doors: Doors, turns: Turns) -> None:
    first, second = turns.positions[:2]
    path = f"/tasks/{turns.ended}/stream"
    headers: list[Header] = [("Last-Event-ID", first), ("Last-Event-ID", second)]
    assert_refused(await ask(doors.url, "GET", path, None, headers))
    assert_refused(await ask(doors.url, "GET", f"{path}?last_message_id={first}&last_message_id={second}"))
    assert_refused(await ask(doors.url, "GET", f"{path}?last_message_id={first}&last_message_id={first}"))


# --- positions that are some ------------------------------------------------------------------------------------------


async def test_from_the_beginning_and_from_every_event(doors: Doors, turns: Turns) -> None:
    whole = await follow(doors, turns.ended)
    assert whole.status == 200
    assert {name: whole.headers[name] for name in STREAM_HEADERS} == STREAM_HEADERS
    assert dechunked(whole).endswith("data: [DONE]\n\n")
    assert ids(whole) == turns.positions
    assert [Position.parse(each).n for each in turns.positions] == list(range(1, len(turns.positions) + 1))
    assert ids(await follow(doors, turns.ended, "0-0")) == turns.positions
    for n, position in enumerate(turns.positions[:-1], 1):
        assert ids(await follow(doors, turns.ended, position)) == turns.positions[n:]


async def test_the_header_goes_before_the_query(doors: Doors, turns: Turns) -> None:
    header, query = turns.positions[4], turns.positions[1]
    path = f"/tasks/{turns.ended}/stream?last_message_id={query}"
    assert ids(await ask(doors.url, "GET", path)) == turns.positions[2:]
    assert ids(await ask(doors.url, "GET", path, None, [("Last-Event-ID", header)])) == turns.positions[5:]
    assert_refused(await ask(doors.url, "GET", path, None, [("Last-Event-ID", "-1")]))


async def test_pitfall_15_who_has_the_terminal_event_is_told_that_there_is_no_more(doors: Doors, turns: Turns) -> None:
    answer = await follow(doors, turns.ended, turns.positions[-1])
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["cache-control"] == "no-store, private"


def unknown(turns: Turns) -> dict[str, str]:
    last = Position.parse(turns.positions[-1])
    middle = Position.parse(turns.positions[5])
    return {
        "a number without a time": "0-3",
        "a time without a number": f"{middle.ms}-0",
        "a millisecond earlier": f"{middle.ms - 1}-{middle.n}",
        "a millisecond later": f"{last.ms + 1}-{middle.n}",
        "one beyond the end": f"{last.ms}-{last.n + 1}",
        "the future": f"{last.ms + 86_400_000}-{last.n + 100}",
        "the largest": f"{'9' * 16}-{'9' * 12}",
        "another task's": turns.other[2],
        "another task's last": turns.other[-1],
    }


NAMES = list(unknown(Turns("", ["1-1"] * 6, ["1-1"] * 3, "")))


@pytest.mark.parametrize("name", NAMES)
async def test_pitfall_64_a_position_that_names_no_event_is_told_first(doors: Doors, turns: Turns, name: str) -> None:
    requested = unknown(turns)[name]
    answer = await follow(doors, turns.ended, requested)
    assert answer.status == 200
    first, *frames = dechunked(answer).split("\n\n")
    assert first.startswith("data: ")
    gap = json.loads(first.removeprefix("data: "))
    assert gap["type"] == "data-gap"
    assert gap["transient"] is True
    fields = {"requested": requested, "oldest": turns.positions[0], "latest": turns.positions[-1]}
    assert {key: gap["data"][key] for key in fields} == fields
    assert isinstance(gap["data"]["lost"], int)
    assert gap["data"]["lost"] >= 0
    assert sum("data-gap" in frame for frame in frames) == 0
    # It goes on at the first event above the position; where there is none, at the last one.
    above = [each for each in turns.positions if Position.parse(each) > Position.parse(requested)]
    assert ids(answer) == (above or turns.positions[-1:])


@pytest.mark.parametrize("name", NAMES)
async def test_pitfall_64_the_same_as_a_refusal(doors: Doors, turns: Turns, name: str) -> None:
    requested = unknown(turns)[name]
    path = f"/tasks/{turns.ended}/stream?on_gap=refuse&last_message_id={requested}"
    answer = await ask(doors.url, "GET", path)
    assert answer.status == 410
    problem = answer.json
    assert (problem["error_type"], problem["title"], problem["status"]) == ("gap", "Gone", 410)
    assert (problem["requested"], problem["oldest"]) == (requested, turns.positions[0])
    assert problem["latest"] == turns.positions[-1]
    assert isinstance(problem["lost"], int)


async def test_who_refuses_gaps_gets_what_there_is_where_there_is_none(doors: Doors, turns: Turns) -> None:
    path = f"/tasks/{turns.ended}/stream?on_gap=refuse&last_message_id={turns.positions[3]}"
    assert ids(await ask(doors.url, "GET", path)) == turns.positions[4:]


# --- a task that nobody works on --------------------------------------------------------------------------------------


async def test_the_stream_of_a_queued_task_begins_at_once(doors: Doors, turns: Turns) -> None:
    answer = await follow(doors, turns.queued, until=b"\r\n\r\n")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.seconds < 0.5


async def test_pitfall_16_a_queued_task_s_stream_has_a_heartbeat(doors: Doors, turns: Turns) -> None:
    answer = await follow(doors, turns.queued, until=b": hb\n")
    assert answer.body.endswith((b": hb\n", b": hb\n\r\n"))
    assert b"data:" not in answer.body


async def test_pitfall_64_a_position_in_a_log_that_is_empty_is_told(
    doors: Doors, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LOST_TAIL_PATIENCE_SECONDS", 0.1)
    path = f"/tasks/{turns.queued}/stream?on_gap=refuse&last_message_id={turns.positions[0]}"
    told, refused = await asyncio.gather(  # both wait, since the tail may be about to be restored
        follow(doors, turns.queued, turns.positions[0], until=b"\n\n"), ask(doors.url, "GET", path)
    )
    assert b"data-gap" in told.body
    assert b'"oldest":"0-0","latest":"0-0"' in told.body
    assert refused.status == 410


# --- a log that is gone -----------------------------------------------------------------------------------------------


async def test_pitfall_15_who_comes_back_to_a_log_that_is_gone_is_told_not_to(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LOST_TAIL_PATIENCE_SECONDS", 0.1)
    task_id, positions = await worked_on(doors)
    async with store_of(doors) as redis:
        await redis.delete(log_key(TaskId(task_id)), meta_key(TaskId(task_id)))
    for requested in (None, positions[0], positions[-1]):
        gone = await follow(doors, task_id, requested)
        gap = {"requested": requested or "0-0", "oldest": "0-0", "latest": "0-0", "lost": 0}
        assert_gone(gone, gap)
        asked = await ask(doors.url, "GET", f"/tasks/{task_id}/stream?on_gap=refuse&last_message_id={gap['requested']}")
        assert asked.json == gone.json


async def test_pitfall_15_of_a_log_that_lost_its_end_there_is_first_what_there_is(doors: Doors) -> None:
    task_id, positions = await worked_on(doors)
    last = Position.parse(positions[-2])
    async with store_of(doors) as redis:  # as it is after a restart that lost the newest write
        await redis.xdel(log_key(TaskId(task_id)), positions[-1])
        await redis.hdel(meta_key(TaskId(task_id)), "closed")
        await redis.hset(meta_key(TaskId(task_id)), mapping={"n": last.n, "ms": last.ms})
    answer = await follow(doors, task_id, positions[2])
    assert ids(answer) == positions[3:-1]
    assert json.loads(dechunked(answer).split("data: ")[-1])["type"] == "data-gap"
    again = await follow(doors, task_id, positions[-2])
    assert_gone(again, {"requested": str(last), "oldest": positions[0], "latest": str(last), "lost": 0})


def assert_gone(answer: Answer, gap: dict[str, object]) -> None:
    assert answer.status == 410
    assert answer.seconds < 1, "it is known before any heartbeat"
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json["error_type"], answer.json["status"]) == ("gap", 410)
    assert {name: answer.json[name] for name in gap} == gap


async def worked_on(doors: Doors) -> tuple[str, list[str]]:
    """A task that has ended, its log closed for good; and its positions."""
    stop = asyncio.Event()
    async with open_worker(doors.house, doors.settings) as worker, asyncio.TaskGroup() as tasks:
        task_id = await posted(doors, "/count 5")
        tasks.create_task(worker.run(stop))
        positions = ids(await follow(doors, task_id))
        stop.set()
    return task_id, positions


@asynccontextmanager
async def store_of(doors: Doors) -> AsyncIterator[Redis]:
    redis = connect(doors.house.urls.redis)
    yield redis
    await redis.aclose()
