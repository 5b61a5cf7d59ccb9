"""Calls to a PostgreSQL that falls silent: how long they take, and on which connection the next one goes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack

import asyncpg
import pytest

from service.adapters.postgres import Database, postgres_pool
from service.adapters.postgres_tasks import PostgresTasks
from service.model.errors import DatabaseUnavailable
from tests.adapters.postgres_line import Line, line_to
from tests.sessions.databases import until_somebody_waits

pytestmark = pytest.mark.alone

CALL_SECONDS = 0.5
TOLERANCE_SECONDS = 0.4
"""For a machine that has other things to do. Half a deadline more would be noticed."""
CONNECTIONS = 4


@pytest.fixture
async def line(dsn: str) -> AsyncIterator[Line]:
    async with line_to(dsn) as line:
        yield line


@pytest.fixture
async def far(line: Line) -> AsyncIterator[Database]:
    """A database at the other end of the line, with all the connections that it may have made already."""
    async with postgres_pool(line.url, connections=CONNECTIONS) as pool:
        database = Database(pool, call_seconds=CALL_SECONDS)
        async with AsyncExitStack() as stack:
            for _ in range(CONNECTIONS):
                await stack.enter_async_context(database.connection())
        assert line.open == CONNECTIONS
        yield database


async def taken(call: Awaitable[object]) -> float:
    """How long it takes until the database is told to be away."""
    begun = asyncio.get_running_loop().time()
    with pytest.raises(DatabaseUnavailable):
        await call
    return asyncio.get_running_loop().time() - begun


def the_deadline() -> object:
    return pytest.approx(CALL_SECONDS + TOLERANCE_SECONDS / 2, abs=TOLERANCE_SECONDS / 2)


async def until_closed(line: Line, connections: int) -> None:
    """Until no more than so many connections are left open."""
    async with asyncio.timeout(5):
        while line.open > connections:
            await line.changed()


async def test_pitfall_55_a_call_on_a_silent_connection_has_one_deadline_and_the_next_call_another_connection(
    line: Line, far: Database
) -> None:
    line.fall_silent()
    assert await taken(far.ping()) == the_deadline()
    begun = asyncio.get_running_loop().time()
    await asyncio.gather(*(far.ping() for _ in range(CONNECTIONS)))
    assert asyncio.get_running_loop().time() - begun < TOLERANCE_SECONDS
    await until_closed(line, CONNECTIONS)


async def test_pitfall_55_in_a_black_hole_every_call_has_one_deadline(line: Line, far: Database) -> None:
    line.fall_silent()
    line.is_silent = True
    for _ in range(2):
        assert await taken(far.ping()) == the_deadline()
    together = await asyncio.gather(*(taken(far.ping()) for _ in range(3 * CONNECTIONS)))
    assert max(together) == the_deadline()
    line.is_silent = False
    await far.ping()


async def test_waiting_for_a_connection_and_the_statement_have_one_deadline_together(far: Database) -> None:
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        for _ in range(CONNECTIONS):
            await stack.enter_async_context(far.connection())
        waiting = loop.create_task(taken(far.fetch("SELECT pg_sleep(10)")))
        await asyncio.sleep(CALL_SECONDS / 2)
    assert await waiting == the_deadline()


async def test_pitfall_55_a_cancelled_call_ends_at_once_and_what_was_silent_is_not_used_again(
    line: Line, far: Database
) -> None:
    """As a renewal is cancelled that has a shorter deadline of its own: the next one must not meet the same silence."""
    line.fall_silent()
    for call in (far.ping(), PostgresTasks(far).renew([], 60.0)):
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(CALL_SECONDS / 10):
                await call
        assert loop.time() - begun < CALL_SECONDS / 10 + TOLERANCE_SECONDS
        await asyncio.wait_for(far.ping(), TOLERANCE_SECONDS)
        line.fall_silent()


async def test_a_call_that_is_cancelled_while_its_connection_is_made_ends_at_once(line: Line, far: Database) -> None:
    line.fall_silent()
    line.is_silent = True
    assert await taken(far.ping()) == the_deadline()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(CALL_SECONDS / 10):
            await far.ping()
    assert loop.time() - begun < CALL_SECONDS / 10 + TOLERANCE_SECONDS


async def test_a_call_that_waits_for_a_lock_takes_its_deadline_and_leaves_nothing_at_the_server(
    far: Database, database: Database
) -> None:
    """A statement that went on waiting would cost the server a connection for each call that was given up."""
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with database.connection() as connection, connection.transaction():
        await connection.fetch("LOCK TABLE sessions")
        call = asyncio.get_running_loop().create_task(taken(far.fetch("SELECT FROM sessions")))
        await until_somebody_waits(database)
        assert await call == the_deadline()
        async with asyncio.timeout(2):
            while await database.fetch(waiting):  # each look is a round trip
                pass
    await far.fetch("SELECT FROM sessions")


async def test_who_gives_up_many_calls_at_once_has_all_connections_again(line: Line, far: Database) -> None:
    line.fall_silent()
    calls = [asyncio.create_task(far.ping()) for _ in range(3 * CONNECTIONS)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    assert {type(result) for result in await asyncio.gather(*calls, return_exceptions=True)} == {asyncio.CancelledError}
    await asyncio.gather(*(far.ping() for _ in range(3 * CONNECTIONS)))
    await until_closed(line, CONNECTIONS)


# --- what a database says ---------------------------------------------------------------------------------------------

AWAY = {
    "08006": "connection_failure",
    "25006": "read_only_sql_transaction",
    "25P03": "idle_in_transaction_session_timeout",
    "28000": "invalid_authorization_specification",
    "28P01": "invalid_password",
    "3D000": "invalid_catalog_name",
    "40001": "serialization_failure",
    "40P01": "deadlock_detected",
    "53300": "too_many_connections",
    "55P03": "lock_not_available",
    "57014": "query_canceled",
    "57P01": "admin_shutdown",
    "57P03": "cannot_connect_now",
    "58030": "io_error",
    "XX000": "internal_error",
    "XX001": "data_corrupted",
}
MISTAKES = {"42601": "syntax_error", "42P01": "undefined_table", "22012": "division_by_zero", "23502": "not_null"}


async def said(database: Database, code: str) -> BaseException | None:
    """What comes of it where the server says this, by its SQLSTATE."""
    statement = f"DO $$ BEGIN RAISE EXCEPTION 'as asked' USING ERRCODE = '{code}'; END $$"
    try:
        async with database.connection() as connection:
            await connection.execute(statement)
    except Exception as error:  # noqa: BLE001
        return error
    return None


@pytest.mark.parametrize("code", AWAY, ids=AWAY.values())
async def test_what_means_that_the_database_is_away_is_told_as_that(database: Database, code: str) -> None:
    assert isinstance(await said(database, code), DatabaseUnavailable)


@pytest.mark.parametrize("code", MISTAKES, ids=MISTAKES.values())
async def test_a_mistake_of_ours_is_not_told_as_an_outage(database: Database, code: str) -> None:
    """Whoever waits for a store that is away would wait for ever."""
    assert isinstance(await said(database, code), asyncpg.PostgresError)


@pytest.mark.parametrize(
    ("statement", "value"), [("SELECT $1::uuid", "not a uuid"), ("SELECT $1::json", "\ud800"), ("SELECT $1::json", {1})]
)
async def test_what_cannot_be_sent_is_no_outage(database: Database, statement: str, value: object) -> None:
    with pytest.raises(asyncpg.DataError):
        await database.fetch(statement, value)


async def test_a_database_that_is_gone_or_not_let_in_is_away(dsn: str) -> None:
    """As the connections that are made find it."""
    gone, refused = dsn.replace("/playhead_test", "/no_such"), dsn.replace("//postgres@", "//nobody@")
    assert len({dsn, gone, refused}) == 3
    for url in (gone, refused):
        with pytest.raises(DatabaseUnavailable):
            async with postgres_pool(url):
                pass
