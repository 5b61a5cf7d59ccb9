"""The schema: applied on an empty database, checked on every other."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import asyncpg

from service.adapters.postgres import CALL_SECONDS
from service.model.errors import ConfigurationError, StoreUnreachable

OLDEST: Final = 15
"""The oldest major version of PostgreSQL."""

KNOWN_VERSION: Final = 7
"""The version that schema.sql writes."""

ISOLATION: Final = "read committed"
"""What our statements rely on: who has waited for a lock sees what was committed meanwhile. It is the server's default,
and looked at here, since setting it would take a session, which a pooler does not keep."""

_LOCK: Final = 7_529_432_610
"""The advisory lock under which a schema is applied: two that apply at once come one after the other."""


def schema_sql() -> str:
    """The whole DDL: in a wheel beside the package's modules, in a checkout at its root."""
    packaged = files("service") / "schema.sql"
    if packaged.is_file():
        return packaged.read_text()
    return (Path(str(files("service"))).parent / "schema.sql").read_text()


async def apply_schema(dsn: str) -> bool:
    """Make an empty database ready; answers whether it was empty. Atomic, and harmless to repeat.

    Raises ConfigurationError where the database has another version or isolation, refuses, or cannot be reached.
    """
    return await _with_schema(dsn, apply=True)


async def check_schema(dsn: str) -> None:
    """Raises ConfigurationError where the database is not ready for this program, or cannot be reached."""
    await _with_schema(dsn, apply=False)


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What a database is."""

    version: str
    """Of the server."""
    schema_version: int | None
    """None where there is no schema."""
    fsync: bool
    synchronous_commit: str
    fault: str | None
    """Why this program cannot use it; None where it can."""


async def database_facts(dsn: str) -> DatabaseFacts:
    """Ask what the database is. Raises ConfigurationError, StoreUnreachable where it does not say."""
    async with _connected(dsn) as connection:
        has_schema = await connection.fetchval("SELECT to_regclass('schema_version')") is not None
        version = await connection.fetchval("SELECT version FROM schema_version") if has_schema else None
        ((server, fsync, commits),) = await connection.fetch(
            "SELECT split_part(current_setting('server_version'), ' ', 1), current_setting('fsync')::boolean,"
            " current_setting('synchronous_commit')"
        )
        fault = await _server_fault(connection) or schema_fault(version)
        return DatabaseFacts(server, version, fsync, commits, fault)


async def _with_schema(dsn: str, *, apply: bool) -> bool:
    async with _connected(dsn) as connection:
        transaction = connection.transaction()
        await transaction.start()
        if fault := await _server_fault(connection):
            raise ConfigurationError(f"PLAYHEAD_POSTGRES_URL: {fault}")
        applied = await _apply_or_check(connection, apply=apply)
        await transaction.commit()
        await connection.close(timeout=CALL_SECONDS)
        return applied


@asynccontextmanager
async def _connected(dsn: str) -> AsyncGenerator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection for the time of the block. What goes wrong is one line that names the setting."""
    try:
        connection = await asyncpg.connect(dsn, timeout=CALL_SECONDS, command_timeout=60)
        try:
            yield connection
        finally:
            connection.terminate()  # a ROLLBACK would have to be waited for, by a stop too
    except asyncpg.PostgresError as error:
        # The server's own words, of which the first line names no secret: no such database, no such user, no room.
        reason = str(error).partition("\n")[0]
        raise ConfigurationError(f"PLAYHEAD_POSTGRES_URL: the database refuses: {reason}") from error
    except asyncpg.TargetServerAttributeNotMatched as error:
        raise ConfigurationError(
            "PLAYHEAD_POSTGRES_URL: the database is not what the URL's target_session_attrs asks for"
        ) from error
    except asyncpg.InternalClientError as error:
        raise ConfigurationError("PLAYHEAD_POSTGRES_URL: what answers there is no PostgreSQL") from error
    except OSError as error:
        raise StoreUnreachable("PLAYHEAD_POSTGRES_URL: the database cannot be reached") from error
    except (asyncpg.InterfaceError, ValueError) as error:
        raise ConfigurationError("PLAYHEAD_POSTGRES_URL: the database cannot be reached") from error


async def _apply_or_check(connection: "asyncpg.Connection[asyncpg.Record]", *, apply: bool) -> bool:
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    if await connection.fetchval("SELECT to_regclass('schema_version')") is not None:
        version = await connection.fetchval("SELECT version FROM schema_version")
        if fault := schema_fault(version):
            raise ConfigurationError(f"PLAYHEAD_POSTGRES_URL: {fault}")
        return False
    if not apply:
        raise ConfigurationError(f"PLAYHEAD_POSTGRES_URL: {schema_fault(None)}")
    await connection.execute(schema_sql())
    return True


async def _server_fault(connection: "asyncpg.Connection[asyncpg.Record]") -> str | None:
    ((replica, read_only, isolation),) = await connection.fetch(
        "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean,"
        " current_setting('default_transaction_isolation')"
    )
    major = connection.get_server_version().major
    return fault_of(major, replica=replica, read_only=read_only, isolation=isolation)


def fault_of(major: int, *, replica: bool, read_only: bool, isolation: str) -> str | None:
    """Why a server that is this cannot be used; None where it can."""
    if major < OLDEST:
        return f"PostgreSQL {OLDEST} or later is needed, this is version {major}"
    if replica:
        return "a primary is needed, this is a replica"
    if read_only:
        return "its transactions are read-only by default: set default_transaction_read_only to off"
    if isolation != ISOLATION:
        return (
            f"its default_transaction_isolation is {isolation!r}, this program needs {ISOLATION!r} "
            "(ALTER DATABASE or ALTER ROLE … SET default_transaction_isolation)"
        )
    return None


def schema_fault(version: int | None) -> str | None:
    """Why a database with this version of the schema, or none, cannot be used; None where it can."""
    if version is None:
        return "no schema there yet: run `playhead schema apply`"
    if version > KNOWN_VERSION:
        return (
            f"the database has schema version {version}, this program knows {KNOWN_VERSION}: "
            "it is too old for this database"
        )
    if version < KNOWN_VERSION:
        return f"the database has schema version {version}, this program needs {KNOWN_VERSION}"
    return None
