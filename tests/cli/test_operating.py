"""The commands that list, show and end things, through either door, on a terminal and in a pipe."""

import asyncio
import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from service.adapters.memory_database import MemoryDatabase
from service.adapters.memory_doorbell import MemoryDoorbell
from service.adapters.memory_messages import MemoryMessages
from service.adapters.memory_operations import MemoryOperations
from service.adapters.memory_sessions import MemorySessions
from service.adapters.memory_tasks import MemoryTasks
from service.adapters.no_broker import NoDeadLetters
from service.cli.listing import in_words
from service.cli.store_door import StoreDoor
from service.client import Playhead
from service.model.ids import MessageId, OwnerId, TaskId
from service.model.operation import EVERY_OPERATION
from service.model.session import UNSET, SessionSettings
from service.model.task import EVERY_TASK, TaskFilter
from service.operations.operations import Operations
from service.sessions.conversations import Conversations
from service.sessions.tasks import Tasks
from tests.cli.conftest import NO_TASK, PLAIN, Command, Logs, said_to

DOORS = pytest.mark.parametrize("door", ["url", "stores"])
NARROW, WIDE = ({"TERM": "xterm", "NO_COLOR": "1", "COLUMNS": columns} for columns in ("40", "150"))
STYLE = re.compile(r"\x1b\[[0-9;]*m")
STEERS = {"\x1b", "\x9b", "\x07", "\r"}


# --- tasks ------------------------------------------------------------------------------------------------------------


@DOORS
async def test_tasks_are_listed_newest_first_in_a_pipe_and_for_programs(
    playhead: Command, tmp_path: Path, logs: Logs, door: str
) -> None:
    where, settings = logs.at(door)
    tasks = ("tasks", *where)
    piped, as_json, all_of_them, one, failed, nobodys, of_session = await asyncio.gather(
        playhead(tmp_path, *tasks, "--status", "failed", settings=settings),
        playhead(tmp_path, *tasks, "--limit", "100", "--json", settings=settings),
        playhead(tmp_path, *tasks, "--all", "--json", settings=settings),
        playhead(tmp_path, *tasks, "--limit", "1", "--status", "failed", settings=settings),
        playhead(tmp_path, *tasks, "--status", "failed", "--json", settings=settings),
        playhead(tmp_path, *tasks, "--owner", "nobody at all", "--json", settings=settings),
        playhead(tmp_path, *tasks, "--session", "no-such", settings=settings),
    )
    found = json.loads(as_json.out)
    times = [datetime.fromisoformat(task["created_at"]) for task in found]
    pairs = pairwise(times)  # of two that are made at once, either may be the newer one
    assert all(newer > older - timedelta(seconds=1) for newer, older in pairs)
    assert {logs.counted, logs.failed, logs.running} <= {task["id"] for task in found}
    assert {task["id"] for task in found} <= {task["id"] for task in json.loads(all_of_them.out)}
    (of_failed,) = [task for task in json.loads(failed.out) if task["id"] == logs.failed]
    names = ("id", "status", "kind", "session_id", "created_at", "started_at", "finished_at", "error_type")
    assert "\t".join(of_failed[name] for name in names) in piped.out.splitlines()
    assert one.out.count("\n") == 1
    assert (nobodys.out, of_session.out) == ("[]\n", "")
    assert [ran.code for ran in (piped, as_json, one, nobodys, of_session)] == [0] * 5


async def test_a_table_loses_nothing_however_narrow_the_terminal(playhead: Command, tmp_path: Path, logs: Logs) -> None:
    narrow, wide, nothing = await asyncio.gather(
        playhead(tmp_path, "tasks", "--status", "running", settings={"URL": logs.url}, terminal=NARROW),
        playhead(tmp_path, "tasks", "--status", "failed", settings={"URL": logs.url}, terminal=WIDE),
        playhead(tmp_path, "tasks", "--session", "no-such", settings={"URL": logs.url}, terminal=WIDE),
    )
    heading, *rows = STYLE.sub("", narrow.out).splitlines()
    assert heading.split() == ["id", "status", "age"]
    assert all(len(row) <= 40 for row in rows)
    assert "running" in narrow.out
    assert logs.running in "".join(row.split(" ")[0] for row in rows)  # as it is folded
    heading, *rows = STYLE.sub("", wide.out).splitlines()
    (row,) = [row for row in rows if row.startswith(logs.failed)]
    assert "validation_error" in row
    assert heading.split() == ["id", "status", "age", "took", "error", "session"]
    assert (nothing.out, nothing.code) == ("", 0)


async def test_a_long_title_is_folded_and_the_id_beside_it_is_whole(
    playhead: Command, tmp_path: Path, logs: Logs
) -> None:
    async with Playhead(logs.url) as service:
        session_id = await service.create_session(SessionSettings(title="word " * 30 + "end"))
    listed = await playhead(
        tmp_path, "sessions", "list", settings={"URL": logs.url}, terminal=NARROW | {"COLUMNS": "80"}
    )
    rows = STYLE.sub("", listed.out).splitlines()
    assert session_id in [row.split(" ")[0] for row in rows]
    assert any(row.split()[-1:] == ["end"] for row in rows)
    assert all(len(row) <= 80 for row in rows)


@DOORS
async def test_a_task_is_cancelled_and_one_that_has_ended_stays(
    playhead: Command, tmp_path: Path, logs: Logs, door: str
) -> None:
    where, settings = logs.at(door)
    async with Playhead(logs.url) as service:
        task_id = await said_to(service, "/wait 60")
        ran = await playhead(tmp_path, "cancel", task_id, *where, settings=settings)
        assert (ran.code, ran.out.endswith(", and is being ended.\n")) == (0, True)
        assert [event async for event in service.follow(task_id)]
    again, archived, as_json, none, nonsense = await asyncio.gather(
        *(
            playhead(tmp_path, "cancel", *asked, *where, settings=settings)
            for asked in ((task_id,), (logs.counted,), (logs.counted, "--json"), (NO_TASK,), ("nonsense\udcff",))
        )
    )
    assert (again.code, again.out) == (0, "The task had ended before: cancelled.\n")
    assert (archived.code, archived.out) == (0, "The task had ended before: succeeded.\n")
    assert json.loads(as_json.out)["status"] == "succeeded"
    assert (none.code, nonsense.code) == (3, 3)


@DOORS
async def test_the_task_of_an_operation_waits_is_listed_and_cancelled(
    playhead: Command, tmp_path: Path, logs: Logs, door: str
) -> None:
    where, settings = logs.at(door)
    operation = await logs.begin()
    waiting = ("tasks", "--kind", "operation", "--status", "waiting", "--all", *where)
    piped, as_json = await asyncio.gather(
        playhead(tmp_path, *waiting, settings=settings), playhead(tmp_path, *waiting, "--json", settings=settings)
    )
    (task,) = [each for each in json.loads(as_json.out) if each["id"] == operation.task_id]
    assert (task["operation_id"], task["message_id"]) == (operation.id, None)
    assert operation.task_id in [row.split("\t")[0] for row in piped.out.splitlines()]
    ran = await playhead(tmp_path, "cancel", operation.task_id, *where, settings=settings)
    assert (ran.code, "ended before" in ran.out) == (0, False)


# --- operations -------------------------------------------------------------------------------------------------------


@DOORS
async def test_an_operation_is_listed_completed_and_shown_with_who_did_it(
    playhead: Command, tmp_path: Path, logs: Logs, door: str
) -> None:
    where, settings = logs.at(door)

    async def operations(*asked: str) -> str:
        ran = await playhead(tmp_path, "operations", *asked, *where, settings=settings)
        assert ran.code == 0, ran
        told.extend(json.loads(line) for line in ran.err.splitlines())
        return ran.out

    told = list[dict[str, str]]()
    search, operation, other = await logs.begin("search"), await logs.begin(), await logs.begin()
    searches, stuck, remote, none = await asyncio.gather(
        operations("list", "--status", "pending", "--tool", "search", "--all"),
        operations("list", "--stuck", "--all"),
        operations("list", "--executor", "remote", "--limit", "1000", "--json"),
        operations("list", "--tool", "nothing is called so"),
    )
    row = next(row.split("\t") for row in searches.splitlines() if row.startswith(search.id))
    assert row[:6] == [search.id, "pending", "search", "remote", search.session_id, search.task_id]
    assert {search.id, operation.id, other.id} <= {each["id"] for each in json.loads(remote)}
    assert none == ""
    assert not [each.id for each in (search, operation, other) if each.id in stuck]

    said = ("complete", operation.id, "--success", "--result", '{"text": "\\u001b[31mred"}')
    assert await operations(*said) == f"The operation has succeeded; task {operation.task_id} goes on with that.\n"
    receipt = json.loads(await operations(*said, "--json"))
    assert (receipt["status"], receipt["duplicate"]) == ("succeeded", True)
    failed = json.loads(await operations("complete", other.id, "--failure", "--message", "No paper.", "--json"))
    assert failed["status"] == "failed"
    shown, plain = await operations("show", operation.id), json.loads(await operations("show", other.id, "--json"))
    by = "command" if door == "stores" else "local"
    assert f"succeeded, by {by} over http\n" in shown
    assert "[accepted at " in shown
    assert "[duplicate at " in shown
    assert not STEERS & set(shown)
    assert plain["outcome"] == {"error_type": "unknown", "message": "No paper."}
    assert await operations("cancel", search.id) == "The operation is cancelled.\n"
    if door == "stores":  # the command is the one who logs it
        assert [line["action"] for line in told][:3] == [
            "completion_accepted",
            "completion_duplicate",
            "completion_accepted",
        ]
        assert "No paper" not in str(told)
    else:
        assert told == []


@DOORS
async def test_an_operation_that_there_is_not_is_code_3_and_one_that_ended_otherwise_code_2(
    playhead: Command, tmp_path: Path, logs: Logs, door: str
) -> None:
    where, settings = logs.at(door)
    ended = await logs.begin()
    async with Playhead(logs.url) as service:
        await service.cancel_operation(ended.id)
    asked = [
        *(("show", NO_TASK), ("cancel", NO_TASK), ("complete", NO_TASK, "--success")),
        *(("show", "nonsense\udcff"), ("cancel", "x"), ("complete", "x", "--failure")),
        ("complete", ended.id, "--success"),
    ]
    runs = await asyncio.gather(*(playhead(tmp_path, "operations", *each, *where, settings=settings) for each in asked))
    assert [(ran.code, ran.out) for ran in runs] == [(3, "")] * 6 + [(2, "")]
    assert all(ran.err.splitlines()[-1].startswith("playhead: ") for ran in runs)
    assert "How it ended stays" in runs[-1].err


@DOORS
async def test_follow_ups_that_failed_are_redriven_one_or_all(
    playhead: Command, tmp_path: Path, logs: Logs, door: str
) -> None:
    where, settings = logs.at(door)

    async def redrive(*asked: str, code: int = 0) -> list[list[str]]:
        ran = await playhead(tmp_path, "operations", "redrive", *asked, *where, settings=settings)
        assert ran.code == code, ran
        return [line.split("\t") for line in ran.out.splitlines()]

    tool = f"print-{door}"
    one, *others = [await logs.failed_follow_up(tool) for _ in range(3)]
    ((operation_id, task_id),) = await redrive(one.id)
    assert operation_id == one.id
    assert task_id != one.task_id
    all_of_them = await redrive("--failed", "--tool", tool)
    assert [operation_id for operation_id, _ in all_of_them] == [each.id for each in reversed(others)]
    assert len({task_id, *(each for _, each in all_of_them)}) == 3
    assert await redrive("--failed", "--tool", "nothing is called so") == []
    shown = await playhead(tmp_path, "operations", "show", one.id, *where, settings=settings)
    by = "command" if door == "stores" else "local"
    assert re.search(rf"^\[redriven at [^]]*\]\nby {by} over http$", shown.out, re.M), shown.out
    assert re.search(rf"^follow-up +task {one.task_id}: failed\nfollow-up +task {task_id}: queued$", shown.out, re.M)
    pending = await logs.begin()
    await redrive(pending.id, code=2)
    await redrive(NO_TASK, code=3)


@pytest.mark.parametrize(
    "asked",
    [(), (NO_TASK, "--failed"), ("--failed", "--dead"), ("--tool", "x"), (NO_TASK, "--reason", "failed"),
     ("--failed", "--reason", "failed"), ("--dead", "--tool", "x"), ("--dead", "--reason", "x")],
    ids=" ".join,
)  # fmt: skip
async def test_what_is_to_be_redriven_is_said_once(playhead: Command, tmp_path: Path, asked: Sequence[str]) -> None:
    ran = await playhead(tmp_path, "operations", "redrive", *asked)
    assert (ran.code, ran.out) == (2, "")


@DOORS
async def test_without_a_broker_there_are_no_dead_letters(
    playhead: Command, tmp_path: Path, logs: Logs, door: str
) -> None:
    where, settings = logs.at(door)
    for asked in (("dead-letters",), ("redrive", "--dead"), ("redrive", "0" * 16)):
        ran = await playhead(tmp_path, "operations", *asked, *where, settings=settings)
        assert (ran.code, ran.out) == (3, "")
        assert "no message broker" in ran.err


# --- sessions ---------------------------------------------------------------------------------------------------------


@DOORS
async def test_a_session_is_made_listed_shown_and_deleted(
    playhead: Command, tmp_path: Path, logs: Logs, door: str
) -> None:
    where, settings = logs.at(door)

    async def sessions(*asked: str) -> str:
        ran = await playhead(tmp_path, "sessions", *asked, *where, settings=settings)
        assert (ran.code, ran.err) == (0, ""), ran
        return ran.out

    session_id = (await sessions("create", "--title", f"Über {door}")).strip()
    listed, as_json, shown, plain = await asyncio.gather(
        sessions("list", "--limit", "1000"),
        sessions("list", "--all", "--json"),
        sessions("show", session_id),
        sessions("show", session_id, "--json"),
    )
    (row,) = [row.split("\t") for row in listed.splitlines() if row.startswith(session_id)]
    owner = "local" if door == "url" else ""
    assert (row[1], row[2], row[-1]) == ("idle", owner, f"Über {door}")
    assert session_id in [session["id"] for session in json.loads(as_json)]
    assert f"title          Über {door}\n" in shown
    assert json.loads(plain)["messages"] == []
    await sessions("delete", session_id)
    gone = [("show", session_id), ("delete", session_id), ("show", "no such"), ("show", "\udcff")]
    runs = await asyncio.gather(*(playhead(tmp_path, "sessions", *each, *where, settings=settings) for each in gone))
    assert [(ran.code, ran.out, ran.err.count("\n")) for ran in runs] == [(3, "", 1)] * 4


async def test_what_was_said_is_shown_and_steers_no_terminal(playhead: Command, tmp_path: Path, logs: Logs) -> None:
    async with Playhead(logs.url) as service:
        session_id = (await service.task(logs.steering))["session_id"]
    show = ("sessions", "show", session_id)
    piped, terminal, as_json = await asyncio.gather(
        playhead(tmp_path, *show, settings={"URL": logs.url}),
        playhead(tmp_path, *show, settings={"URL": logs.url}, terminal=PLAIN),
        playhead(tmp_path, *show, "--json", settings={"URL": logs.url}, terminal=PLAIN),
    )
    for ran in (piped, terminal, as_json):
        assert (ran.code, STEERS & set(ran.out)) == (0, set())
    for ran in (piped, terminal):
        assert f", task {logs.steering}]\n" in ran.out
        assert "\n␛[31mred␛]0;title␇ �31m␡ ␍ back\n" in ran.out


REFUSED: list[Sequence[str]] = [
    ("tasks", "--status", "nonsense"),
    ("tasks", "--limit", "0"),
    ("tasks", "--owner", ""),
    ("tasks", "--owner", "a\nb"),
    ("sessions", "create", "--title", ""),
    ("sessions", "create", "--title", "x" * 201),
    ("sessions", "create", "--title", "a\nb"),
    ("cancel",),
    ("sessions",),
    ("operations",),
    ("operations", "list", "--status", "done"),
    ("operations", "list", "--executor", "me"),
    ("operations", "list", "--tool", ""),
    ("operations", "list", "--tool", "a\nb"),
    ("operations", "show"),
    ("operations", "complete", NO_TASK),
    ("operations", "complete", NO_TASK, "--success", "--failure"),
    ("operations", "complete", NO_TASK, "--success", "--result", "text"),
    ("operations", "complete", NO_TASK, "--success", "--result", "\udcff"),
    ("operations", "complete", NO_TASK, "--success", "--result", "[" * 65 + "]" * 65),
    ("operations", "complete", NO_TASK, "--success", "--message", "x"),
    ("operations", "complete", NO_TASK, "--success", "--error-type", "x"),
    ("operations", "complete", NO_TASK, "--failure", "--result", "1"),
    ("operations", "complete", NO_TASK, "--failure", "--error-type", "Not So"),
    ("operations", "complete", NO_TASK, "--failure", "--message", "x" * 2001),
    ("operations", "complete", NO_TASK, "--failure", "--message", "\udcff"),
]


async def test_what_is_asked_wrongly_is_a_usage_error_and_asks_nobody(playhead: Command, tmp_path: Path) -> None:
    """Nobody answers where they would ask: that had been code 5."""
    settings = {"URL": "http://127.0.0.1:1"}
    runs = await asyncio.gather(*(playhead(tmp_path, *asked, settings=settings) for asked in REFUSED))
    assert [(asked, ran.code) for asked, ran in zip(REFUSED, runs, strict=True)] == [(asked, 2) for asked in REFUSED]
    asked = [("tasks",), ("cancel", NO_TASK), ("sessions", "list"), ("sessions", "show", "s"), ("verify", NO_TASK)]
    asked += [("operations", "list"), ("operations", "complete", NO_TASK, "--success")]
    runs = await asyncio.gather(*(playhead(tmp_path, *each, settings=settings) for each in asked))
    assert [(ran.code, ran.out) for ran in runs] == [(5, "")] * len(asked)


# --- pages, and times -------------------------------------------------------------------------------------------------


async def test_the_stores_are_read_page_by_page_as_far_as_was_asked_for() -> None:
    database = MemoryDatabase()
    made = [database.add_session(OwnerId("ann"), UNSET).id for _ in range(250)]
    tasks = [database.add_turn(session_id, MessageId("m")).id for session_id in made]
    doorbell, messages = MemoryDoorbell(), MemoryMessages(database)
    conversations = Conversations(MemorySessions(database), messages, messages, doorbell)
    stored = MemoryOperations(database)
    operations = Operations(stored, stored, doorbell)
    tasks_of = Tasks(MemoryTasks(database), doorbell)
    door = StoreDoor(conversations, tasks_of, operations, NoDeadLetters(), None)  # type: ignore[arg-type]
    for limit, count in ((None, 250), (1, 1), (100, 100), (101, 101), (200, 200), (1000, 250)):
        assert [session["id"] async for session in door.sessions(limit)] == made[::-1][:count]
        assert [task["id"] async for task in door.tasks(EVERY_TASK, limit)] == tasks[::-1][:count]
    assert [operation async for operation in door.operations(EVERY_OPERATION, None)] == []
    wanted = TaskFilter(session_id=made[3])
    assert [task["id"] async for task in door.tasks(wanted, None)] == [TaskId(tasks[3])]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3, "0 s"), (0.9, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172_800, "2 days")],
)
def test_times_are_told_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
