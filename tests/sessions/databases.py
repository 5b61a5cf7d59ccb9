"""A database for a whole module of tests, on the embedded PostgreSQL or on another one, with the schema."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import pytest

from service.adapters.postgres import Database, postgres_pool
from service.adapters.postgres_schema import apply_schema
from service.model.ids import OperationId
from service.wiring import StoreUrls

OLDEST: Final = 15
SERVERS: Final = ("embedded", "another")


def server_url(name: str, request: pytest.FixtureRequest) -> str:
    """Where to administer the embedded server, or another one: that skips where none answers or it is too old."""
    if name == "embedded":
        stores: StoreUrls = request.getfixturevalue("stores")
        return stores.postgres
    url = os.environ.get("TEST_PLAYHEAD_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
    try:
        version = asyncio.run(_version(url))
    except (OSError, asyncpg.PostgresError) as error:
        pytest.skip(f"no PostgreSQL at TEST_PLAYHEAD_POSTGRES_URL or 127.0.0.1:5432: {type(error).__name__}")
    if version < OLDEST:
        pytest.skip(f"the PostgreSQL that answers has version {version}")
    return url


@contextmanager
def own_database(server: str, *, schema: bool = True) -> Iterator[str]:
    """A database with a name that nobody else uses, gone when this leaves."""
    name = f"playhead_test_{uuid.uuid4().hex}"
    url = urlsplit(server)._replace(path=f"/{name}").geturl()
    asyncio.run(_administer(server, f"CREATE DATABASE {name}"))
    try:
        if schema:
            asyncio.run(apply_schema(url))
        yield url
    finally:
        asyncio.run(_administer(server, f"DROP DATABASE {name} WITH (FORCE)"))


@asynccontextmanager
async def emptied(url: str) -> AsyncIterator[Database]:
    """That database through a pool, without a session in it."""
    async with postgres_pool(url) as pool:
        database = Database(pool)
        await database.fetch("DELETE FROM sessions")
        yield database


async def until_somebody_waits(database: Database) -> None:
    """Until some statement in this database waits for a lock that another one holds."""
    waiting = (
        "SELECT FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock' AND cardinality(pg_blocking_pids(pid)) > 0"
    )
    async with asyncio.timeout(5):
        while not await database.fetch(waiting):  # each look is a round trip
            pass


async def say(database: Database, session_id: str, sizes: Sequence[int]) -> list[str]:
    """Put messages into a session, each with so many bytes of parts; answers their ids in their order."""
    frame = len('[{"type":"text","text":""}]')
    await database.fetch(
        """
        INSERT INTO messages (session_id, id, role, parts, task_id)
        SELECT $1, $2 || n, CASE n % 2 WHEN 1 THEN 'user' ELSE 'assistant' END,
               ('[{"type":"text","text":"' || repeat('x', size) || '"}]')::json, playhead_uuid7()
        FROM unnest($3::int[]) WITH ORDINALITY AS said (size, n) ORDER BY n
        """,
        session_id,
        f"{session_id}.",
        [max(0, size - frame) for size in sizes],
    )
    return [f"{session_id}.{n}" for n in range(1, len(sizes) + 1)]


_BEGIN: Final = """
DO $$ DECLARE conversation text; turn uuid; BEGIN
    FOR i IN 1..%d LOOP
        INSERT INTO sessions (owner) VALUES ('local') RETURNING id INTO conversation;
        turn := playhead_begin_turn(conversation, 'asked', '[{"type": "text", "text": "Hi"}]', now(), NULL);
        UPDATE tasks SET status = 'running', started_at = now() WHERE id = turn;
        UPDATE leases SET epoch = 1 WHERE task_id = turn;
        PERFORM playhead_begin_operation(turn, 1, 'c1', 'render', 'remote', '{}', NULL, 3600, 1000);
        UPDATE tasks SET status = 'succeeded', ending = '[]', finished_at = now(), log_closed = true WHERE id = turn;
    END LOOP;
END $$
"""


async def begin_operations(database: "Database | asyncpg.Connection[Any]", count: int) -> list[OperationId]:
    """So many operations that are pending, each begun by a turn that has ended; the only ones there. In their order."""
    await database.fetch(_BEGIN % count)
    return [row["id"] for row in await database.fetch("SELECT id::text FROM operations ORDER BY seq")]


async def _version(url: str) -> int:
    connection = await asyncpg.connect(url, timeout=2)
    try:
        return connection.get_server_version().major
    finally:
        await connection.close()


async def _administer(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
