"""How this house talks to PostgreSQL: a bounded pool, a deadline on everything, SQL in files."""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import asyncpg
import orjson

from service.model.caller import Own, Reach
from service.model.errors import DatabaseUnavailable, PlayheadError, translate

if TYPE_CHECKING:
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
    Connection: TypeAlias = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

CALL_SECONDS: Final = 5.0
"""The deadline of a call: of waiting for a connection, of making one, and of the statements on it together."""

PARTING_SHARE: Final = 0.2
"""Of that deadline: how long a connection may take to end on which a call was given up; its place is taken so long."""

FOREIGN: Final[dict[type[BaseException], type[PlayheadError]]] = {
    asyncpg.PostgresConnectionError: DatabaseUnavailable,
    asyncpg.InterfaceError: DatabaseUnavailable,
    asyncpg.InternalClientError: DatabaseUnavailable,  # an answer out of order; no server in the role that is wanted
    asyncpg.OperatorInterventionError: DatabaseUnavailable,  # shutting down, starting up
    asyncpg.InsufficientResourcesError: DatabaseUnavailable,  # too many connections, disk full
    asyncpg.TransactionRollbackError: DatabaseUnavailable,  # a conflict, a deadlock
    asyncpg.InvalidTransactionStateError: DatabaseUnavailable,  # a replica that was promoted elsewhere, a time-out
    asyncpg.ObjectNotInPrerequisiteStateError: DatabaseUnavailable,  # a lock that is not to be had in time
    asyncpg.InvalidAuthorizationSpecificationError: DatabaseUnavailable,  # a password that is being changed
    asyncpg.InvalidCatalogNameError: DatabaseUnavailable,  # a database that is being restored
    asyncpg.PostgresSystemError: DatabaseUnavailable,  # its disk
    asyncpg.InternalServerError: DatabaseUnavailable,
    OSError: DatabaseUnavailable,  # TimeoutError is one
}
"""What says that the database is away. What says that a statement of ours is wrong is not here."""

_TITLE: Final = re.compile(r"^-- :(\w+)(?: is (\w+) where (.+))?\n", re.MULTILINE)


def statements(name: str) -> Mapping[str, str]:
    """The statements of one .sql file by their titles, which are lines of the form `-- :title`.

    `-- :title is other where condition` is the other one, above it, with this in the place of its `true`: it decides
    with which index the plan begins.
    """
    _, *parts = _TITLE.split((files("service.adapters") / "sql" / f"{name}.sql").read_text())
    found: dict[str, str] = {}
    for title, other, condition, text in zip(*(parts[place::4] for place in range(4)), strict=True):
        found[title] = text if other is None else found[other].replace("WHERE true\n", f"WHERE {condition}\n", 1)
    return found


def reached(reach: Reach) -> tuple[bool, str | None]:
    """A reach as statements take it: whether it is everything, and else whose."""
    return (False, reach.owner) if isinstance(reach, Own) else (True, None)


class _Connection(asyncpg.Connection):
    """One that knows since when it is there, by the loop's clock."""

    __slots__ = ("opened_at",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.opened_at = asyncio.get_running_loop().time()


async def _connect(*arguments: Any, **named: Any) -> _Connection:
    connection: _Connection = await asyncpg.connect(*arguments, **named)
    try:
        await connection.set_type_codec(
            "json", schema="pg_catalog", encoder=lambda value: orjson.dumps(value).decode(), decoder=orjson.loads
        )
    except BaseException:
        connection.terminate()  # the pool would wait for it to close
        raise
    return connection


async def _reset(connection: asyncpg.Connection) -> None:
    """Nothing here sets anything for a session, so there is no round trip needed to unset it."""
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")


@asynccontextmanager
async def postgres_pool(dsn: str, *, connections: int = 16) -> AsyncGenerator["Pool"]:
    """Up to `connections` connections, made when they are needed. Raises DatabaseUnavailable where none can be made."""
    with translate(FOREIGN):
        pool = await asyncpg.create_pool(
            dsn,
            min_size=0,  # with a floor the library would make connections by itself, and log why it cannot
            max_size=connections,
            timeout=CALL_SECONDS,
            command_timeout=CALL_SECONDS,
            connect=_connect,
            connection_class=_Connection,
            reset=_reset,
        )
    try:
        with translate(FOREIGN):
            async with pool.acquire():
                pass
        yield pool
    finally:
        pool.terminate()


class Database:
    """A pool with the house's errors and deadlines.

    On a connection on which no answer came in time nothing is asked again; and since the others may have fallen silent
    with it (a router that forgot them, a server that moved), what was connected before is not used any more either.
    """

    def __init__(self, pool: "Pool", *, call_seconds: float = CALL_SECONDS) -> None:
        self._pool = pool
        self._call_seconds = call_seconds
        self._doubted_at = float("-inf")
        self._partings: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def connection(self, *, seconds: float | None = None) -> AsyncGenerator["Connection"]:
        """A connection for several statements, which have the deadline of one call together, or `seconds`.

        Raises DatabaseUnavailable at the deadline. Neither that nor a cancellation waits for the connection.
        """
        with translate(FOREIGN):
            async with asyncio.timeout(self._call_seconds if seconds is None else seconds):
                connection = await self._acquire()
                answered = True
                try:
                    yield connection
                except (asyncio.CancelledError, TimeoutError):
                    answered = False
                    raise
                finally:
                    if answered:
                        await self._pool.release(connection)
                    else:
                        self._part_from(connection)

    async def _acquire(self) -> "Connection":
        while True:
            connection = await self._pool.acquire()
            if cast("_Connection", connection).opened_at >= self._doubted_at:  # what the pool gives passes it on
                return connection
            connection.terminate()  # which makes room for another in the pool

    def _part_from(self, connection: "Connection") -> None:
        """Have what runs on it cancelled by the server, and close it, without waiting for that."""
        self._doubted_at = asyncio.get_running_loop().time()
        parting = asyncio.create_task(self._close(connection), name="database-parting")
        self._partings.add(parting)  # the end of the pool ends it too
        parting.add_done_callback(self._partings.discard)

    async def _close(self, connection: "Connection") -> None:
        with suppress(*FOREIGN):
            await connection.close(timeout=self._call_seconds * PARTING_SHARE)

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """All rows of one statement, a transaction of its own."""
        async with self.connection() as connection:
            return await connection.fetch(statement, *arguments)

    async def fetchrow(self, statement: str, *arguments: Any) -> asyncpg.Record | None:
        """The first row of one statement, a transaction of its own."""
        async with self.connection() as connection:
            return await connection.fetchrow(statement, *arguments)

    async def ping(self) -> None:
        """Answers when the database does. Raises DatabaseUnavailable."""
        await self.fetchrow("SELECT 1")
