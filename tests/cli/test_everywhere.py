"""Every subcommand that is about a task, its session or an operation, of a live task and of an archived one, of an
operation that is pending and of one that has ended, on a terminal and in a pipe: the same is told, with the same exit
code, and a pipe has no colour, no cursor and no bar in it."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.client import Playhead, Succeeded
from service.model.ids import OperationId, SessionId, TaskId
from tests.cli.conftest import COLOURS, Command, Logs, said_to

pytestmark = pytest.mark.asyncio(loop_scope="module")

TERMINAL = COLOURS | {"COLUMNS": "120"}
_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


@dataclass(frozen=True)
class Case:
    """A command line, with `{task}`, `{session}` or `{operation}` in it; its exit code; and what it tells, of what is
    live or not."""

    line: str
    live: tuple[int, str]
    archived: tuple[int, str]


CASES = [
    Case("tail {task}", (0, r"[0-9] \n\[succeeded at "), (0, r"[0-9] \n\[succeeded at ")),
    Case("tail {task} --as events", (0, r"(?s)^id: .*\"finish\""), (0, r"(?s)^id: .*\"finish\"")),
    Case("tail {task} --as json", (0, r'"type":"finish"'), (0, r'"type":"finish"')),
    Case("replay {task} --speed max", (0, r"[0-9] \n\[succeeded at "), (0, r"[0-9] \n\[succeeded at ")),
    Case("replay {task} --speed max --as events", (0, r"(?s)^id: .*\"finish\""), (0, r"(?s)^id: .*\"finish\"")),
    Case("replay {task} --speed max --as json", (0, r'"type":"finish"'), (0, r'"type":"finish"')),
    Case("verify {task}", (0, r"proven as far as it is written"), (0, r"read +in the archive(?s:.*)\nproven\n")),
    Case("verify {task} --json", (0, r'"closed": ?false'), (0, r'"proven": ?true')),
    Case("export {task}", (2, r"The log is still written\."), (0, r'"sha256":')),
    Case("export {task} --redact", (2, r"The log is still written\."), (0, r'"redacted":')),
    Case("tasks --session {session}", (0, r"(?s)running.*{task}|{task}.*running"), (0, r"(?s)succeeded")),
    Case("tasks --session {session} --json", (0, r'"status":"running"'), (0, r'"status":"succeeded"')),
    Case("sessions show {session}", (0, r"/(count|wait)"), (0, r"/count")),
    Case("sessions show {session} --json", (0, r'"messages":'), (0, r'"messages":')),
    Case("sessions list", (0, r"{session}"), (0, r"{session}")),
    Case("sessions list --json", (0, r"{session}"), (0, r"{session}")),
    Case("cancel {task}", (0, r"is being ended"), (0, r"succeeded")),
    Case("operations list --session {session}", (0, r"^{operation}"), (0, r"^{operation}")),
    Case("operations list --status pending --json", (0, r'"id":"{operation}"'), (0, r"^\[")),
    Case("operations show {operation}", (0, r"^status +pending$"), (0, r'(?s)^outcome +{"result":{"a":1}}$.*accepted')),
    Case("operations show {operation} --json", (0, r'"outcome":null'), (0, r'"outcome":{"result":{"a":1}}')),
    Case(
        'operations complete {operation} --success --result {"a":1}',
        (0, r"^The operation has succeeded; "),
        (0, r"^The operation had succeeded like this before\.$"),
    ),
    Case(
        "operations complete {operation} --failure --error-type timeout --json",
        (0, r'"status":"failed"'),
        (2, r"^playhead: This operation has ended already, "),
    ),
    Case("operations cancel {operation}", (0, r"is cancelled\.$"), (0, r"is succeeded\.$")),
    Case("operations cancel {operation} --json", (0, r'"status":"cancelled"'), (0, r'"status":"succeeded"')),
    Case("sessions delete {session}", (0, r""), (0, r"")),
]
FOLLOW = ("tail", "replay")
"""These end when their task does: the live one has to."""
CHANGE = ("cancel", "sessions delete")


async def _live(playhead: Playhead, logs: Logs, command: str) -> TaskId:
    """Which runs while it is asked about."""
    if not command.startswith((*FOLLOW, *CHANGE)):
        return logs.running
    task_id = await said_to(playhead, "/count 3 rate=15" if command.startswith(FOLLOW) else "/wait 60")
    async for event in playhead.follow(task_id):
        if event.chunk["type"] == "start-step":
            break
    return task_id


async def _archived(playhead: Playhead, logs: Logs, command: str) -> TaskId:
    if not command.startswith(CHANGE):
        return logs.counted
    task_id = await said_to(playhead, "/count 3")
    while (await playhead.verify(task_id))["read_from"] != "both":
        pass  # each look is a round trip
    return task_id


@pytest.mark.parametrize("place", ["terminal", "pipe"])
@pytest.mark.parametrize("state", ["live", "archived"])
@pytest.mark.parametrize("case", CASES, ids=[case.line for case in CASES])
async def test_it_tells_what_it_should_there(
    playhead: Command, tmp_path: Path, logs: Logs, case: Case, state: str, place: str
) -> None:
    async with Playhead(logs.url) as client:
        is_live = state == "live"
        task_id = await (_live if is_live else _archived)(client, logs, case.line)
        operation_id = ""
        if case.line.startswith("operations"):
            task_id = logs.running
            operation_id = (await logs.begin()).id
            if not is_live:
                await client.complete(OperationId(operation_id), Succeeded({"a": 1}))
        session_id = SessionId((await client.task(task_id))["session_id"])
        named = {"{task}": task_id, "{session}": session_id, "{operation}": operation_id}
        arguments = [named.get(word, word) for word in case.line.split(" ")]
        terminal = TERMINAL if place == "terminal" else None
        ran = await playhead(tmp_path, *arguments, settings={"URL": logs.url}, terminal=terminal)
    code, told = case.live if is_live else case.archived
    assert ran.code == code, (ran.out, ran.err)
    for name, value in named.items():
        told = told.replace(name, value)
    assert re.search(told, _STEERING.sub("", ran.out) + ran.err, re.MULTILINE), (ran.out, ran.err)
    assert "Traceback" not in ran.out + ran.err
    if place == "pipe":
        assert "\x1b" not in ran.out + ran.err
        assert "\r" not in ran.out + ran.err
