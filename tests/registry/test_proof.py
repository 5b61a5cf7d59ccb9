"""The proof of a log: a whole one is proven wherever it is, and whatever is done to it is found, at its place."""

import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.adapters.memory_database import TaskRow
from service.adapters.memory_tasks import MemoryTasks
from service.model import events as e
from service.model.chain import BEFORE_THE_FIRST, Row, link
from service.model.check import LogCheck
from service.model.encoding import encode
from service.model.errors import LogUnavailable, NotFound
from service.model.ids import Epoch, MessageId, PartId, SessionId, TaskId
from service.model.log import Head, Page, StoredEvent
from service.model.position import Position
from service.model.task import Task
from service.model.verdict import MAX_FINDINGS
from service.registry.proof import FIRST_PAGE_EVENTS, MAX_PAGE_EVENTS, Prover
from tests.contracts.archives import now_ms, task_made_at
from tests.registry.proofs import USAGE, Bench, bench, kinds, turn

EVENTS = 17


@pytest.fixture
async def house() -> AsyncIterator[Bench]:
    async with bench() as made:
        yield made


# --- what is whole ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["hot", "both", "archived"])
async def test_a_whole_log_is_proven_wherever_it_is(house: Bench, where: str) -> None:
    task_id: TaskId = await getattr(house, where)()
    verdict = await house.prove(task_id)
    assert verdict.is_proven, verdict.findings
    assert (verdict.read_from, verdict.closed, verdict.events) == (where, True, EVENTS)
    assert (verdict.first and verdict.first.n, verdict.last and verdict.last.n) == (1, EVENTS)


async def test_the_sha256_is_that_of_the_frames(house: Bench) -> None:
    task_id = await house.both()
    expected = BEFORE_THE_FIRST
    for event in house.events(task_id):
        expected = link(expected, event)
    assert (await house.prove(task_id)).sha256 == expected
    seal = await house.library.archive.seal_of(task_id)
    assert seal is not None
    assert seal.link == expected


async def test_an_open_log_is_proven_as_far_as_it_is(house: Bench) -> None:
    task = house.task()
    for upto in range(EVENTS):
        chunks = turn(task)[:upto]
        house.library.store.forget(task.id)
        await house.write(task, chunks, "running")
        verdict = await house.prove(task.id)
        assert verdict.is_proven, (upto, verdict.findings)
        assert (verdict.closed, verdict.events) == (False, upto)
        assert verdict.read_from == ("hot" if upto else "nowhere")


async def test_a_task_that_has_ended_may_still_owe_its_log_the_ending(house: Bench) -> None:
    task = house.task()
    await house.write(task, turn(task)[:-1], "succeeded")
    house.library.archive.know(task.id, log_closed=False)
    assert (await house.prove(task.id)).is_proven


async def test_a_log_that_failed_may_have_a_call_without_a_result(house: Bench) -> None:
    task = house.task()
    failed = e.FinishMetadata(task.id, "failed", "", e.Usage(1, 2), "", "")
    ending: list[e.Chunk] = [
        e.FinishStep(),
        e.MessageMetadata(e.FailureMetadata(task.id, "failed", "timeout")),
        e.Error("[code:timeout] Too slow."),
        e.Finish("error", failed),
    ]
    await house.write(task, [*turn(task)[:5], *ending], "failed")
    row = house.database.tasks[task.id]
    row.task = replace(row.task, usage=e.Usage(1, 2), error_type="timeout")
    assert (await house.prove(task.id)).is_proven


async def test_of_what_there_is_not_nothing_is_proven(house: Bench) -> None:
    with pytest.raises(NotFound):
        await house.prove(task_made_at(now_ms()))


async def test_a_hot_copy_that_goes_while_it_is_compared_is_not_missed(house: Bench) -> None:
    task = house.task()
    await house.write(task, turn(task, words=3 * FIRST_PAGE_EVENTS))
    await house.library.archivist.archive_some()
    read, reads = house.library.store.read, 0

    async def read_and_lose(task_id: TaskId, after: Position, count: int) -> Page:
        nonlocal reads
        reads += 1
        if reads == 2:
            house.library.store.forget(task_id)
        return await read(task_id, after, count)

    house.library.store.read = read_and_lose  # type: ignore[method-assign]
    verdict = await house.prove(task.id)
    assert verdict.is_proven, verdict.findings
    assert (reads, verdict.read_from) == (2, "both")


async def test_a_log_that_is_archived_while_it_is_read_is_read_again(house: Bench) -> None:
    task_id = await house.hot()
    read = house.library.store.read

    async def archive_and_lose(task_id: TaskId, after: Position, count: int) -> Page:
        house.library.store.read = read  # type: ignore[method-assign]
        await house.library.archivist.archive_some()
        house.library.store.forget(task_id)
        return await read(task_id, after, count)

    house.library.store.read = archive_and_lose  # type: ignore[method-assign]
    verdict = await house.prove(task_id)
    assert verdict.is_proven, verdict.findings
    assert (verdict.read_from, verdict.events) == ("archived", EVENTS)


async def test_a_store_that_is_away_is_no_finding(house: Bench) -> None:
    task_id = await house.both()

    async def away(*_: object) -> Page:
        raise LogUnavailable

    house.library.store.read = away  # type: ignore[method-assign]
    with pytest.raises(LogUnavailable):
        await house.prove(task_id)


# --- what is not: in the archive --------------------------------------------------------------------------------------

Tamper = Callable[[list[Row]], object]


def flip(rows: list[Row]) -> None:
    n, ms, data = rows[9]
    rows[9] = (n, ms, data.replace(b"Only", b"Onlx"))


def swap_words(rows: list[Row]) -> None:
    (n, ms, data), (n2, ms2, data2) = rows[9:11]
    rows[9:11] = [(n, ms, data2), (n2, ms2, data)]


def swap(rows: list[Row]) -> None:
    """At one time, so that only the numbers tell."""
    (n, ms, data), (n2, _, data2) = rows[9:11]
    rows[9:11] = [(n2, ms, data2), (n, ms, data)]


def move(rows: list[Row]) -> None:
    n, ms, data = rows[9]
    rows[9:] = [(n, ms + 1, data), *((n, ms + 1, data) for n, ms, data in rows[10:])]


def back(rows: list[Row]) -> None:
    n, _, data = rows[9]
    rows[9] = (n, 1, data)


def double(rows: list[Row]) -> None:
    rows.insert(9, rows[9])


def finish_again(rows: list[Row]) -> None:
    n, ms, data = rows[-1]
    rows.append((n + 1, ms, data))


def say_more(rows: list[Row]) -> None:
    n, ms, _ = rows[-1]
    rows.append((n + 1, ms, encode(e.StartStep())))


TAMPERED: list[tuple[Tamper, list[tuple[str, int | None]]]] = [
    (flip, [("finish_disagrees", 17), ("wrong_sha256", 17)]),
    (lambda rows: rows.pop(9), [("missing_events", 11), ("wrong_sha256", 17), ("wrong_end", 17)]),
    (lambda rows: rows.pop(0), [("missing_events", 2), ("wrong_sha256", 17), ("wrong_end", 17)]),
    (
        lambda rows: rows.pop(),
        [("wrong_end", 16), ("wrong_sha256", 16), ("wrong_end", 16), ("no_finish", 16)],
    ),
    (swap_words, [("finish_disagrees", 17), ("wrong_sha256", 17)]),
    (swap, [("missing_events", 11), ("out_of_order", 10), ("wrong_sha256", 17)]),
    (move, [("wrong_end", 17), ("wrong_sha256", 17)]),
    (back, [("time_went_back", 10), ("wrong_sha256", 17)]),
    (double, [("out_of_order", 10), ("wrong_sha256", 17), ("wrong_end", 17)]),
    (finish_again, [("second_finish", 18), ("wrong_end", 18), ("wrong_sha256", 18), ("wrong_end", 18)]),
    (say_more, [("event_after_finish", 18), ("wrong_end", 18), ("wrong_sha256", 18), ("wrong_end", 18)]),
    (
        lambda rows: rows.clear(),
        [("wrong_end", None), ("wrong_sha256", None), ("wrong_end", None), ("no_finish", None)],
    ),
]


@pytest.mark.parametrize(("tamper", "expected"), TAMPERED)
async def test_whatever_is_done_to_the_archive_is_found(
    house: Bench, tamper: Tamper, expected: list[tuple[str, int | None]]
) -> None:
    task_id = await house.archived()
    assert (await house.prove(task_id)).is_proven
    tamper(house.rows(task_id))
    verdict = await house.prove(task_id)
    assert [(each.type, each.position.n if each.position else None) for each in verdict.findings] == expected


@pytest.mark.parametrize("tamper", [tamper for tamper, _ in TAMPERED])
async def test_the_hot_copy_gives_an_archive_away(house: Bench, tamper: Tamper) -> None:
    task_id = await house.both()
    assert (await house.prove(task_id)).read_from == "both"
    tamper(house.rows(task_id))
    verdict = await house.prove(task_id)
    assert "hot_differs" in kinds(verdict)
    assert verdict.read_from == "both"


async def test_a_stored_sha256_that_is_another_one_is_found(house: Bench) -> None:
    task_id = await house.archived()
    task = house.library.archive.tasks[task_id]
    assert task.proof is not None
    task.proof = replace(task.proof, link=bytes(32))
    assert kinds(await house.prove(task_id)) == ["wrong_sha256"]


async def test_every_single_bit_of_an_archived_event_is_proven(house: Bench) -> None:
    task_id = await house.archived()
    rows = house.rows(task_id)
    n, ms, data = rows[3]
    for bit in range(8 * len(data)):
        byte = bytes([data[bit // 8] ^ 1 << bit % 8])
        rows[3] = (n, ms, data[: bit // 8] + byte + data[bit // 8 + 1 :])
        assert "wrong_sha256" in kinds(await house.prove(task_id)), bit


# --- what is not: in the hot store, or between the two ----------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 9, EVENTS - 1])
async def test_where_the_hot_copy_differs_is_found(house: Bench, at: int) -> None:
    task_id = await house.both()
    events = list(house.events(task_id))
    for changed in (
        [*events[:at], (events[at][0], events[at][1] + b" "), *events[at + 1 :]],
        [*events[:at], *events[at + 1 :]],
        events[:at],
    ):
        house.put_hot(task_id, changed)
        (finding,) = (await house.prove(task_id)).findings
        assert (finding.type, finding.position and finding.position.n) == ("hot_differs", at + 1)
    house.put_hot(task_id, events)
    assert (await house.prove(task_id)).is_proven


async def test_an_event_behind_the_end_of_the_hot_copy_is_found(house: Bench) -> None:
    task_id = await house.both()
    events = house.events(task_id)
    house.put_hot(task_id, [*events, (b"9999999999999-18", encode(e.StartStep()))])
    (finding,) = (await house.prove(task_id)).findings
    assert (finding.type, finding.position) == ("hot_differs", Position(9999999999999, 18))


async def test_a_hot_log_that_lost_something_is_found(house: Bench) -> None:
    task_id = await house.hot()
    whole = list(house.events(task_id))
    house.put_hot(task_id, whole[:5] + whole[7:])
    assert kinds(await house.prove(task_id)) == ["missing_events"]
    house.put_hot(task_id, whole[:5])
    assert kinds(await house.prove(task_id)) == ["wrong_end", "no_finish"]
    house.library.store.lose(task_id, 5)
    assert kinds(await house.prove(task_id)) == ["no_finish"]
    house.library.store.forget(task_id)
    verdict = await house.prove(task_id)
    assert (kinds(verdict), verdict.read_from) == (["no_finish"], "nowhere")


# --- what is not: the task's row --------------------------------------------------------------------------------------

ROWS: dict[str, dict[str, object]] = {
    "status": {"status": "failed"},
    "answer_id": {"answer_id": MessageId("another")},
    "message_id": {"input_id": MessageId("another")},
    "session_id": {"session_id": "another"},
    "usage": {"usage": e.Usage(1, 1)},
    "error_type": {"error_type": "timeout"},
}


@pytest.mark.parametrize("name", ROWS)
async def test_a_row_that_disagrees_is_found(house: Bench, name: str) -> None:
    task_id = await house.both()
    assert (await house.prove(task_id)).is_proven
    row = house.database.tasks[task_id]
    row.task = replace(row.task, **ROWS[name])  # type: ignore[arg-type]
    (finding,) = (await house.prove(task_id)).findings
    assert finding.type == "row_disagrees"
    assert f"'s {name} " in finding.detail


# --- what is not: what the events add up to ---------------------------------------------------------------------------


def without(*indices: int) -> Callable[[list[e.Chunk]], list[e.Chunk]]:
    return lambda chunks: [chunk for i, chunk in enumerate(chunks) if i not in indices]


WRONG: dict[str, tuple[Callable[[list[e.Chunk]], list[e.Chunk]], str, int]] = {
    "a part is open": (without(13, 14, 15), "open_block", 14),
    "a step is open": (without(15), "open_block", 16),
    "a call has no result": (without(5), "unpaired_tool_call", 4),
    "a result has no call": (without(3), "misplaced_event", 5),
    "a delta has no start": (without(8), "misplaced_event", 9),
    "it does not begin": (without(0), "misplaced_event", 1),
    "a word is gone": (without(10), "finish_disagrees", 16),
    "a call's end is gone": (without(4), "finish_disagrees", 16),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_log_that_means_nothing_is_found(house: Bench, what: str) -> None:
    tamper, kind, n = WRONG[what]
    task = house.task()
    await house.write(task, tamper(turn(task)))
    (finding,) = (await house.prove(task.id)).findings
    assert (finding.type, finding.position and finding.position.n) == (kind, n)


async def test_the_events_of_another_task_are_found(house: Bench) -> None:
    task, other = house.task(), house.task()
    chunks = turn(task)
    chunks[0] = e.Start(task.answer_id, e.StartMetadata(other.id, task.session_id))
    await house.write(task, chunks)
    (finding,) = (await house.prove(task.id)).findings
    assert (finding.type, finding.position and finding.position.n) == ("foreign_event", 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"type":"text-delta"}',
        b'{"type":["finish"]}',
        b'{"type":"step-start"}'.replace(b"step-start", b"start-step") + b"\n",
        b'{"id":"p1","type":"text-start"}',
        b'{"type":"x","a":' + b"[" * 5000,
    ],
    ids=repr,
)
async def test_what_is_no_event_is_found_and_nothing_of_it_repeated(house: Bench, data: bytes) -> None:
    task_id = await house.hot()
    events = list(house.events(task_id))
    events[6] = (events[6][0], data)
    house.put_hot(task_id, events)
    (finding,) = (await house.prove(task_id)).findings
    assert (finding.type, finding.position and finding.position.n) == ("unreadable_event", 7)


@pytest.mark.parametrize("position", [b"", b"-", b"-5-1", b"1-01", b"x-1", b"0-0", b"1" * 17 + b"-1", b"\xff-1"])
def test_a_position_that_is_none_is_found(position: bytes) -> None:
    check = LogCheck(None)
    check.take((position, encode(e.StartStep())))
    assert [finding.type for finding in check.found.listed] == ["unreadable_event"]


async def test_no_more_findings_are_listed_than_are_told(house: Bench) -> None:
    task = house.task()
    await house.write(task, [*turn(task)])
    events = list(house.events(task.id))
    more = [(b"9999999999999-%d" % n, encode(e.StartStep())) for n in range(18, 18 + 3 * MAX_FINDINGS)]
    house.put_hot(task.id, [*events, *more])
    verdict = await house.prove(task.id)
    assert len(verdict.findings) == MAX_FINDINGS
    assert verdict.findings_not_listed == 3 * MAX_FINDINGS - MAX_FINDINGS + 1  # and the end that is another one


# --- whatever it is ---------------------------------------------------------------------------------------------------

TASK = Task(
    task_made_at(now_ms()),
    SessionId("s"),
    *("turn", "succeeded", MessageId("i"), MessageId("a")),
    datetime(2026, 1, 1, tzinfo=UTC),
    *(None, None, None, USAGE, None, 1),
)
WHOLE = [(b"%d-%d" % (1000 + n // 3, n), encode(chunk)) for n, chunk in enumerate(turn(TASK), 1)]


def checked(events: Iterable[StoredEvent]) -> LogCheck:
    check = LogCheck(TASK.id)
    for event in events:
        check.take(event)
    check.compare(TASK)
    return check


@given(st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_other_log_has_another_chain_and_none_raises(data: st.DataObject) -> None:
    events = list(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        at, other = data.draw(st.integers(0, len(events) - 1)), data.draw(st.integers(0, len(events) - 1))
        match data.draw(st.sampled_from(["remove", "double", "swap", "move", "write"])):
            case "remove" if len(events) > 1:
                del events[at]
            case "double":
                events.insert(other, events[at])
            case "swap":
                events[at], events[other] = events[other], events[at]
            case "move":
                events[at] = (events[other][0], events[at][1])
            case _:
                position, text = events[at]
                byte, where = data.draw(st.binary(min_size=1, max_size=1)), data.draw(st.integers(0, len(text) - 1))
                events[at] = (position, text[:where] + byte + text[where + 1 :])
    check = checked(events)
    assert (check.link == checked(WHOLE).link) == (events == WHOLE)
    dense = [int(position.partition(b"-")[2]) for position, _ in events] == list(range(1, len(events) + 1))
    assert check.found.listed or dense


class Long:
    """The port `LogSource` over a log that is made while it is read."""

    def __init__(self, events: int) -> None:
        chunks = turn(TASK, words=0)
        self._head, self._tail = chunks[:9], chunks[9:]
        self._events = events
        self.largest = 0

    async def read(self, task_id: TaskId, after: Position, count: int) -> Page:
        events = [self._event(n) for n in range(after.n + 1, min(after.n + count, self._events) + 1)]
        self.largest = max(self.largest, len(events))
        return Page(True, events, await self.head(task_id))

    async def head(self, task_id: TaskId) -> Head:
        return Head(Position(1000, self._events), closed=True, epoch=Epoch(1))

    def _event(self, n: int) -> StoredEvent:
        if n <= len(self._head):
            chunk = self._head[n - 1]
        elif n > self._events - len(self._tail):
            chunk = self._tail[n - self._events - 1]
        else:
            chunk = e.TextDelta(PartId("p1"), f"{n:070}")  # pydantic keeps shorter texts
        return b"1000-%d" % n, encode(chunk)


async def test_a_long_log_is_proven_in_little_memory(house: Bench) -> None:
    """Nothing of it stays but the message, of which there are two at the end: 70 bytes a word, as pieces 127."""
    house.library.archive.know(TASK.id)
    house.database.tasks[TASK.id] = TaskRow(TASK)

    async def peak_of(events: int) -> int:
        long, archive = Long(events), house.library.archive
        tracemalloc.start()
        verdict = await Prover(long, archive, archive, archive, MemoryTasks(house.database)).prove(TASK.id)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (verdict.events, verdict.closed, long.largest) == (events, True, MAX_PAGE_EVENTS)
        assert kinds(verdict) == ["finish_disagrees"]  # its output is none of these words
        return peak

    await peak_of(1500)
    first, second = await peak_of(1500), await peak_of(6000)
    assert second - first < 4500 * 175
