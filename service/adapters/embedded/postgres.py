"""PostgreSQL: how its database folder is made, how it is started and asked. No TCP, small buffers, fsync on."""

import asyncio
import shutil
import signal
from pathlib import Path
from urllib.parse import quote

import asyncpg

from service.adapters.embedded.binaries import PostgresPrograms
from service.adapters.embedded.folders import Folders
from service.adapters.embedded.kept import Ground, Program, run_kept
from service.adapters.embedded.privileges import Privileges, give
from service.adapters.embedded.processes import command_of, read_pid
from service.adapters.embedded.supervised import SupervisedServer
from service.model.errors import ConfigurationError

DATA_FOLDER = "postgres"
UNFINISHED_FOLDER = "postgres.init"
INITDB_SECONDS = 120.0
ANSWER_SECONDS = 5.0

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # The log is for what happens to the server; an error in a statement is its caller's, and it has it already.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
}


def postgres_url(folders: Folders) -> str:
    """For asyncpg. The port is named so that PGPORT in the environment does not change it."""
    return f"postgresql://postgres@/postgres?host={quote(str(folders.sockets), safe='')}&port=5432"


async def postgres_server(
    programs: PostgresPrograms, privileges: Privileges, folders: Folders, ground: Ground
) -> SupervisedServer:
    """The server, not yet started, on a database folder that is made now if there is none (about a second).

    Raises ConfigurationError: initdb failed, the folder is of another major version or somebody else's.
    """
    place = folders.data / DATA_FOLDER
    if not await asyncio.to_thread(_is_there, place, programs.major):
        await _make_database(place, programs, privileges, ground)
    try:
        await asyncio.to_thread(_prepare, place, privileges)
    except OSError as error:
        raise ConfigurationError(f"PLAYHEAD_DATA_DIR: {place} cannot be used: {error}") from error
    options = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
    command = (str(programs.postgres), "-D", str(place), "-k", str(folders.sockets), *options)

    async def answers() -> bool:
        return await accepts_connections(postgres_url(folders))

    return SupervisedServer(Program("postgres", command, signal.SIGINT, privileges.identity), ground, answers)


async def accepts_connections(url: str) -> bool:
    """Whether a server lets us in within 5 seconds; False while it starts up or recovers."""
    try:
        connection = await asyncpg.connect(url, timeout=ANSWER_SECONDS)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    await connection.close(timeout=ANSWER_SECONDS)
    return True


async def _make_database(place: Path, programs: PostgresPrograms, privileges: Privileges, ground: Ground) -> None:
    unfinished = place.with_name(UNFINISHED_FOLDER)
    try:
        await asyncio.to_thread(_make_empty, unfinished, privileges)
        command = (
            str(programs.initdb), "--pgdata", str(unfinished), "--username=postgres", "--auth=trust",
            "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        program = Program("initdb", command, signal.SIGTERM, privileges.identity, log="postgres")
        await run_kept(program, ground, INITDB_SECONDS)
        await asyncio.to_thread(unfinished.rename, place)  # only a finished folder ever has this name
    except OSError as error:
        raise ConfigurationError(f"PLAYHEAD_DATA_DIR: {place} cannot be made: {error.strerror}") from error


def _is_there(place: Path, major: int) -> bool:
    try:
        with (place / "PG_VERSION").open(errors="replace") as file:
            found = file.readline(16).strip()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigurationError(f"PLAYHEAD_DATA_DIR: {place} cannot be read: {error.strerror}") from error
    if not found.isdecimal():
        raise ConfigurationError(f"PLAYHEAD_DATA_DIR: {place / 'PG_VERSION'} holds no version")
    if found != str(major):
        raise ConfigurationError(
            f"{place} is of PostgreSQL {found} and the program here is {major}: install that version, set "
            "PLAYHEAD_POSTGRES_URL, or set PLAYHEAD_DATA_DIR to another folder"
        )
    return True


def _make_empty(folder: Path, privileges: Privileges) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700)
    give(folder, privileges)


def _prepare(place: Path, privileges: Privileges) -> None:
    give(place, privileges)
    # After a crash its pid may be somebody else's by now (in a container it nearly always is), and Postgres would take
    # that process for itself. The lock says that none of ours runs; a postgres that a person started is left alone.
    if "postgres" not in command_of(read_pid(place / "postmaster.pid")):
        (place / "postmaster.pid").unlink(missing_ok=True)
