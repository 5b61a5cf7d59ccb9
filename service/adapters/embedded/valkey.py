"""Valkey: how it is started and asked. Append-only file on, no snapshots, nothing evicted, no TCP."""

import asyncio
import signal
from pathlib import Path
from urllib.parse import quote

from service.adapters.embedded.folders import Folders
from service.adapters.embedded.kept import Ground, Program
from service.adapters.embedded.supervised import SupervisedServer
from service.model.errors import ConfigurationError

DATA_FOLDER = "valkey"
ANSWER_SECONDS = 2.0


def valkey_url(folders: Folders) -> str:
    """For redis-py's `from_url`."""
    return f"unix://{quote(str(folders.valkey_socket))}"


def valkey_server(program: Path, folders: Folders, ground: Ground) -> SupervisedServer:
    """The server, not yet started. Raises ConfigurationError when its data folder cannot be made.

    When the machine dies, at most the last second of writes is lost (`appendfsync everysec`); when only Valkey does,
    none is.
    """
    place = folders.data / DATA_FOLDER
    try:
        place.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"PLAYHEAD_DATA_DIR: {place} cannot be made: {error.strerror}") from error
    settings = {
        "port": "0",
        "unixsocket": str(folders.valkey_socket),
        "unixsocketperm": "700",
        "dir": str(place),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    options = (word for name, value in settings.items() for word in (f"--{name}", value))

    async def answers() -> bool:
        return await pings(folders.valkey_socket)

    return SupervisedServer(Program("valkey", (str(program), *options), signal.SIGTERM), ground, answers)


async def pings(socket: Path) -> bool:
    """Whether a server on the socket answers a PING with PONG within 2 seconds; False while it loads its data."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
