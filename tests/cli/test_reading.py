"""The commands that read logs, against a running service and its stores: what they print, and how they end."""

import asyncio
import json
import os
import pty
import sys
import tracemalloc
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import aiohttp
import pytest

from service.cli import demo, replay
from service.cli.exits import NOT_PROVEN, ProofFailed, code_of
from service.cli.shown import Form
from service.client import Event, Gap, NoSuchThing, Patience, Playhead
from service.model.ids import MessageId, SessionId, TaskId
from service.model.position import Position
from service.model.session import Posted
from tests.acceptance.proxy import cutting_proxy
from tests.cli.conftest import COLOURS, NO_TASK, PLAIN, STEERING, Command, Logs, environment_of, said_to
from tests.client.misbehaving import FINISH, misbehaving, said, status

pytestmark = pytest.mark.asyncio(loop_scope="module")

HASTY = Patience(first_pause_seconds=0.05, longest_pause_seconds=0.05)


# --- the client -------------------------------------------------------------------------------------------------------


async def test_a_log_that_is_cut_again_and_again_is_the_log(logs: Logs) -> None:
    """Live, through a proxy that cuts each connection in the middle of anything."""
    async with cutting_proxy(logs.url, [350, 700, 1000, 900, 1, 800]) as proxy:
        async with Playhead(logs.url) as direct, Playhead(proxy.url, patience=HASTY) as cut:
            task_id = await said_to(direct, "/count 20 rate=20")
            through = [event async for event in cut.follow(task_id)]
            assert through == [event async for event in direct.follow(task_id)]
        assert proxy.cuts == 6
    assert [event.position.n for event in through] == list(range(1, len(through) + 1))


async def test_the_bytes_are_those_of_the_stream(logs: Logs) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{logs.url}/tasks/{logs.counted}/stream") as answer:
        body = await answer.read()
    assert body == b"retry: 1000\n" + logs.frames + b"data: [DONE]\n\n"


async def test_a_task_is_cancelled_and_what_there_is_not_is_told(logs: Logs) -> None:
    async with Playhead(logs.url) as playhead:
        task_id = await said_to(playhead, "/wait 60")
        assert (await playhead.cancel(task_id))["cancel_requested_at"]
        *_, end = [event async for event in playhead.follow(task_id)]
        assert end.chunk["messageMetadata"]["status"] == (await playhead.task(task_id))["status"] == "cancelled"
        assert [event async for event in playhead.follow(task_id, end.position)] == []
        with pytest.raises(NoSuchThing) as refused:
            await playhead.task(TaskId(NO_TASK))
        assert refused.value.problem.error_type == "not_found"
        with pytest.raises(NoSuchThing):
            await anext(playhead.follow(TaskId(NO_TASK)))
        with pytest.raises(Gap) as gap:
            await anext(playhead.follow(task_id, Position(5, 5)))
        assert (gap.value.data.requested, gap.value.data.latest) == ("5-5", str(end.position))


# --- tail and replay --------------------------------------------------------------------------------------------------


def lines_of(events: list[Event]) -> list[dict[str, Any]]:
    return [{"id": str(event.position), "data": event.chunk} for event in events]


@pytest.mark.parametrize("door", ["url", "stores"])
async def test_a_log_is_printed_in_each_form_whatever_door_it_comes_through(
    playhead: Command, tmp_path: Path, logs: Logs, door: str
) -> None:
    where, settings = logs.at(door)
    middle, behind = str(logs.events[7].position), logs.events[8:]
    kinds = [("tail",), ("replay", "--speed", "max")]
    text, again, events, as_json, rest = await asyncio.gather(
        *(playhead(tmp_path, *kind, logs.counted, *where, settings=settings) for kind in kinds),
        playhead(tmp_path, "tail", logs.counted, *where, "--as", "events", settings=settings),
        playhead(tmp_path, "replay", logs.counted, *where, "--speed", "max", "--as", "json", settings=settings),
        playhead(tmp_path, "tail", logs.counted, *where, "--as", "json", "--after", middle, settings=settings),
    )
    assert [(ran.code, ran.err) for ran in (text, again, events, as_json, rest)] == [(0, "")] * 5
    assert events.out.encode() == logs.frames
    assert [json.loads(line) for line in as_json.out.splitlines()] == lines_of(logs.events)
    assert [json.loads(line) for line in rest.out.splitlines()] == lines_of(behind)
    numbers = " ".join(str(n) for n in range(1, 13))
    end = logs.events[-1].position
    assert text.out == again.out == f"> /reason Well\n> /count 12 rate=40\nWell\n{numbers} \n[succeeded at {end}]\n"


async def test_a_stretch_is_replayed_with_both_its_ends_and_in_its_time(
    playhead: Command, tmp_path: Path, logs: Logs
) -> None:
    stretch = logs.events[5:15]
    first, last = stretch[0].position, stretch[-1].position
    asked = ("--from", str(first), "--until", str(last), "--as", "json")

    async def timed(speed: str) -> tuple[float, str]:
        began = asyncio.get_running_loop().time()
        ran = await playhead(tmp_path, "replay", logs.counted, *asked, "--speed", speed, settings={"URL": logs.url})
        assert (ran.code, ran.err) == (0, "")
        return asyncio.get_running_loop().time() - began, ran.out

    span = (last.ms - first.ms) / 1000
    assert span > 0.1
    for speed, least in (("1x", span), ("2x", span / 2), ("max", 0)):
        seconds, out = await timed(speed)
        assert [json.loads(line) for line in out.splitlines()] == lines_of(stretch)
        assert seconds >= least


async def test_every_end_has_its_exit_code(playhead: Command, tmp_path: Path, logs: Logs) -> None:
    tail, stores = ("tail", logs.counted), ("tail", logs.counted, "--stores")
    here, nowhere = {"URL": logs.url}, {"URL": "http://127.0.0.1:1"}
    elsewhere = f"1-{logs.events[3].position.n}"
    asked: list[tuple[tuple[str, ...], dict[str, str], int]] = [
        (("tail", logs.failed), here, 1),
        (("tail", logs.failed, "--stores"), logs.stores, 1),
        (("tail", logs.failed, "--after", str(logs.events[-1].position)), here, 4),
        (("replay", logs.failed, "--speed", "max"), here, 1),
        ((*tail, "--after", "x"), here, 2),
        (("replay", logs.counted, "--speed", "max", "--from", elsewhere), here, 2),
        (("replay", logs.counted, "--speed", "max", "--until", elsewhere), here, 2),
        (("replay", logs.counted, "--speed", "max", "--until", "1-999999"), here, 2),
        (("replay", logs.counted, "--speed", "max", "--from", "1-999999"), here, 2),
        (("replay", logs.counted, "--from", "1-2", "--until", "1-1"), here, 2),
        (stores, here, 2),
        ((*stores, "--url", logs.url), logs.stores, 2),
        (tail, {"URL": "somewhere"}, 2),
        ((*tail, "--url", "http://u:hunter2@h"), {}, 2),
        ((*tail, "--token", "hunter2 "), here, 2),
        (tail, {"TOKEN": "hunter2\n"}, 2),
        (tail, {"HTTP_PORT": "0"}, 2),
        (("tail", NO_TASK), here, 3),
        (("tail", "nonsense"), here, 3),
        (("tail", NO_TASK, "--stores"), logs.stores, 3),
        (("tail", "nonsense", "--stores"), logs.stores, 3),
        ((*tail, "--after", "5-5"), here, 4),
        ((*stores, "--after", "5-5"), logs.stores, 4),
        (tail, nowhere, 5),
        (("demo",), nowhere, 5),
    ]
    runs = await asyncio.gather(*(playhead(tmp_path, *words, settings=settings) for words, settings, _ in asked))
    for (words, _, code), ran in zip(asked, runs, strict=True):
        assert ran.code == code, (words, ran)
        if code == 1:
            assert "[code:validation_error]" in ran.out
            assert "[failed at " in ran.out
        else:
            assert ran.err.startswith("playhead: "), (words, ran)
            assert (ran.err.count("\n"), "hunter2" in ran.err) == (1, False)


async def test_a_refusal_is_a_line_that_cannot_steer_a_terminal(playhead: Command, tmp_path: Path) -> None:
    problem = json.dumps({"detail": f"No. {STEERING}\nNo."}).encode()
    async with misbehaving(status(401, problem, Content_Type="application/problem+json")) as service:
        settings = {"URL": service.url, "TOKEN": "hunter2"}
        ran = await playhead(tmp_path, "tail", NO_TASK, settings=settings)
        assert [request.headers["Authorization"] for request in service.asked] == ["Bearer hunter2"]
    assert ran.code == 2
    assert not {"\x1b", "\x9b", "\x07", "\r"} & set(ran.err)
    assert ran.err.count("\n") == 1


# --- terminals and pipes ----------------------------------------------------------------------------------------------


async def test_what_a_model_says_cannot_steer_a_terminal(playhead: Command, tmp_path: Path, logs: Logs) -> None:
    settings = {"URL": logs.url}
    tail, demo = ("tail", logs.steering, "--as"), ("demo", "--text", "/say Here\n/wait 60")
    coloured, as_json, interrupted = await asyncio.gather(
        playhead(tmp_path, *tail, "text", settings=settings, terminal=COLOURS),
        playhead(tmp_path, *tail, "json", settings=settings, terminal=PLAIN),
        playhead(tmp_path, *demo, settings=settings, terminal=PLAIN, interrupt_at="\r\nHere"),
    )
    async with Playhead(logs.url) as service:  # else the service waits for it when it stops
        await service.cancel(TaskId(interrupted.out.partition(" Task ")[2].partition(" ")[0]))
    assert (coloured.code, as_json.code, interrupted.code) == (0, 0, 130)
    pictured = "␛[31mred␛]0;title␇ �31m␡ ␍ back"
    assert f"\n{pictured}\n" in coloured.out
    assert not {"\x1b", "\x9b", "\x07", "\x7f"} & set(as_json.out)
    assert "\x1b[2m[succeeded" in coloured.out
    for its_own in ("\x1b[31m", "\x1b]0", "\x9b", "\x07", "\x7f"):
        assert its_own not in coloured.out
    assert "Traceback" not in interrupted.out
    assert "Error" not in interrupted.out


async def test_a_terminal_that_lacks_characters_is_shown_the_others(logs: Logs) -> None:
    ours, its = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "tail", logs.steering),
        env=environment_of({"URL": logs.url}) | {"PYTHONIOENCODING": "ascii"},
        stdout=its,
        stderr=its,
    )
    os.close(its)
    assert await process.wait() == 0
    shown = os.read(ours, 65536)
    os.close(ours)
    assert shown.startswith(b"> /say ?[31mred?]0;title? ?31m? ? back\r\n")


async def test_a_pipe_that_is_closed_and_a_full_disk_end_it_without_a_traceback(logs: Logs) -> None:
    command = f"{sys.executable} -m service tail {logs.counted} --as events"
    script = f"{command} | head -c 10; echo; echo ${{PIPESTATUS[0]}}; {command} >/dev/full; echo $?"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script),
        env=environment_of({"URL": logs.url}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    # The pipe holds it all where its reader is slow to go.
    assert out in (logs.frames[:10] + b"\n141\n2\n", logs.frames[:10] + b"\n0\n2\n")
    assert err == b"playhead: standard output: cannot be written: No space left on device\n"


# --- demo -------------------------------------------------------------------------------------------------------------


async def test_the_demo_cuts_itself_twice_and_proves_that_nothing_is_missing(
    playhead: Command, tmp_path: Path, logs: Logs
) -> None:
    text = ("--text", "/count 40 rate=40")
    shown, as_json, direct, failed = await asyncio.gather(
        playhead(tmp_path, "demo", *text, settings={"URL": logs.url}),
        playhead(tmp_path, "demo", *text, "--json", settings={"URL": logs.url}),
        playhead(tmp_path, "demo", *text, "--stores", settings=logs.stores),
        playhead(tmp_path, "demo", "--text", "/fail validation_error", settings={"URL": logs.url}),
    )
    assert shown.code == 0, shown
    assert shown.out.count("--- cut; ") == 2
    assert "Nothing is missing and nothing came twice" in shown.out
    assert (as_json.code, as_json.err) == (0, "")
    told = json.loads(as_json.out)
    assert [Position.parse(cut).n for cut in told["cuts"]] == [12, 24]
    assert (told["status"], told["events"] > 24, len(told["sha256"])) == ("succeeded", True, 64)
    assert (direct.code, direct.err) == (0, "")
    assert direct.out.count("--- cut; ") == 2
    assert failed.code == 1
    assert "too short for 2 cuts" in failed.out
    assert "Nothing is missing" in failed.out


@dataclass
class Scripted:
    """A door behind which each reading gets what it is told to; no reading asks twice."""

    readings: list[list[Event]]

    async def create_session(self) -> SessionId:
        return SessionId("s")

    async def post(self, session_id: SessionId, message: str) -> Posted:
        return Posted(TaskId("t"), MessageId("m"))

    async def task(self, task_id: TaskId) -> dict[str, Any]:
        return {"status": "running"}

    async def follow(self, task_id: TaskId, after: Position) -> AsyncGenerator[Event]:
        for event in self.readings.pop(0):
            yield event


def event(n: int, data: bytes | None = None) -> Event:
    data = data or said(n)
    return Event(Position(1000, n), json.loads(data), data)


TRUTH = [*(event(n) for n in range(1, 30)), event(30, FINISH)]
PIECES = [TRUTH[:12], TRUTH[12:24], TRUTH[24:]]
LIES: dict[str, list[list[Event]]] = {
    "an event is missing": [PIECES[0], PIECES[1][1:], PIECES[2], TRUTH],
    "an event came twice": [PIECES[0], TRUTH[11:24], PIECES[2], TRUTH],
    "a byte is another": [PIECES[0], PIECES[1], PIECES[2], [*TRUTH[:3], event(4, b'{"type":"x"}'), *TRUTH[4:]]],
    "a position is another": [*PIECES, [replace(TRUTH[0], position=Position(999, 1)), *TRUTH[1:]]],
    "the log has less": [*PIECES, TRUTH[:-1]],
    "its beginning is missing": [TRUTH[5:12], PIECES[1], PIECES[2], TRUTH[5:]],
    "something follows the end": [*PIECES, [*TRUTH, event(31)]],
    "it has no end": [PIECES[0], PIECES[1], [], TRUTH],
}


@pytest.mark.parametrize("readings", LIES.values(), ids=LIES)
async def test_a_demo_that_is_shown_another_log_says_so(
    readings: list[list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "AWAY_SECONDS", 0)
    assert await demo._demo("x", Scripted([*PIECES, TRUTH]), as_json=True) == 0
    with pytest.raises(ProofFailed) as raised:
        await demo._demo("x", Scripted([*readings]), as_json=True)
    assert code_of(raised.value) == NOT_PROVEN


# --- a bar, and memory ------------------------------------------------------------------------------------------------


class Long(Scripted):
    """A log of 50,000 events that nobody holds."""

    async def follow(self, task_id: TaskId, after: Position) -> AsyncGenerator[Event]:
        words = event(1)
        for n in range(1, 50_000):
            yield Event(Position(1000, n), words.chunk, words.data)
        yield event(50_000, FINISH)


async def test_a_long_replay_into_a_file_has_a_bar_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours, its = pty.openpty()
    monkeypatch.setattr(replay, "LONG_SECONDS", 0)
    monkeypatch.setattr(replay, "BETWEEN_SECONDS", 0)
    with (tmp_path / "out").open("w") as out, open(its, "w") as terminal:  # noqa: ASYNC230 - a terminal
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", terminal)
        stretch = replay.Stretch(None, None)
        code = await replay._replay(TaskId("t"), stretch, replay.Speed.MAX, Form.TEXT, Scripted([TRUTH]))
        shown = os.read(ours, 65536)
    os.close(ours)
    assert code == 0
    assert b" events" in shown
    assert (tmp_path / "out").read_text() == "".join(f"{n} " for n in range(1, 30)) + "\n[succeeded at 1000-30]\n"


@pytest.fixture
def nowhere() -> Iterator[TextIO]:
    with Path(os.devnull).open("w") as opened:
        yield opened


async def test_a_long_log_is_replayed_in_steady_memory(monkeypatch: pytest.MonkeyPatch, nowhere: TextIO) -> None:
    monkeypatch.setattr(sys, "stdout", nowhere)
    tracemalloc.start()
    code = await replay._replay(TaskId("t"), replay.Stretch(None, None), replay.Speed.MAX, Form.TEXT, Long([]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (code, peak < 256 * 1024) == (0, True), peak
