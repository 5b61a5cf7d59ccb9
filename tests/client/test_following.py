"""Following a service that misbehaves: whatever it does, each event is given out once, or it is said why not."""

import asyncio
import tracemalloc
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import cycle

import pytest
from aiohttp import web

from service.client import (
    Event,
    Forbidden,
    Gap,
    Gone,
    NoSuchThing,
    NotUnderstood,
    Pace,
    Patience,
    Playhead,
    Refused,
    Unauthenticated,
    Unreachable,
)
from service.model.errors import NotFound
from service.model.events import GapData
from service.model.ids import TaskId
from service.model.position import BEGINNING, Position
from tests.client.misbehaving import (
    DONE,
    FINISH,
    Answer,
    Misbehaving,
    frame,
    frames,
    gap,
    misbehaving,
    said,
    status,
    stream,
)

TASK = TaskId("t")
QUICK = Patience(silence_seconds=0.15, first_pause_seconds=0.01, longest_pause_seconds=0.05, give_up_seconds=0.5)
END = frame(6, FINISH)
LOG = [(f"1000-{n}", said(n)) for n in range(1, 6)] + [("1000-6", FINISH)]
WHOLE = stream(frames(1, 5), END, DONE)


def pairs(events: list[Event]) -> list[tuple[str, bytes]]:
    return [(str(event.position), event.data) for event in events]


async def follow(
    service: Misbehaving, after: Position = BEGINNING, patience: Patience = QUICK, pace: Pace | None = None
) -> list[Event]:
    async with Playhead(service.url, patience=patience, pace=pace or Pace()) as playhead:
        return [event async for event in playhead.follow(TASK, after)]


async def test_a_log_comes_as_it_is_and_ends_with_its_terminal_event() -> None:
    async with misbehaving(stream(b"retry: 10\n", frames(1, 5), END, b"id: 1000-7\ndata: junk\n\n")) as service:
        events = await follow(service)
    assert pairs(events) == LOG
    assert events[0].chunk == {"type": "text-delta", "id": "p1", "delta": "1 "}
    assert [request.path for request in service.asked] == ["/tasks/t/stream"]
    assert service.positions == [None]


async def test_who_begins_in_the_middle_says_so() -> None:
    async with misbehaving(stream(frames(4, 5), END)) as service:
        assert pairs(await follow(service, Position(1000, 3))) == LOG[3:]
    assert service.positions == ["1000-3"]


REST = frames(1, 5) + END
CUTS = sorted({*range(0, len(REST), 29), len(frames(1, 1)) - 1, len(frames(1, 1)), len(frames(1, 5)) - 1})


@pytest.mark.parametrize("then", ["cut", "ends", "silent"])
async def test_a_connection_that_is_lost_anywhere_costs_nothing(then: str) -> None:
    """In the middle of a frame too: what was cut is not given out, and comes whole from the next connection."""
    cuts = CUTS if then != "silent" else [len(frames(1, 2)) - 2]
    for cut in cuts:
        known = REST[:cut].count(b"\n\n")
        async with misbehaving(stream(REST[:cut], then=then), stream(frames(known + 1, 5), END)) as service:
            assert pairs(await follow(service)) == LOG
        assert service.positions == [None, f"1000-{known}" if known else None]


@pytest.mark.parametrize("code", [500, 502, 503, 504, 429])
async def test_a_service_that_cannot_now_is_asked_again(code: int) -> None:
    async with misbehaving(status(code), stream(frames(1, 2), then="cut"), status(code), WHOLE) as service:
        assert pairs(await follow(service)) == LOG
    assert service.positions == [None, None, "1000-2", "1000-2"]


async def test_what_comes_again_is_given_out_once() -> None:
    """And one connection after another may repeat it."""
    async with misbehaving(stream(frames(1, 3), frames(2, 4), then="cut"), WHOLE) as service:
        assert pairs(await follow(service)) == LOG


@dataclass
class Unhurried:
    """A clock that only goes on while somebody sleeps, and whose dice are thrown already."""

    rolls: Iterator[float] = field(default_factory=lambda: cycle([1.0]))
    now: float = 0.0
    pauses: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(round(seconds, 3))
        self.now += seconds

    @property
    def pace(self) -> Pace:
        return Pace(lambda: self.now, self.sleep, lambda: next(self.rolls))


async def test_pauses_grow_and_are_drawn_and_begin_anew_with_a_sign_of_life() -> None:
    clock, patience = Unhurried(cycle([0.0, 1.0])), Patience(first_pause_seconds=1, longest_pause_seconds=16)
    answers = [status(503)] * 6 + [stream(b"retry: 3000\n", b": hb\n"), status(503), WHOLE]
    async with misbehaving(*answers) as service:
        assert pairs(await follow(service, patience=patience, pace=clock.pace)) == LOG
    assert clock.pauses == [0.5, 2, 2, 8, 8, 16, 1.5, 6]


async def test_the_pause_is_at_least_what_the_service_asks_for_but_not_without_end() -> None:
    clock, patience = Unhurried(), Patience(first_pause_seconds=1, longest_pause_seconds=16)
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    nonsense = ["soon", "-1", "Sun, 99 Nov 1994 08:49:37 GMT", in_a_minute.removesuffix(" GMT")]
    answers = [status(503, Retry_After=asked) for asked in ("7", in_a_minute, *nonsense)]
    async with misbehaving(*answers, stream(b"retry: 999999999\n"), WHOLE) as service:
        assert pairs(await follow(service, patience=patience, pace=clock.pace)) == LOG
    seven, sixty, *others, last = clock.pauses
    assert (seven, others, last) == (7, [4, 8, 16, 16], 16)
    assert 55 < sixty <= 60


@pytest.mark.parametrize(
    "answer", [status(503), stream(frames(1, 5)), stream(b"retry: 1\n")], ids=["away", "the same again", "empty"]
)
async def test_who_gets_no_further_gives_up_within_the_stated_time(answer: Answer) -> None:
    clock = Unhurried()
    async with misbehaving(answer) as service:
        with pytest.raises(Unreachable, match="cannot be followed any more: it "):
            await follow(service, Position(1000, 5), Patience(), clock.pace)
    assert 180 - 15 < clock.now <= 180
    assert 10 < len(service.asked) < 20


async def test_who_is_asked_to_wait_longer_than_that_gives_up_at_once() -> None:
    clock = Unhurried()
    async with misbehaving(status(429, Retry_After="181")) as service:
        with pytest.raises(Unreachable, match="it answers 429"):
            await follow(service, BEGINNING, Patience(), clock.pace)
    assert (clock.pauses, len(service.asked)) == ([], 1)


async def test_a_service_that_is_silent_or_not_there_is_given_up() -> None:
    async with misbehaving(stream(then="silent")) as service:
        with pytest.raises(Unreachable, match="it was silent"):
            await follow(service)
        assert len(service.asked) > 1
    with pytest.raises(Unreachable, match="it cannot be reached"):
        await follow(service)


async def test_heartbeats_are_a_sign_of_life_and_a_slow_consumer_is_no_silence() -> None:
    clock, patience = Unhurried(), Patience(first_pause_seconds=100, longest_pause_seconds=100)
    async with (
        misbehaving(*[stream(b": hb\n")] * 4, stream(frames(1, 2)), WHOLE) as service,
        Playhead(service.url, patience=patience, pace=clock.pace) as playhead,
    ):
        got = []
        async for event in playhead.follow(TASK):
            got.append(event)
            await clock.sleep(1000)
    assert pairs(got) == LOG
    assert len(service.asked) == 6


async def collect(playhead: Playhead, got: list[Event]) -> None:
    """Follow into a list, which has what came before an error."""
    async for event in playhead.follow(TASK):
        got.append(event)  # noqa: PERF401 - as said


GAPS = {
    "an event is missing": (frames(1, 3) + frame(5), GapData("1000-3", "1000-5", "1000-5", 1)),
    "its beginning is missing": (frame(3), GapData("0-0", "1000-3", "1000-3", 2)),
    "an event was replaced": (frames(1, 3) + frame(3, ms=2000), GapData("1000-3", "2000-3", "2000-3", 0)),
    "time goes back": (frames(1, 3) + frame(4, ms=999), GapData("1000-3", "999-4", "999-4", 0)),
    "the service tells": (gap("1-1", "0-0", "0-0", 0), GapData("1-1", "0-0", "0-0", 0)),
    "the service tells later": (frames(1, 3) + gap("1000-3", "2-1", "2-9", 5), GapData("1000-3", "2-1", "2-9", 5)),
}


@pytest.mark.parametrize(("sent", "data"), GAPS.values(), ids=GAPS)
async def test_a_gap_is_told_and_not_passed_over(sent: bytes, data: GapData) -> None:
    async with misbehaving(stream(sent, END)) as service, Playhead(service.url, patience=QUICK) as playhead:
        got: list[Event] = []
        with pytest.raises(Gap) as raised:
            await collect(playhead, got)
    assert raised.value.data == data
    assert pairs(got) == LOG[: len(got)]
    assert len(got) == (3 if sent.startswith(frames(1, 3)) else 0)
    assert len(service.asked) == 1


JUNK = {
    "no JSON": frame(1, b"junk"),
    "no object": frame(1, b"[1]"),
    "no type": frame(1, b'{"delta":"x"}'),
    "no UTF-8": frame(1, b'{"type":"\xff"}'),
    "no position": b"id: one\ndata: " + said(1) + b"\n\n",
    "a position of other digits": "id: \u0661-\u0661\ndata: ".encode() + said(1) + b"\n\n",
    "junk beside the log": b"data: <html>\n\n",
    "a gap without fields": b'data: {"type":"data-gap","data":{"lost":1}}\n\n',
    "the end without a terminal event": DONE,
    "an endless line": b"data: " + b"x" * 1_200_000,
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
async def test_junk_is_an_error_at_once(junk: bytes) -> None:
    async with misbehaving(stream(junk, then="silent")) as service:
        with pytest.raises(NotUnderstood):
            await follow(service)
    assert len(service.asked) == 1


async def test_what_is_made_up_and_new_is_passed_over() -> None:
    """It has no position, so it is no event."""
    made_up = b'event: x\ndata: {"type":"data-new"}\n\n'
    async with misbehaving(stream(made_up, frames(1, 2), made_up, frames(3, 5), END)) as service:
        assert pairs(await follow(service)) == LOG


async def test_events_of_types_that_are_new_are_given_out() -> None:
    new = b'{"type":"data-new","data":null}'
    async with misbehaving(stream(frame(1, new), frame(2, FINISH))) as service:
        assert pairs(await follow(service)) == [("1000-1", new), ("1000-2", FINISH)]


async def test_who_has_the_end_gets_nothing() -> None:
    async with misbehaving(status(204)) as service:
        assert await follow(service, Position(1000, 6)) == []
    assert len(service.asked) == 1


PROBLEM = b'{"title":"T","status":%d,"detail":"Told so.","error_type":"why","requested":"1-1","type":"about:blank"}'


@pytest.mark.parametrize(
    ("code", "kind"), [(400, Refused), (401, Unauthenticated), (403, Forbidden), (404, NoSuchThing), (410, Gone)]
)
async def test_a_refusal_is_an_error_of_its_own_with_what_the_service_says(code: int, kind: type[Refused]) -> None:
    problem = status(code, PROBLEM % code, Content_Type="application/problem+json")
    async with misbehaving(stream(frames(1, 2)), problem) as service:
        with pytest.raises(Refused, match="Told so") as raised:
            await follow(service)
    assert type(raised.value) is kind
    assert isinstance(raised.value, NotFound) == (code == 404)
    told = raised.value.problem
    assert (told.status, told.title, told.error_type) == (code, "T", "why")
    assert told.members == {"type": "about:blank", "requested": "1-1"}
    assert raised.value.error_type == "why"
    assert len(service.asked) == 2


@pytest.mark.parametrize(
    "answer",
    [
        stream(frames(1, 6), content_type="text/html"),
        status(302, Location="/elsewhere"),
        status(202),
        status(206),
    ],
    ids=["no event stream", "a redirect", "202", "206"],
)
async def test_what_is_no_such_service_is_said_to_be_none(answer: Answer) -> None:
    async with misbehaving(answer) as service:
        with pytest.raises(NotUnderstood):
            await follow(service)
    assert len(service.asked) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"x" * 2_000_000], ids=["none", "HTML", "an array", "long"])
async def test_a_refusal_without_a_problem_is_one_too(body: bytes) -> None:
    async with misbehaving(status(404, body, Content_Type="application/problem+json")) as service:
        with pytest.raises(NoSuchThing, match="404 Not Found"):
            await follow(service)


async def test_who_stops_reading_stops_the_service() -> None:
    """What a reader costs is what kernels and its connection buffer, not the log."""
    sent, stuck = 0, asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            piece = frames(sent + 1, sent + 1000)
            try:
                async with asyncio.timeout(0.3):
                    await response.write(piece)
            except TimeoutError:
                stuck.set()
                await asyncio.Event().wait()
            sent += 1000

    async with (
        misbehaving(endless) as service,
        Playhead(service.url) as playhead,
        aclosing(playhead.follow(TASK)) as events,
    ):
        first = await anext(events)
        tracemalloc.start()
        await stuck.wait()
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
        tracemalloc.stop()
        assert (first.position.n, (await anext(events)).position.n) == (1, 2)
