"""M11: events a second that one archiver moves from Valkey into the partitioned table, proof and chain included.

Each sample has closed logs of its own: short ones as of usual turns, which travel many in a transaction, and long ones,
which have one each. Against a bare COPY of the same rows, made beforehand, into a table of the same shape.
"""

import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Final
from uuid import UUID

import asyncpg

from service.adapters.postgres_archive import COPY_ROWS
from service.model.chain import NOTHING_READ, Row, proven
from service.model.events import Finish, FinishMetadata, Usage
from service.model.ids import TaskId
from service.model.position import BEGINNING
from service.registry.archive import Archivist
from service.registry.writer import log_writer
from service.wiring import House, open_house
from tests.bench import table
from tests.bench.ground import Ground
from tests.bench.ours import Tasks, clock_ms
from tests.bench.table import Sample, Target, against, alternate

SIZES: Final = ((400, 50), (4, 5000))
"""Logs, and events of each."""

TARGET: Final = Target(0.6)

_CLOSE: Final = "UPDATE tasks SET status = 'succeeded', ending = '[]', log_closed = true WHERE id = $1"
_TWIN: Final = """
    CREATE TABLE bare_events (LIKE log_events INCLUDING ALL) PARTITION BY RANGE (task_id);
    CREATE TABLE bare_events_all PARTITION OF bare_events FOR VALUES FROM (MINVALUE) TO (MAXVALUE)
"""


async def run(ground: Ground) -> list[table.Row]:
    """A row for each size."""
    rows: list[table.Row] = []
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(open_house(ground.settings()))
        tasks = Tasks(house, await stack.enter_async_context(log_writer(house.logs, clock_ms)))
        database = await asyncpg.connect(ground.postgres_url)
        stack.push_async_callback(database.close)
        await database.execute(_TWIN)
        for full, events in SIZES:
            logs = ground.sized(full, max(1, full // 10))
            fillings = [await _fill(house, tasks, database, logs, events) for _ in range(ground.rounds)]
            sides: dict[str, Sample] = {
                "ours": partial(_ours, house, database, iter(fillings)),
                "copy": partial(_bare, database, iter(fillings)),
            }
            taken = await alternate(ground.rounds, sides)
            reference = ("bare COPY", taken["copy"])
            rows.append(against("M11", f"archive {logs} logs of {events}", "/s", taken["ours"], reference, TARGET))
    await ground.clear()
    return rows


Filling = dict[TaskId, list[Row]]
"""Logs that are hot, and the rows that they become."""


async def _fill(house: House, tasks: Tasks, database: "asyncpg.Connection", logs: int, events: int) -> Filling:
    """Logs with their terminal event, that the database does not call closed yet."""
    filling: Filling = {}
    finish = Finish("stop", FinishMetadata(TaskId("t"), "succeeded", "", Usage(0, 0), "", ""))
    for _ in range(logs):
        task = await tasks.filled(events - 1)
        await task.log.append(finish)
        page = await house.logs.read(task.log.task_id, BEGINNING, events)
        _, filling[task.log.task_id] = proven(NOTHING_READ, page.events)
    return filling


async def _ours(house: House, database: "asyncpg.Connection", fillings: Iterator[Filling]) -> float:
    filling = next(fillings)
    await database.executemany(_CLOSE, [(task_id,) for task_id in filling])
    archivist = Archivist(house.logs, house.hot, house.archive, hot_ttl_seconds=3600)
    begun = time.perf_counter()
    while await archivist.archive_some():
        pass
    seconds = time.perf_counter() - begun
    assert await database.fetchval("SELECT count(*) FROM log_archives WHERE task_id = ANY ($1)", list(filling)) == len(
        filling
    )
    return sum(map(len, filling.values())) / seconds


async def _bare(database: "asyncpg.Connection", fillings: Iterator[Filling]) -> float:
    records = [(UUID(task_id), *row) for task_id, rows in next(fillings).items() for row in rows]
    begun = time.perf_counter()
    for start in range(0, len(records), COPY_ROWS):
        await database.copy_records_to_table("bare_events", records=records[start : start + COPY_ROWS])
    return len(records) / (time.perf_counter() - begun)
