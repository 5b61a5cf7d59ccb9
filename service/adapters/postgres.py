"""How this house talks to PostgreSQL: a bounded pool, a deadline on everything, SQL in files."""

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg
import orjson

from service.model.errors import DatabaseUnavailable, PlayheadError, translate

if TYPE_CHECKING:
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

CALL_SECONDS: Final = 5.0
"""The deadline of one statement, and of waiting for a connection."""

FOREIGN: Final[dict[type[BaseException], type[PlayheadError]]] = {
    asyncpg.PostgresConnectionError: DatabaseUnavailable,
    asyncpg.InterfaceError: DatabaseUnavailable,
    asyncpg.OperatorInterventionError: DatabaseUnavailable,  # shutting down, starting up
    asyncpg.InsufficientResourcesError: DatabaseUnavailable,  # too many connections, disk full
    asyncpg.SerializationError: DatabaseUnavailable,
    asyncpg.DeadlockDetectedError: DatabaseUnavailable,
    asyncpg.ReadOnlySQLTransactionError: DatabaseUnavailable,  # a replica that was promoted elsewhere
    OSError: DatabaseUnavailable,  # TimeoutError is one
}

_TITLE: Final = re.compile(r"^-- :(\w+)\n", re.MULTILINE)


def statements(name: str) -> Mapping[str, str]:
    """The statements of one .sql file by their titles, which are lines of the form `-- :title`."""
    _, *parts = _TITLE.split((files("service.adapters") / "sql" / f"{name}.sql").read_text())
    return dict(zip(parts[::2], parts[1::2], strict=True))


async def _prepare(connection: "Connection") -> None:
    await connection.set_type_codec(
        "json", schema="pg_catalog", encoder=lambda value: orjson.dumps(value).decode(), decoder=orjson.loads
    )


async def _reset(connection: "Connection") -> None:
    """Nothing here sets anything for a session, so there is no round trip needed to unset it."""
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")


@asynccontextmanager
async def postgres_pool(dsn: str, *, connections: int = 16) -> AsyncGenerator["Pool"]:
    """Up to `connections` connections, made when they are needed. Raises DatabaseUnavailable where none can be made."""
    with translate(FOREIGN):
        pool = await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=connections,
            timeout=CALL_SECONDS,
            command_timeout=CALL_SECONDS,
            init=_prepare,
            reset=_reset,
        )
    try:
        yield pool
    finally:
        pool.terminate()


class Database:
    """A pool with the house's errors."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator["Connection"]:
        """A connection for several statements."""
        with translate(FOREIGN):
            async with self._pool.acquire(timeout=CALL_SECONDS) as connection:
                yield connection

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
