"""A Valkey and a PostgreSQL of the bench's own, which can be killed, emptied, cut short and started again."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from service.adapters.embedded.binaries import find_postgres, find_valkey
from service.adapters.embedded.folders import open_folders, private_sockets
from service.adapters.embedded.kept import Ground, KeptProcess, start_kept
from service.adapters.embedded.lock import held_lock, pid_file
from service.adapters.embedded.postgres import accepts_connections, postgres_server, postgres_url
from service.adapters.embedded.privileges import detect_privileges
from service.adapters.embedded.processes import read_pid
from service.adapters.embedded.supervised import SupervisedServer
from service.adapters.embedded.valkey import DATA_FOLDER, pings, valkey_server, valkey_url
from service.adapters.postgres_schema import apply_schema

START_SECONDS: Final = 20.0


class Store:
    """One of the project's embedded servers, but nobody starts it again when it dies.

    A keeper stops it when this process is gone.
    """

    def __init__(
        self,
        server: SupervisedServer,
        ground: Ground,
        socket: Path,
        url: str,
        answers: Callable[[], Awaitable[bool]],
        *options: str,
    ) -> None:
        self._program = replace(server.program, command=(*server.program.command, *options))
        self._ground = ground
        self._answers = answers
        self._kept: KeptProcess | None = None
        self.socket = socket
        self.url = url
        """Past every proxy."""

    @property
    def is_down(self) -> bool:
        """Whether it was killed, and not started again."""
        return self._kept is None or self._kept.is_gone

    async def start(self) -> None:
        """Start it on the data that there is; it answers when this returns."""
        self._kept = await start_kept(self._program, self._ground)
        async with asyncio.timeout(START_SECONDS):
            while not await self._answers():
                assert not self._kept.is_gone, self._kept.last_words()
                await asyncio.sleep(0.01)  # a foreign process sends us no signal

    async def kill(self) -> None:
        """SIGKILL; returns when all of its processes are gone."""
        assert self._kept is not None
        os.kill(read_pid(pid_file(self._ground.data, self._program.name)), signal.SIGKILL)
        await self._kept.wait()
        await self._kept.last_is_gone()

    async def stop(self) -> None:
        """In peace."""
        if self._kept is not None:
            await self._kept.stop()


class Stores:
    """Both."""

    def __init__(self, valkey: Store, postgres: Store, valkey_data: Path) -> None:
        self.valkey = valkey
        self.postgres = postgres
        self._valkey_data = valkey_data

    def lose_appends(self, log_key: str, count: int) -> None:
        """Cut the append-only file of a killed Valkey in front of this log's last `count` appends."""
        (path,) = (self._valkey_data / "appendonlydir").glob("*.incr.aof")
        raw = path.read_bytes()
        appends = [start for start, words in _transactions(raw) if b"XADD" in words and log_key.encode() in words]
        assert len(appends) >= count, "there is not so much to lose"
        os.truncate(path, appends[-count])

    def lose_everything(self) -> None:
        """Remove the data of a killed Valkey."""
        shutil.rmtree(self._valkey_data)
        self._valkey_data.mkdir(mode=0o700)


def _transactions(raw: bytes) -> Iterator[tuple[int, set[bytes]]]:
    """Where each transaction of an append-only file begins, and all words in it; a lone command is one, too."""
    begins, words, inside, at = 0, set[bytes](), False, 0
    while at < len(raw):
        start, (command, at) = at, _command(raw, at)
        inside = inside or command[0] == b"MULTI"
        begins = start if not words else begins
        words.update(command)
        if not inside or command[0] == b"EXEC":
            yield begins, words
            words, inside = set(), False


def _command(raw: bytes, at: int) -> tuple[list[bytes], int]:
    """One command and where it ends: `*2`, then `$4`, `PING` …, each line ended by CR LF."""
    end = raw.index(b"\r\n", at)
    count, at, words = int(raw[at + 1 : end]), end + 2, []
    for _ in range(count):
        end = raw.index(b"\r\n", at)
        size = int(raw[at + 1 : end])
        words.append(raw[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return words, at


@asynccontextmanager
async def own_stores(data: Path) -> AsyncGenerator[Stores]:
    """Both, started, with the schema in place; gone at the end of the block."""
    folders = open_folders(data)
    async with held_lock(folders.data, str(folders.sockets)) as lock:
        with private_sockets(folders):
            ground = Ground(folders.data, lock, str(folders.sockets))
            programs = await find_postgres()
            privileges = await detect_privileges([programs.postgres, folders.data, folders.sockets])
            valkey = Store(
                valkey_server(await find_valkey(), folders, ground),
                ground,
                folders.valkey_socket,
                valkey_url(folders),
                lambda: pings(folders.valkey_socket),
            )
            postgres = Store(
                await postgres_server(programs, privileges, folders, ground),
                ground,
                folders.postgres_socket,
                postgres_url(folders),
                lambda: accepts_connections(postgres_url(folders)),
                *("-c", "max_connections=200"),  # four pools, and the bench's own
            )
            try:
                await asyncio.gather(valkey.start(), postgres.start())
                await apply_schema(postgres.url)
                yield Stores(valkey, postgres, folders.data / DATA_FOLDER)
            finally:
                await asyncio.gather(valkey.stop(), postgres.stop())
