"""The archive of logs in PostgreSQL: events in monthly partitions, and a row a log that says that it is whole."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from service.adapters.postgres import FOREIGN, Database, statements
from service.model.chain import Proof, Row
from service.model.ids import Epoch, TaskId
from service.model.log import Head, Page, Standing
from service.model.position import BEGINNING, Position

if TYPE_CHECKING:
    from service.adapters.postgres import Connection

_SQL: Final = statements("archive")

COPY_SECONDS: Final = 300.0
"""The deadline of a transaction that copies logs; each statement in it has that of a call. A log that takes longer is
tried again when the others had their turn."""

COPY_ROWS: Final = 4096
COPY_BYTES: Final = 1024 * 1024
"""Rows are gathered up to one of these before they are sent."""

YOUNG: Final = timedelta(hours=1)
"""A task may not be there yet, or not be seen yet, whose id is younger."""

_COLUMNS: Final = ("task_id", "n", "ms", "data")


class PostgresArchive:
    """The ports `LogArchive`, `Seals` and, for what is archived, `LogSource`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def due(self, after: TaskId | None, limit: int) -> Sequence[TaskId]:
        return [TaskId(row["id"]) for row in await self._database.fetch(_SQL["due"], after, limit)]

    async def prepare(self, task_ids: Sequence[TaskId]) -> None:
        await self._database.fetch(_SQL["make_partitions"], task_ids)

    @asynccontextmanager
    async def copying(self, task_ids: Sequence[TaskId]) -> AsyncGenerator["PostgresCopying"]:
        async with self._database.connection(seconds=COPY_SECONDS) as connection:
            await connection.execute("BEGIN")
            try:
                taken = await connection.fetch(_SQL["take"], task_ids)
                yield PostgresCopying(connection, [TaskId(row["id"]) for row in taken])
                await connection.execute("COMMIT")
            except (asyncio.CancelledError, TimeoutError):
                raise  # the connection is given up, and the transaction with it
            except BaseException:
                with suppress(*FOREIGN):
                    await connection.execute("ROLLBACK")
                raise

    async def owe(self, task_id: TaskId) -> bool:
        return bool(await self._database.fetch(_SQL["owe"], task_id))

    async def standing(self, task_ids: Sequence[TaskId]) -> Standing:
        rows = await self._database.fetch(_SQL["standing"], task_ids, YOUNG)
        return Standing(
            archived=[TaskId(row["id"]) for row in rows if row["archived"]],
            unknown=[TaskId(row["id"]) for row in rows if row["archived"] is False],
            database=rows[0]["database"],
        )

    async def seal_of(self, task_id: TaskId) -> Proof | None:
        row = await self._database.fetchrow(_SQL["seal_of"], task_id)
        if row is None:
            return None
        return Proof(row["events"], Position(row["last_ms"], row["last_n"]), row["sha256"], ended=True)

    async def head(self, task_id: TaskId) -> Head:
        row = await self._database.fetchrow(_SQL["head"], task_id)
        return _head(None if row is None else Position(row["last_ms"], row["last_n"]))

    async def read(self, task_id: TaskId, after: Position, count: int) -> Page:
        rows = await self._database.fetch(_SQL["read"], task_id, after.ms, after.n, count)
        if not rows:
            return Page(after == BEGINNING, [], _head(None))
        known = after == BEGINNING or rows[0]["known"]
        events = [(b"%d-%d" % (ms, n), data) for _, _, _, ms, n, data in rows if n is not None]
        return Page(known, events, _head(Position(rows[0]["last_ms"], rows[0]["last_n"])))


class PostgresCopying:
    """The port `Copying`: the transaction that `connection` is in."""

    def __init__(self, connection: "Connection", task_ids: Sequence[TaskId]) -> None:
        self.task_ids = task_ids
        self._connection = connection
        self._records: list[tuple[UUID, int, int, bytes]] = []
        self._bytes = 0

    async def put(self, task_id: TaskId, rows: Sequence[Row]) -> None:
        its_id = UUID(task_id)
        self._records += [(its_id, *row) for row in rows]
        self._bytes += sum(len(data) for _, _, data in rows)
        if len(self._records) >= COPY_ROWS or self._bytes >= COPY_BYTES:
            await self._send()

    async def seal(self, proofs: Mapping[TaskId, Proof]) -> None:
        if self._records:
            await self._send()
        sealed = list(proofs.values())
        await self._connection.execute(
            _SQL["seal"],
            list(proofs),
            [proof.events for proof in sealed],
            [proof.last.n for proof in sealed],
            [proof.last.ms for proof in sealed],
            [proof.link for proof in sealed],
        )

    async def _send(self) -> None:
        records, self._records, self._bytes = self._records, [], 0
        await self._connection.copy_records_to_table("log_events", records=records, columns=_COLUMNS)


def _head(last: Position | None) -> Head:
    """Only what is closed is archived; nobody holds it."""
    return Head(last or BEGINNING, last is not None, Epoch(0))
