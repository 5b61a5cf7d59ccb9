"""Closed logs on their way into the archive: whole, once, wherever an archiver dies; and which hot ones may go."""

import asyncio
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import pytest
import structlog

from service.adapters.memory_log import MemoryHints, MemoryLogStore
from service.model.encoding import encode, frames
from service.model.errors import DatabaseUnavailable
from service.model.events import TextDelta
from service.model.ids import Epoch, PartId, TaskId
from service.model.log import Batch, StoredEvent, TaskFacts
from service.model.position import BEGINNING, Position
from service.registry.archive import FIRST_PAGE_EVENTS, LOGS_AT_ONCE, PAGE_BYTES, Archivist
from tests.agent.faults import Death, Fault, Once, Watched
from tests.contracts.archives import FINISH, ArchiveBackend, InMemory, InPostgres, now_ms, task_made_at, whole_log
from tests.sessions.databases import emptied

HOT_TTL = 600
HOUR_MS = 3_600_000


class WatchedArchive(Watched):
    """An archive with a fault in front of and behind each call, those inside a transaction and its commit included."""

    def copying(self, task_ids: Sequence[TaskId]) -> Any:
        return self._copying(task_ids)

    @asynccontextmanager
    async def _copying(self, task_ids: Sequence[TaskId]) -> AsyncGenerator[Any]:
        await self._fault.before("open")
        async with self._port.copying(task_ids) as copying:
            await self._fault.behind("open")
            watched = _WatchedCopying(copying, self._fault)
            yield watched
            await self._fault.before("commit")
        await self._fault.behind("commit")


class _WatchedCopying(Watched):
    @property
    def task_ids(self) -> Sequence[TaskId]:
        task_ids: Sequence[TaskId] = self._port.task_ids
        return task_ids


@dataclass
class Shelf:
    """A hot store by a clock of ours, and an archive."""

    backend: ArchiveBackend
    now: float = 1000.0
    hot: MemoryLogStore = field(init=False)

    def __post_init__(self) -> None:
        self.hot = MemoryLogStore(MemoryHints(), lambda: self.now)

    def archivist(self, fault: Fault | None = None) -> Archivist:
        fault = fault or Fault()
        logs, archive = Watched(self.hot, fault), WatchedArchive(self.backend.archive, fault)
        return Archivist(logs, logs, archive, hot_ttl_seconds=HOT_TTL)  # type: ignore[arg-type]

    async def put(self, task_id: TaskId, events: list[StoredEvent], *, terminal: bool = True) -> None:
        """Have this log in the hot store."""
        await self.hot.open(task_id, Epoch(1), BEGINNING)
        last = Position.stored(events[-1][0])
        await self.hot.append([Batch(task_id, Epoch(1), BEGINNING, last, frames(events), terminal)])

    async def closed(self, events: int = 5, *, text: str = "x") -> TaskId:
        """A task whose log is closed and hot."""
        task_id = await self.backend.task()
        await self.put(task_id, whole_log(events, text=text))
        return task_id

    async def archived(self, task_id: TaskId) -> list[StoredEvent]:
        return list((await self.backend.archived.read(task_id, BEGINNING, 10**6)).events)

    async def hot_log(self, task_id: TaskId) -> list[StoredEvent]:
        return list((await self.hot.read(task_id, BEGINNING, 10**6)).events)

    def expires(self, task_id: TaskId) -> bool:
        """Whether the hot copy will go; it must be there."""
        return self.hot._logs[task_id].expires_at is not None


@pytest.fixture(params=["memory", "postgres"])
async def shelf(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[Shelf]:
    if request.param == "memory":
        yield Shelf(InMemory())
        return
    async with emptied(dsn) as database:
        yield Shelf(InPostgres(database))


@pytest.fixture
def memory_shelf() -> Shelf:
    return Shelf(InMemory())


async def all_rounds(archivist: Archivist) -> None:
    """What is due is done, and the hot store was looked at once."""
    while await archivist.archive_some():
        pass
    await archivist.sweep_some()


# --- a log that is whole ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("events", [1, 2, FIRST_PAGE_EVENTS, FIRST_PAGE_EVENTS + 1, 3 * FIRST_PAGE_EVENTS + 7])
async def test_a_closed_log_is_archived_to_the_byte_and_then_its_hot_copy_expires(shelf: Shelf, events: int) -> None:
    task_id = await shelf.closed(events)
    log = await shelf.hot_log(task_id)
    assert len(log) == events
    assert not await shelf.archivist().archive_some()
    assert await shelf.archived(task_id) == log
    assert await shelf.backend.directory.facts(task_id) == TaskFacts(log_closed=True, log_archived=True)
    shelf.now += HOT_TTL - 1
    assert await shelf.hot_log(task_id) == log
    shelf.now += 1
    assert await shelf.hot_log(task_id) == []
    assert await shelf.archived(task_id) == log


async def test_the_chain_is_that_of_an_exported_log(shelf: Shelf) -> None:
    """Made again by what its description says, from the bytes that any reader gets."""
    task_id = await shelf.closed(300)
    exported = frames(await shelf.hot_log(task_id))
    link = bytes(32)
    for frame in exported.split(b"\n\n")[:-1]:
        link = sha256(link + frame + b"\n\n").digest()
    await shelf.archivist().archive_some()
    assert await shelf.backend.chain(task_id) == (300, link)


async def test_more_logs_than_fit_one_transaction(shelf: Shelf) -> None:
    tasks = [await shelf.closed(2) for _ in range(LOGS_AT_ONCE + 3)]
    long = await shelf.closed(FIRST_PAGE_EVENTS + 5)
    archivist = shelf.archivist()
    assert await archivist.archive_some()
    assert not await archivist.archive_some()
    for task_id in [*tasks, long]:
        assert await shelf.archived(task_id) == await shelf.hot_log(task_id)
        assert shelf.expires(task_id)


async def test_pitfall_05_a_log_that_lost_its_beginning_is_archived_from_where_it_begins(shelf: Shelf) -> None:
    """Its readers are told, from the archive as from the hot store."""
    task_id = await shelf.closed(9)
    log = shelf.hot._logs[task_id]
    del log.positions[:4], log.events[:4]
    await shelf.archivist().archive_some()
    assert await shelf.archived(task_id) == whole_log(9)[4:]


@pytest.mark.parametrize("shelf", ["postgres"], indirect=True)
async def test_a_log_of_any_length_is_copied_in_little_memory(shelf: Shelf) -> None:
    count = 50_000
    task_id = await shelf.backend.task()
    data = encode(TextDelta(PartId("p"), "x" * 300))
    log = [(b"1000-%d" % n, data) for n in range(1, count)] + [(b"1000-%d" % count, FINISH)]
    await shelf.put(task_id, log)
    size = sum(len(data) for _, data in log)
    tracemalloc.start()
    try:
        assert not await shelf.archivist().archive_some()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * PAGE_BYTES
    assert size > 15 * 1024 * 1024
    head = await shelf.backend.archived.head(task_id)
    assert (head.last, head.closed) == (Position(1000, count), True)
    after = Position(1000, count - 3)
    assert list((await shelf.backend.archived.read(task_id, after, 10)).events) == log[-3:]


# --- wherever it dies -------------------------------------------------------------------------------------------------


async def some_logs(shelf: Shelf) -> dict[TaskId, list[StoredEvent]]:
    """Short and long ones, and one whose end the store has lost."""
    tasks = [await shelf.closed(4), await shelf.closed(FIRST_PAGE_EVENTS + 9), await shelf.closed(3)]
    return {task_id: await shelf.hot_log(task_id) for task_id in tasks}


async def test_wherever_an_archiver_dies_the_next_one_makes_the_same_archive(shelf: Shelf) -> None:
    await some_logs(shelf)
    uneventful = Fault()
    await shelf.archivist(uneventful).archive_some()
    assert {"due", "prepare", "open", "begin", "read", "put", "seal", "commit", "retire"} == set(uneventful.calls)
    for at in range(len(uneventful.calls)):
        for is_behind in (False, True):
            logs = await some_logs(shelf)
            death = Death(at=at, is_behind=is_behind)
            work = asyncio.create_task(shelf.archivist(death).archive_some())
            await asyncio.wait([work, asyncio.create_task(death.died.wait())], return_when=asyncio.FIRST_COMPLETED)
            assert death.died.is_set(), uneventful.calls[at]
            for task_id, log in logs.items():
                assert await shelf.hot_log(task_id) == log
                facts = await shelf.backend.directory.facts(task_id)
                assert facts is not None
                assert facts.log_archived or not shelf.expires(task_id), (uneventful.calls[at], is_behind)
            work.cancel()
            await asyncio.wait([work])
            await _until_all_are_archived(shelf)
            for task_id, log in logs.items():
                assert await shelf.archived(task_id) == log, (uneventful.calls[at], is_behind)
                assert shelf.expires(task_id), (uneventful.calls[at], is_behind)


async def _until_all_are_archived(shelf: Shelf) -> None:
    """The server may still be ending the transaction of the dead one."""
    archivist = shelf.archivist()
    async with asyncio.timeout(5):
        while await shelf.backend.archive.due(None, 1):
            await all_rounds(archivist)
    await archivist.sweep_some()


async def test_an_error_anywhere_is_told_and_the_next_round_makes_the_same_archive(shelf: Shelf) -> None:
    def away() -> None:
        raise DatabaseUnavailable

    for verb in ("due", "prepare", "open", "begin", "read", "put", "seal", "commit", "retire"):
        for is_behind in (False, True):
            logs = await some_logs(shelf)
            archivist = shelf.archivist(Once(verb=verb, act=away, is_behind=is_behind))
            with pytest.raises(DatabaseUnavailable):
                await archivist.archive_some()
            await all_rounds(archivist)
            await all_rounds(archivist)
            for task_id, log in logs.items():
                assert await shelf.archived(task_id) == log, (verb, is_behind)
                assert shelf.expires(task_id), (verb, is_behind)


async def test_two_archivers_at_once_archive_each_log_once(shelf: Shelf) -> None:
    tasks = [await shelf.closed(3 if i % 5 else FIRST_PAGE_EVENTS * 2) for i in range(30)]
    faults = [Fault() for _ in range(3)]
    await asyncio.gather(*(shelf.archivist(fault).archive_some() for fault in faults))
    await all_rounds(shelf.archivist())
    for task_id in tasks:
        assert await shelf.archived(task_id) == await shelf.hot_log(task_id)
    assert await shelf.backend.archive.due(None, 1) == []


# --- what cannot be archived ------------------------------------------------------------------------------------------


def hole(shelf: Shelf, task_id: TaskId) -> None:
    log = shelf.hot._logs[task_id]
    del log.positions[1], log.events[1]


def no_end(shelf: Shelf, task_id: TaskId) -> None:
    log = shelf.hot._logs[task_id]
    del log.positions[-1], log.events[-1]


def another_end(shelf: Shelf, task_id: TaskId) -> None:
    log = shelf.hot._logs[task_id]
    log.events[-1] = (log.events[-1][0], log.events[0][1])


def late_hole(shelf: Shelf, task_id: TaskId) -> None:
    log = shelf.hot._logs[task_id]
    del log.positions[-3], log.events[-3]


def two_ends(shelf: Shelf, task_id: TaskId) -> None:
    log = shelf.hot._logs[task_id]
    log.events[2] = (log.events[2][0], FINISH)


def back_in_time(shelf: Shelf, task_id: TaskId) -> None:
    log = shelf.hot._logs[task_id]
    log.events[-2] = (b"1-%d" % (len(log.events) - 1), log.events[-2][1])


def nonsense(shelf: Shelf, task_id: TaskId) -> None:
    """What no writer of ours makes: we stumble over it ourselves."""
    log = shelf.hot._logs[task_id]
    log.events[-2] = (b"nonsense", b"")


def no_events(shelf: Shelf, task_id: TaskId) -> None:
    log = shelf.hot._logs[task_id]
    log.positions.clear()
    log.events.clear()


@pytest.mark.parametrize("breaks", [hole, no_end, another_end, late_hole, two_ends, back_in_time, nonsense, no_events])
@pytest.mark.parametrize("events", [6, FIRST_PAGE_EVENTS, 2 * FIRST_PAGE_EVENTS + 6])
async def test_a_log_that_is_not_whole_is_told_once_stays_hot_and_holds_up_no_other(
    shelf: Shelf, events: int, breaks: Callable[[Shelf, TaskId], None]
) -> None:
    broken = await shelf.closed(events)
    others = [await shelf.closed(4) for _ in range(3)]
    breaks(shelf, broken)
    archivist = shelf.archivist(fault := Fault())
    with structlog.testing.capture_logs() as told:
        await all_rounds(archivist)
        reads = fault.calls.count("begin")
        for _ in range(3):
            await all_rounds(archivist)
    assert [line["task_id"] for line in told if line["event"] == "log_not_archived"] == [broken]
    assert fault.calls.count("begin") == reads
    assert await shelf.archived(broken) == []
    assert not shelf.expires(broken)
    for task_id in others:
        assert await shelf.archived(task_id) == await shelf.hot_log(task_id)


async def test_more_logs_than_fit_one_round_that_are_not_whole_hold_up_no_other(memory_shelf: Shelf) -> None:
    """Whatever becomes of those, the next round goes on behind them, and the one after the last begins anew."""
    tasks = [await memory_shelf.backend.task(made_ms=number + 1) for number in range(LOGS_AT_ONCE + 1)]
    for task_id in tasks:
        await memory_shelf.put(task_id, whole_log(3))
    for task_id in tasks[:-1]:
        hole(memory_shelf, task_id)
    archivist = memory_shelf.archivist()
    assert [await archivist.archive_some() for _ in range(4)] == [True, False, True, False]
    assert await memory_shelf.archived(tasks[-1]) == await memory_shelf.hot_log(tasks[-1])


async def test_a_mistake_over_one_log_keeps_no_other(shelf: Shelf) -> None:
    def mistake() -> None:
        raise ZeroDivisionError

    tasks = [await shelf.closed(4) for _ in range(3)]
    archivist = shelf.archivist(Once(verb="put", act=mistake))
    with structlog.testing.capture_logs() as told:
        await archivist.archive_some()
    assert [line["event"] for line in told if line["log_level"] == "error"] == ["archiving_crashed"]
    for task_id in tasks:
        assert await shelf.archived(task_id) == await shelf.hot_log(task_id)


async def test_where_there_is_no_place_for_any_log_none_is_given_up(shelf: Shelf) -> None:
    """As where the role may make no partitions: the loop tells it, and once it may, all goes on."""

    def mistake() -> None:
        raise ZeroDivisionError

    tasks = [await shelf.closed(4) for _ in range(3)]
    archivist = shelf.archivist(Once(verb="prepare", act=mistake))
    with pytest.raises(ZeroDivisionError):
        await archivist.archive_some()
    await archivist.archive_some()
    for task_id in tasks:
        assert await shelf.archived(task_id) == await shelf.hot_log(task_id)


async def test_a_store_that_forgets_while_it_is_read_is_looked_at_anew(shelf: Shelf) -> None:
    task_id = await shelf.closed(3 * FIRST_PAGE_EVENTS)
    log = await shelf.hot_log(task_id)
    archivist = shelf.archivist(Once(verb="put", act=lambda: shelf.hot.lose(task_id, 7), is_behind=True))
    with pytest.raises(Exception, match="log store"):
        await archivist.archive_some()
    assert await shelf.archived(task_id) == []
    await archivist.archive_some()
    assert await shelf.backend.directory.facts(task_id) == TaskFacts(log_closed=False)
    assert await shelf.hot_log(task_id) == log[:7]


@pytest.mark.parametrize("keep", [0, 1, 4])
async def test_a_closed_log_that_lost_its_end_before_it_was_archived_owes_it_again(shelf: Shelf, keep: int) -> None:
    """How the next holder pays it: tests/agent/test_archived_turns.py."""
    task_id = await shelf.closed(5)
    shelf.hot.lose(task_id, keep)
    await all_rounds(shelf.archivist())
    assert await shelf.backend.directory.facts(task_id) == TaskFacts(log_closed=False)
    assert await shelf.archived(task_id) == []
    assert len(await shelf.hot_log(task_id)) == keep


async def test_what_is_lost_after_it_was_archived_is_no_loss(shelf: Shelf) -> None:
    task_id = await shelf.closed(5)
    log = await shelf.hot_log(task_id)
    await all_rounds(shelf.archivist())
    shelf.hot.forget(task_id)
    await all_rounds(shelf.archivist())
    assert await shelf.archived(task_id) == log
    assert await shelf.backend.directory.facts(task_id) == TaskFacts(log_closed=True, log_archived=True)


# --- the sweep --------------------------------------------------------------------------------------------------------


async def test_pitfall_23_what_belongs_to_no_task_is_removed(shelf: Shelf) -> None:
    """A session was deleted, or the database set back."""
    nobodys, running = task_made_at(now_ms() - 2 * HOUR_MS), await shelf.backend.task(log_closed=False)
    due = await shelf.closed(3)
    await shelf.put(nobodys, whole_log(3))
    await shelf.put(running, whole_log(3), terminal=False)
    await shelf.archivist().sweep_some()
    assert set(shelf.hot._logs) == {running, due}
    assert not any(shelf.expires(task_id) for task_id in (running, due))


async def test_pitfall_23_nothing_is_removed_of_a_store_that_belongs_to_another_database(shelf: Shelf) -> None:
    """A wrong URL: what is of no task here may be of one there. What is archived here expires all the same."""
    await shelf.hot.is_of("another database")
    nobodys, archived = task_made_at(now_ms() - 2 * HOUR_MS), await shelf.closed(3)
    await shelf.put(nobodys, whole_log(3))
    archivist = shelf.archivist()
    with structlog.testing.capture_logs() as logs:
        await all_rounds(archivist)
        for _ in range(3):
            await archivist.sweep_some()
    assert set(shelf.hot._logs) == {nobodys, archived}
    assert shelf.expires(archived)
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["redis_belongs_to_another_database"]


async def test_a_store_that_belongs_to_another_database_is_told_of_when_there_is_something_to_remove(
    shelf: Shelf,
) -> None:
    await shelf.hot.is_of("another database")
    archivist = shelf.archivist()
    with structlog.testing.capture_logs() as logs:
        await archivist.sweep_some()
        await shelf.put(task_made_at(now_ms() - 2 * HOUR_MS), whole_log(3))
        await archivist.sweep_some()
    assert [entry["event"] for entry in logs] == ["redis_belongs_to_another_database"]


async def test_pitfall_23_nothing_is_removed_and_nothing_expires_that_the_database_cannot_be_asked_about(
    shelf: Shelf,
) -> None:
    def away() -> None:
        raise DatabaseUnavailable

    nobodys = task_made_at(now_ms() - 2 * HOUR_MS)
    await shelf.put(nobodys, whole_log(3))
    with pytest.raises(DatabaseUnavailable):
        await shelf.archivist(Once(verb="standing", act=away)).sweep_some()
    assert set(shelf.hot._logs) == {nobodys}


async def test_pitfall_23_a_stale_holder_who_opens_an_archived_log_leaves_nothing_behind(shelf: Shelf) -> None:
    """Its lease has long ended; it slept in front of `open` while others ended the log, and the hot copy went."""
    task_id = await shelf.closed(5)
    await all_rounds(shelf.archivist())
    shelf.now += HOT_TTL
    await shelf.hot.open(task_id, Epoch(1), BEGINNING)
    await shelf.archivist().sweep_some()
    assert task_id not in shelf.hot._logs


async def test_what_was_archived_and_came_back_into_the_store_expires_again(shelf: Shelf) -> None:
    task_id = await shelf.closed(5)
    await all_rounds(shelf.archivist())
    shelf.hot._logs[task_id].expires_at = None
    await shelf.archivist().sweep_some()
    assert shelf.expires(task_id)


async def test_a_long_hot_store_is_swept_in_laps(memory_shelf: Shelf) -> None:
    """The cursor is kept from step to step, and only what was answered for moves it."""
    shelf = memory_shelf
    asked: list[int] = []
    scan = shelf.hot.scan

    async def stepwise(cursor: int) -> Any:
        asked.append(cursor)
        scanned = await scan(0)
        return type(scanned)(scanned.task_ids, (cursor + 7) % 21)

    shelf.hot.scan = stepwise  # type: ignore[method-assign]
    archivist = shelf.archivist(Once(verb="standing", act=lambda: (_ for _ in ()).throw(DatabaseUnavailable())))
    await shelf.closed(1)
    with pytest.raises(DatabaseUnavailable):
        await archivist.sweep_some()
    for _ in range(4):
        await archivist.sweep_some()
    assert asked == [0, 0, 7, 14, 0]
