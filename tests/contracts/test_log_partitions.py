"""Of the archive, what is PostgreSQL's alone: partitions by the month of an id, and ages by the database's clock."""

import asyncio

import pytest

from service.adapters.postgres import Database, postgres_pool
from service.adapters.postgres_archive import COPY_ROWS, PostgresArchive
from service.model.chain import NOTHING_READ, proven
from service.model.errors import DatabaseUnavailable
from service.model.ids import TaskId
from service.model.position import BEGINNING
from tests.contracts.archives import InPostgres, archive, now_ms, task_made_at, whole_log

HOUR_MS = 3_600_000
YEAR_MS = 365 * 24 * HOUR_MS


async def test_pitfall_23_nothing_young_is_nobodys(database: Database) -> None:
    """Its task may not be seen yet; nor is an id from the future, or one that does not say when it was made."""
    young = [task_made_at(now_ms() - HOUR_MS + 60_000), task_made_at(now_ms() + YEAR_MS)]
    ageless = TaskId("01890000-0000-4000-8000-000000000000")
    old = task_made_at(now_ms() - HOUR_MS - 60_000)
    assert (await PostgresArchive(database).standing([*young, ageless, old])).unknown == [old]


# --- partitions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_ms", [0, 24 * HOUR_MS, YEAR_MS, 100 * YEAR_MS, 8000 * YEAR_MS])
async def test_pitfall_74_an_id_by_whatever_clock_finds_its_partition(database: Database, ahead_ms: int) -> None:
    backend = InPostgres(database)
    task_id, events = await backend.task(made_ms=now_ms() + ahead_ms), whole_log(4)
    await archive(backend, task_id, events)
    assert list((await backend.archived.read(task_id, BEGINNING, 10)).events) == events


@pytest.mark.parametrize(
    ("task_id", "partition"),
    [
        ("00000000-0000-7000-8000-000000000000", "log_events_1970_01"),
        ("018d61f7-17ff-7fff-bfff-ffffffffffff", "log_events_2024_01"),  # the last id of its month
        ("018d61f7-1800-7000-8000-000000000000", "log_events_2024_02"),  # the first one of the next
        ("ffffffff-ffff-7fff-bfff-ffffffffffff", "log_events_10889_08"),
    ],
)
async def test_pitfall_74_a_partition_is_a_month_to_the_millisecond(
    database: Database, task_id: str, partition: str
) -> None:
    await database.fetch("SELECT playhead_log_partition($1)", task_id)
    await database.fetch("INSERT INTO log_events VALUES ($1, 1, 1, '') ON CONFLICT DO NOTHING", task_id)
    (row,) = await database.fetch("SELECT tableoid::regclass::text AS name FROM log_events WHERE task_id = $1", task_id)
    assert row["name"] == partition


async def test_pitfall_74_two_who_need_the_same_partitions_at_once_both_get_them(database: Database) -> None:
    backend = InPostgres(database)
    months = [now_ms() + (20 + month) * 31 * 24 * HOUR_MS for month in range(12)]
    tasks = [[await backend.task(made_ms=ms) for ms in months] for _ in range(4)]

    async def copy(mine: list[TaskId]) -> None:
        await backend.archive.prepare(mine)
        async with backend.archive.copying(mine) as copying:
            proof, rows = proven(NOTHING_READ, whole_log(2))
            for task_id in mine:
                await copying.put(task_id, rows)
            await copying.seal(dict.fromkeys(mine, proof))

    await asyncio.gather(*(copy(order) for order in (tasks[0], tasks[1][::-1], tasks[2], tasks[3][::-1])))
    assert await backend.archive.due(None, 100) == []


async def test_pitfall_74_a_new_partition_waits_for_no_reader_and_no_copy(database: Database) -> None:
    backend = InPostgres(database)
    task_id, later = await backend.task(), await backend.task(made_ms=now_ms() + 50 * YEAR_MS)
    proof, rows = proven(NOTHING_READ, whole_log(COPY_ROWS))
    await backend.archive.prepare([task_id])
    async with backend.archive.copying([task_id]) as copying:
        await copying.put(task_id, rows)  # it holds its locks from here on
        async with asyncio.timeout(4):
            await archive(backend, later, whole_log(2))
        await copying.seal({task_id: proof})


# --- a database that is away ------------------------------------------------------------------------------------------


async def test_what_is_away_is_told_as_that(dsn: str) -> None:
    async with postgres_pool(dsn) as pool:
        backend = InPostgres(Database(pool))
        task_id = await backend.task()

    async def copy() -> None:
        async with backend.archive.copying([task_id]):
            pass

    for call in (
        backend.archive.due(None, 1),
        backend.archive.prepare([task_id]),
        copy(),
        backend.archive.owe(task_id),
        backend.archive.standing([task_id]),
        backend.archived.read(task_id, BEGINNING, 1),
        backend.archived.head(task_id),
    ):
        with pytest.raises(DatabaseUnavailable):
            await call
