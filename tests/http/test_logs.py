"""Logs for programs, over real stores: pages of events, the proof, the export; and what is done to either store."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import quote

import asyncpg
import pytest
import pytest_asyncio

from service.adapters.redis_keys import log_key
from service.model.export import prove_export
from service.model.ids import TaskId
from service.registry.archive import Archivist
from service.wiring import open_worker
from tests.http.conftest import Doors
from tests.http.test_positions import (
    BAD_FORMS,
    ONLY_IN_A_QUERY,
    assert_refused,
    dechunked,
    follow,
    ids,
    posted,
    store_of,
)
from tests.http.wire import Answer, ask

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOBODYS = "01890000-0000-7000-8000-000000000000"
NO_STORE = "no-store, private"


@dataclass(frozen=True)
class Logs:
    """A log in both stores, one in the archive alone, one that is hot, and one that is not begun."""

    both: TaskId
    archived: TaskId
    hot: TaskId
    queued: TaskId


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def logs(doors: Doors) -> AsyncIterator[Logs]:
    house, stop = doors.house, asyncio.Event()
    archivist = Archivist(house.logs, house.hot, house.archive, hot_ttl_seconds=3600)
    async with open_worker(house, doors.settings) as worker, asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.run(stop))
        both, archived = [TaskId(await posted(doors, text)) for text in ("/count 20", "/say Archived")]
        for task_id in (both, archived):
            await follow(doors, task_id)
            await until_closed(doors, task_id)
        await archivist.archive_some()
        await house.hot.remove([archived])
        hot = TaskId(await posted(doors, "/reason So\n/fail rate_limit times=1\n/say Hot"))
        await follow(doors, hot)
        await until_closed(doors, hot)
        stop.set()
    yield Logs(both, archived, hot, TaskId(await posted(doors, "/say Later")))


async def until_closed(doors: Doors, task_id: TaskId) -> None:
    """Until the database knows that the log has its end, which is a moment behind it."""
    async with asyncio.timeout(5):
        while not ((facts := await doors.house.directory.facts(task_id)) and facts.log_closed):
            pass  # each look is a round trip


async def get(doors: Doors, path: str, **headers: str) -> Answer:
    return await ask(doors.url, "GET", f"/tasks/{path}", None, list(headers.items()))


# --- the proof --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["both", "archived", "hot"])
async def test_a_turn_s_log_is_proven_wherever_it_is(doors: Doors, logs: Logs, where: str) -> None:
    task_id = getattr(logs, where)
    answer = await get(doors, f"{task_id}/verify")
    assert (answer.status, answer.headers["cache-control"]) == (200, NO_STORE)
    positions = ids(await follow(doors, task_id))
    digest = answer.json.pop("sha256")
    assert len(digest) == 64
    assert {name: value for name, value in answer.json.items() if name != "sha256"} == {
        "task_id": task_id,
        "proven": True,
        "closed": True,
        "read_from": where,
        "redacted": False,
        "events": len(positions),
        "first": positions[0],
        "last": positions[-1],
        "findings": [],
        "findings_not_listed": 0,
    }


async def test_a_log_that_is_not_begun_is_proven_as_far_as_it_is(doors: Doors, logs: Logs) -> None:
    body = (await get(doors, f"{logs.queued}/verify")).json
    assert (body["proven"], body["closed"], body["read_from"], body["events"]) == (True, False, "nowhere", 0)


TAMPERING = {
    "a byte": (
        "UPDATE log_events SET data = overlay(data PLACING 'x' FROM 60) WHERE task_id = $1 AND n = 8",
        {"wrong_sha256", "hot_differs"},
    ),
    "a missing event": (
        "DELETE FROM log_events WHERE task_id = $1 AND n = 8",
        {"missing_events", "wrong_sha256", "wrong_end", "hot_differs"},
    ),
    "a swapped pair": (
        "UPDATE log_events e SET data = o.data FROM log_events o"
        " WHERE e.task_id = $1 AND o.task_id = $1 AND e.n IN (8, 9) AND o.n = 17 - e.n",
        {"wrong_sha256", "hot_differs"},
    ),
    "a position": (
        "UPDATE log_events SET ms = ms + 1 WHERE task_id = $1 AND n >= 8",
        {"wrong_sha256", "wrong_end", "hot_differs"},
    ),
    "a second finish": (
        "INSERT INTO log_events SELECT task_id, n + 1, ms, data FROM log_events e"
        " WHERE task_id = $1 ORDER BY n DESC LIMIT 1",
        {"second_finish", "wrong_sha256", "wrong_end", "hot_differs"},
    ),
    "an event behind the finish": (
        "INSERT INTO log_events SELECT e.task_id, a.last_n + 1, a.last_ms, e.data FROM log_events e"
        " JOIN log_archives a USING (task_id) WHERE e.task_id = $1 AND e.n = 4",
        {"event_after_finish", "wrong_sha256", "wrong_end", "hot_differs"},
    ),
    "the stored sha256": (
        "UPDATE log_archives SET sha256 = decode(repeat('ab', 32), 'hex') WHERE task_id = $1",
        {"wrong_sha256"},
    ),
    "the row": ("UPDATE tasks SET status = 'cancelled', answer_id = 'x' WHERE id = $1", {"row_disagrees"}),
}


@pytest.mark.parametrize("what", TAMPERING)
async def test_whatever_is_done_to_the_database_is_found(doors: Doors, logs: Logs, what: str) -> None:
    """And undone: the next one sees the proof pass first."""
    statement, expected = TAMPERING[what]
    assert (await get(doors, f"{logs.both}/verify")).json["proven"] is True
    connection = await asyncpg.connect(doors.house.urls.postgres)
    kept = [await connection.fetch(f"SELECT * FROM {table} WHERE {key} = $1", logs.both) for table, key in TABLES]
    await connection.execute(statement, logs.both)
    body = (await get(doors, f"{logs.both}/verify")).json
    for (table, key), rows in zip(TABLES, kept, strict=True):
        columns = ", ".join(rows[0].keys())
        values = ", ".join(f"${i}" for i in range(1, len(rows[0]) + 1))
        if table != "tasks":
            await connection.execute(f"DELETE FROM {table} WHERE {key} = $1", logs.both)
            await connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({values})", rows)
    (row,) = kept[-1]
    await connection.execute(
        "UPDATE tasks SET status = $2, answer_id = $3 WHERE id = $1", logs.both, row["status"], row["answer_id"]
    )
    await connection.close()
    assert body["proven"] is False
    assert {finding["type"] for finding in body["findings"]} >= expected
    assert (await get(doors, f"{logs.both}/verify")).json["proven"] is True


TABLES = (("log_events", "task_id"), ("log_archives", "task_id"), ("tasks", "id"))


async def test_a_hot_copy_that_is_another_log_is_found(doors: Doors, logs: Logs) -> None:
    position = ids(await follow(doors, logs.hot))[5]
    assert (await get(doors, f"{logs.hot}/verify")).json["proven"] is True
    async with store_of(doors) as redis:
        (entry,) = await redis.xrange(log_key(logs.hot), position, position)
        await redis.xdel(log_key(logs.hot), position)
        body = (await get(doors, f"{logs.hot}/verify")).json
    assert [finding["type"] for finding in body["findings"]] == ["missing_events"]
    assert entry[0] == position.encode()


# --- pages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["both", "archived"])
async def test_pages_have_what_the_stream_has(doors: Doors, logs: Logs, where: str) -> None:
    task_id = getattr(logs, where)
    lines = dechunked(await follow(doors, task_id)).split("\n")
    streamed = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    events, after = [], "0-0"
    while True:
        answer = await get(doors, f"{task_id}/events?after={after}&limit=7")
        assert (answer.status, answer.headers["cache-control"]) == (200, NO_STORE)
        page = answer.json
        assert set(page) == {"events", "last", "closed", "gap"}
        assert page["last"] == page["events"][-1]["id"]
        events += page["events"]
        after = page["last"]
        if page["closed"]:
            break
        assert len(page["events"]) == 7
    assert [event["id"] for event in events] == ids(await follow(doors, task_id))
    assert [event["data"] for event in events] == streamed
    at_the_end = (await get(doors, f"{task_id}/events?after={after}")).json
    assert at_the_end == {"events": [], "last": after, "closed": True, "gap": None}


async def test_a_page_of_what_is_not_begun_is_empty(doors: Doors, logs: Logs) -> None:
    answer = await get(doors, f"{logs.queued}/events")
    assert answer.json == {"events": [], "last": "0-0", "closed": False, "gap": None}
    assert answer.seconds < 1


async def test_a_gap_is_told_in_the_page(doors: Doors, logs: Logs) -> None:
    page = (await get(doors, f"{logs.both}/events?after=1-3&limit=1")).json
    assert (page["gap"]["requested"], page["gap"]["lost"], len(page["events"])) == ("1-3", 0, 1)


@pytest.mark.parametrize("form", (BAD_FORMS | ONLY_IN_A_QUERY).values(), ids=(BAD_FORMS | ONLY_IN_A_QUERY).keys())
async def test_what_is_no_position_is_refused(doors: Doors, logs: Logs, form: str) -> None:
    assert_refused(await get(doors, f"{logs.both}/events?after={quote(form, safe='')}"))


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "+1", "1.0", "", "ten", "1e2", "00001", "\uff11", "1&limit=1"])
async def test_a_limit_that_is_none_is_refused(doors: Doors, logs: Logs, limit: str) -> None:
    answer = await get(doors, f"{logs.both}/events?limit={quote(limit, safe='&=')}")
    assert (answer.status, answer.json["error_type"]) == (422, "validation_error")


async def test_two_positions_are_none(doors: Doors, logs: Logs) -> None:
    assert_refused(await get(doors, f"{logs.both}/events?after=0-0&after=0-0"))


# --- the export -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["both", "archived", "hot"])
async def test_an_export_proves_itself(doors: Doors, logs: Logs, where: str) -> None:
    task_id = getattr(logs, where) if where != "hot" else await another_hot(doors)
    answer = await get(doors, f"{task_id}/export")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/jsonl")
    verdict = prove_export(dechunked(answer).encode().splitlines(keepends=True))
    proof = (await get(doors, f"{task_id}/verify")).json
    assert (verdict.is_proven, verdict.task_id, verdict.sha256.hex()) == (True, task_id, proof["sha256"])
    if where == "hot":
        assert ("etag" in answer.headers, answer.headers["cache-control"]) == (False, NO_STORE)
    else:
        assert answer.headers["etag"] == f'"{proof["sha256"]}"'
        assert answer.headers["cache-control"] == "private, immutable"


async def another_hot(doors: Doors) -> TaskId:
    stop = asyncio.Event()
    async with open_worker(doors.house, doors.settings) as worker, asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.run(stop))
        task_id = TaskId(await posted(doors, "/say é\u2028 <b>"))
        await follow(doors, task_id)
        await until_closed(doors, task_id)
        stop.set()
    return task_id


async def test_who_has_an_archived_log_is_told_that_it_is_the_same(doors: Doors, logs: Logs) -> None:
    path = f"{logs.archived}/export"
    tag = (await get(doors, path)).headers["etag"]
    for given in (tag, f'"x", {tag}', f"W/{tag}", "*"):
        answer = await get(doors, path, **{"If-None-Match": given})
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", tag)
        assert answer.headers["cache-control"] == "private, immutable"
    for given in ('"x"', tag.strip('"'), ""):
        assert (await get(doors, path, **{"If-None-Match": given})).status == 200


async def test_a_redacted_export_is_another_file_and_is_not_kept(doors: Doors, logs: Logs) -> None:
    path = f"{logs.archived}/export"
    plain = await get(doors, path)
    answer = await get(doors, f"{path}?redact=1", **{"If-None-Match": plain.headers["etag"]})
    assert (answer.status, answer.headers["cache-control"], "etag" in answer.headers) == (200, NO_STORE, False)
    verdict = prove_export(dechunked(answer).encode().splitlines(keepends=True))
    assert (verdict.is_proven, verdict.redacted) == (True, True)
    assert verdict.sha256.hex() not in dechunked(plain)
    assert (await get(doors, f"{path}?redact=yes")).json["error_type"] == "validation_error"


async def test_a_log_that_is_written_is_not_exported(doors: Doors) -> None:
    answer = await get(doors, f"{await posted(doors, '/say Not yet')}/export")
    assert (answer.status, answer.json["error_type"]) == (409, "log_open")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("route", ["events", "verify", "export"])
async def test_what_there_is_not_has_no_log(doors: Doors, logs: Logs, route: str) -> None:
    for task_id in (NOBODYS, "nonsense", NOBODYS.upper().replace("0", "A")):
        answer = await get(doors, f"{task_id}/{route}")
        assert (answer.status, answer.json["error_type"]) == (404, "not_found")
    assert (await ask(doors.url, "POST", f"/tasks/{logs.both}/{route}")).status == 405
