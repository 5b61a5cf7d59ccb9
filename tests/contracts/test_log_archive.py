"""The port `LogArchive`, and `LogSource` over what is archived: in memory and on every PostgreSQL that we support."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.adapters.postgres_archive import COPY_ROWS
from service.model.chain import NOTHING_READ, proven
from service.model.errors import LogUnavailable
from service.model.ids import TaskId
from service.model.log import Standing, TaskFacts
from service.model.position import BEGINNING, Position
from tests.contracts.archives import ArchiveBackend, InMemory, InPostgres, archive, now_ms, task_made_at, whole_log
from tests.contracts.logs import event
from tests.sessions.databases import SERVERS, emptied, own_database, server_url

HOUR_MS = 3_600_000
YEAR_MS = 365 * 24 * HOUR_MS


@pytest.fixture(scope="module", params=["memory", *SERVERS])
def archive_dsn(request: pytest.FixtureRequest) -> object:
    if request.param == "memory":
        yield None
        return
    with own_database(server_url(request.param, request)) as url:
        yield url


@pytest.fixture
async def backend(archive_dsn: str | None) -> AsyncIterator[ArchiveBackend]:
    if archive_dsn is None:
        yield InMemory()
        return
    async with emptied(archive_dsn) as database:
        yield InPostgres(database)


# --- what is due ------------------------------------------------------------------------------------------------------


async def test_closed_logs_are_due_by_age_until_they_are_archived(backend: ArchiveBackend) -> None:
    tasks = sorted([await backend.task() for _ in range(5)])
    await backend.task(log_closed=False)
    assert await backend.archive.due(None, 10) == tasks
    assert await backend.archive.due(None, 2) == tasks[:2]
    assert await backend.archive.due(tasks[1], 2) == tasks[2:4]
    assert await backend.archive.due(tasks[4], 2) == []
    await archive(backend, tasks[2], whole_log(3))
    assert await backend.archive.due(None, 10) == tasks[:2] + tasks[3:]


async def test_the_facts_say_what_is_archived(backend: ArchiveBackend) -> None:
    task_id, other = await backend.task(), await backend.task()
    assert await backend.directory.facts(task_id) == TaskFacts(log_closed=True, log_archived=False)
    await archive(backend, task_id, whole_log(3))
    assert await backend.directory.facts(task_id) == TaskFacts(log_closed=True, log_archived=True)
    assert await backend.directory.facts(other) == TaskFacts(log_closed=True, log_archived=False)


# --- copying ----------------------------------------------------------------------------------------------------------


async def test_what_is_archived_is_what_was_put(backend: ArchiveBackend) -> None:
    task_id, events = await backend.task(), whole_log(9)
    proof = await archive(backend, task_id, events)
    page = await backend.archived.read(task_id, BEGINNING, 100)
    assert (page.known, list(page.events)) == (True, events)
    assert (page.head.last, page.head.closed) == (proof.last, True)
    assert await backend.archived.head(task_id) == page.head


async def test_what_was_proven_is_kept_with_the_log(backend: ArchiveBackend) -> None:
    task_id, other = await backend.task(), await backend.task()
    assert await backend.seals.seal_of(task_id) is None
    proof = await archive(backend, task_id, whole_log(9))
    assert await backend.seals.seal_of(task_id) == proof
    assert await backend.seals.seal_of(other) is None


async def test_several_logs_of_several_pieces_in_one_transaction(backend: ArchiveBackend) -> None:
    logs = {await backend.task(): whole_log(7, text=str(i)) for i in range(3)}
    long = await backend.task()
    logs[long] = whole_log(2 * COPY_ROWS + 5)
    proofs = {}
    await backend.archive.prepare(list(logs))
    async with backend.archive.copying(list(logs)) as copying:
        assert copying.task_ids == sorted(logs)
        for task_id, events in logs.items():
            proof = NOTHING_READ
            for start in range(0, len(events), 3000):
                proof, rows = proven(proof, events[start : start + 3000])
                await copying.put(task_id, rows)
            proofs[task_id] = proof
        await copying.seal(proofs)
    for task_id, events in logs.items():
        assert list((await backend.archived.read(task_id, BEGINNING, 10**6)).events) == events


async def test_nothing_is_stored_where_the_block_raises(
    backend: ArchiveBackend, caplog: pytest.LogCaptureFixture
) -> None:
    task_id = await backend.task()
    proof, rows = proven(NOTHING_READ, whole_log(COPY_ROWS + 1))
    await backend.archive.prepare([task_id])

    async def copy_and_fail(*, sealed: bool) -> None:
        async with backend.archive.copying([task_id]) as copying:
            await copying.put(task_id, rows)
            if sealed:
                await copying.seal({task_id: proof})
            raise LogUnavailable

    for sealed in (False, True):
        with pytest.raises(LogUnavailable):
            await copy_and_fail(sealed=sealed)
        assert await backend.archive.due(None, 10) == [task_id]
        assert (await backend.archived.read(task_id, BEGINNING, 10)).events == []
    await archive(backend, task_id, whole_log(3))
    assert caplog.records == [], "the driver complains of a transaction that was left open"


async def test_nothing_is_stored_where_the_copier_is_cancelled(backend: ArchiveBackend) -> None:
    task_id = await backend.task()
    proof, rows = proven(NOTHING_READ, whole_log(3))
    await backend.archive.prepare([task_id])
    is_in, stay = asyncio.Event(), asyncio.Event()

    async def copy() -> None:
        async with backend.archive.copying([task_id]) as copying:
            await copying.put(task_id, rows)
            await copying.seal({task_id: proof})
            is_in.set()
            await stay.wait()

    work = asyncio.create_task(copy())
    await is_in.wait()
    work.cancel()
    await asyncio.wait([work])
    async with asyncio.timeout(5):  # the server may still be ending the first transaction
        while task_id not in (await _taken(backend, task_id)):  # noqa: ASYNC110 - each look is a round trip
            await asyncio.sleep(0)
    assert (await backend.archived.read(task_id, BEGINNING, 10)).events == []


async def _taken(backend: ArchiveBackend, task_id: TaskId) -> list[TaskId]:
    async with backend.archive.copying([task_id]) as copying:
        return list(copying.task_ids)


async def test_what_one_copies_is_left_out_by_the_other(backend: ArchiveBackend) -> None:
    first, second = sorted([await backend.task(), await backend.task()])
    async with backend.archive.copying([first]) as one:
        assert one.task_ids == [first]
        async with backend.archive.copying([first, second]) as other:
            assert other.task_ids == [second]


async def test_only_what_is_due_is_taken(backend: ArchiveBackend) -> None:
    archived, still_open = await backend.task(), await backend.task(log_closed=False)
    await archive(backend, archived, whole_log(2))
    async with backend.archive.copying([archived, still_open, task_made_at(now_ms())]) as copying:
        assert copying.task_ids == []


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_a_log_is_read_from_any_position(backend: ArchiveBackend) -> None:
    task_id, events = await backend.task(), whole_log(9)
    await archive(backend, task_id, events)
    for i, (position, _) in enumerate(events):
        page = await backend.archived.read(task_id, Position.stored(position), 3)
        assert (page.known, list(page.events)) == (True, events[i + 1 : i + 4])


async def test_pitfall_64_a_position_that_names_no_event_is_not_known_and_its_page_stands_behind_it(
    backend: ArchiveBackend,
) -> None:
    task_id, events = await backend.task(), whole_log(9, first=4)
    proof = await archive(backend, task_id, events)
    for after, following in (
        (Position(0, 3), events),
        (Position(1002, 4), events[1:]),  # of the same time as the one with number 5
        (Position(1003, 99), events[4:]),
        (Position(10**15, 5), []),
        (Position(proof.last.ms, proof.last.n + 1), []),
    ):
        page = await backend.archived.read(task_id, after, 100)
        named = any(position == str(after).encode() for position, _ in events)
        assert (page.known, list(page.events)) == (named, following), after
        assert page.head.last == proof.last


async def test_what_is_not_archived_is_empty_there(backend: ArchiveBackend) -> None:
    task_id = await backend.task()
    for after in (BEGINNING, Position(5, 5)):
        page = await backend.archived.read(task_id, after, 10)
        assert (page.known, page.events, page.head.last, page.head.closed) == (after == BEGINNING, [], BEGINNING, False)
    assert (await backend.archived.head(task_id)).last == BEGINNING


async def test_pitfall_59_every_byte_comes_back(backend: ArchiveBackend) -> None:
    task_id = await backend.task()
    odd = [(b"1000-1", bytes(range(256)) * 40), (b"1000-2", b""), event(1000, 3, "\u0000\u2028")]
    events = [*odd, (b"9999999999999999-4", whole_log(1)[0][1])]
    await archive(backend, task_id, events)
    assert list((await backend.archived.read(task_id, BEGINNING, 10)).events) == events


# --- endings that are owed again --------------------------------------------------------------------------------------


async def test_a_closed_log_can_owe_its_ending_again(backend: ArchiveBackend) -> None:
    task_id = await backend.task()
    assert await backend.archive.owe(task_id)
    assert await backend.directory.facts(task_id) == TaskFacts(log_closed=False)
    assert await backend.archive.due(None, 10) == []
    assert not await backend.archive.owe(task_id)


async def test_pitfall_19_what_is_archived_or_held_or_unknown_owes_nothing(backend: ArchiveBackend) -> None:
    archived, held = await backend.task(), await backend.task(held=True)
    await archive(backend, archived, whole_log(2))
    for task_id in (archived, held, task_made_at(now_ms())):
        assert not await backend.archive.owe(task_id)
    assert await backend.directory.facts(archived) == TaskFacts(log_closed=True, log_archived=True)
    assert await backend.directory.facts(held) == TaskFacts(log_closed=True)


# --- what hot logs are ------------------------------------------------------------------------------------------------


async def test_of_hot_logs_those_that_are_archived_and_those_of_nobody_are_told(backend: ArchiveBackend) -> None:
    archived, due, running = await backend.task(), await backend.task(), await backend.task(log_closed=False)
    nobodys = task_made_at(now_ms() - 2 * HOUR_MS)
    await archive(backend, archived, whole_log(2))
    standing = await backend.archive.standing([archived, due, running, nobodys])
    assert standing == Standing([archived], [nobodys], standing.database)
    assert await backend.archive.standing([]) == Standing([], [], standing.database)
    assert standing.database
