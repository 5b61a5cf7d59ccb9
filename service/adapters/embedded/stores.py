"""Both servers as one value: enter and they answer, leave and they are gone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from service.adapters.embedded.binaries import find_postgres, find_valkey
from service.adapters.embedded.folders import Folders, name_folders, open_folders, private_sockets
from service.adapters.embedded.kept import Ground
from service.adapters.embedded.lock import held_lock, is_held
from service.adapters.embedded.postgres import postgres_server, postgres_url
from service.adapters.embedded.privileges import Privileges, detect_privileges
from service.adapters.embedded.supervised import SupervisedServer
from service.adapters.embedded.valkey import valkey_server, valkey_url
from service.model.errors import ConfigurationError

Detect = Callable[[Sequence[Path]], Awaitable[Privileges]]


@dataclass(frozen=True, slots=True)
class StoreUrls:
    """Where the servers answer, for `redis.asyncio.from_url` and `asyncpg`; None for one that was not asked for."""

    redis: str | None
    postgres: str | None


@asynccontextmanager
async def embedded_stores(
    data_dir: Path, *, valkey: bool = True, postgres: bool = True, detect: Detect = detect_privileges
) -> AsyncIterator[StoreUrls]:
    """Start the servers on `data_dir` and give their URLs; both answer when this enters, and are gone when it leaves.

    Data is kept in `data_dir` between runs; `valkey.pid` and `postgres.pid` there name the running servers. One that
    dies is started again (see `SupervisedServer`). Leaving stops both cleanly within 20 seconds; if this process is
    killed instead, or the leaving is cancelled, their keepers do the same. `detect` chooses as whom Postgres runs.

    Raises ConfigurationError, one line for a person, when the start cannot go on: in use, not writable, no program, a
    server that ends at once (with the last line of its log).
    """
    if not (valkey or postgres):
        yield StoreUrls(None, None)
        return
    folders = await asyncio.to_thread(open_folders, data_dir)
    async with held_lock(folders.data, str(folders.sockets)) as lock:
        with private_sockets(folders):
            ground = Ground(folders.data, lock, str(folders.sockets))
            servers: list[SupervisedServer] = []
            starts = [_start_valkey(servers, folders, ground)] if valkey else []
            starts += [_start_postgres(servers, folders, ground, detect)] if postgres else []
            try:
                await _all(starts)
                yield StoreUrls(valkey_url(folders) if valkey else None, postgres_url(folders) if postgres else None)
            finally:
                for server in servers:  # first all, without waiting: a cancellation below then stops none of it
                    server.ask_to_stop()
                await _all([server.stop() for server in servers])


def running_stores(data_dir: Path) -> StoreUrls:
    """Where the servers answer that another process of this user runs on `data_dir`; None for what cannot be known.

    Nothing is started, and no folder is made.
    """
    try:
        folders = name_folders(data_dir)
        if not is_held(folders.data):
            return StoreUrls(None, None)
        return StoreUrls(
            valkey_url(folders) if folders.valkey_socket.exists() else None,
            postgres_url(folders) if folders.postgres_socket.exists() else None,
        )
    except (OSError, RuntimeError, ConfigurationError):
        return StoreUrls(None, None)


async def _start_valkey(servers: list[SupervisedServer], folders: Folders, ground: Ground) -> None:
    server = valkey_server(await find_valkey(), folders, ground)
    servers.append(server)
    await server.start()


async def _start_postgres(servers: list[SupervisedServer], folders: Folders, ground: Ground, detect: Detect) -> None:
    programs = await find_postgres()
    privileges = await detect([programs.postgres, folders.data, folders.sockets])
    server = await postgres_server(programs, privileges, folders, ground)
    servers.append(server)
    await server.start()


async def _all(steps: Sequence[Awaitable[None]]) -> None:
    """Await all at once; when one fails, the others are cancelled and its own error is raised, not a group of one."""

    async def one(step: Awaitable[None]) -> None:
        await step

    try:
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(one(step))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors.exceptions[0].__cause__
