"""A server of a test's own, configured as the test wants it: the embedded Valkey, or a Redis 7 that is on PATH."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.adapters.embedded.binaries import find_valkey, major_version

START_SECONDS = 15.0
OLDEST_REDIS = 7


@dataclass(slots=True)
class OwnValkey:
    """It listens at `path`, a Unix socket in a folder that goes with it."""

    program: Path
    folder: Path
    options: tuple[str, ...]
    process: asyncio.subprocess.Process | None = field(default=None)

    @property
    def path(self) -> Path:
        return self.folder / "valkey.sock"

    def url(self, user: str = "", *, database: int = 0) -> str:
        """With `user` as `name:password`."""
        return f"unix://{user and f'{user}@'}{self.path}?db={database}"

    async def start(self) -> None:
        """Start it, and return when it listens. A second time: after `kill`, on the same data."""
        self.process = await asyncio.create_subprocess_exec(
            str(self.program),
            *("--port", "0", "--unixsocket", str(self.path), "--dir", str(self.folder), "--save", ""),
            *("--appendonly", "yes", *self.options),
            stdout=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(START_SECONDS):
            while not await listens(self.path):
                assert self.process.returncode is None
                await asyncio.sleep(0.01)  # a foreign process sends us no signal

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()


async def listens(path: Path) -> bool:
    """Whether it answers a PING in any way: one with a password refuses it."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.write(b"PING\r\n")
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer.startswith((b"+PONG", b"-NOAUTH"))


@asynccontextmanager
async def own_valkey(*options: str) -> AsyncIterator[OwnValkey]:
    """Run one with these options of its command line, such as `"--maxmemory-policy", "allkeys-lru"`."""
    async with _running(await find_valkey(), options) as valkey:
        yield valkey


@asynccontextmanager
async def own_redis7() -> AsyncIterator[OwnValkey]:
    """Run a Redis 7; skips where there is none."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server on PATH")
    if (major := await major_version(Path(program))) < OLDEST_REDIS:
        pytest.skip(f"the redis-server on PATH has version {major}")
    async with _running(Path(program), ()) as redis:
        yield redis


@asynccontextmanager
async def _running(program: Path, options: tuple[str, ...]) -> AsyncIterator[OwnValkey]:
    with tempfile.TemporaryDirectory(prefix="playhead-") as folder:
        server = OwnValkey(program, Path(folder), options)
        try:
            await server.start()
            yield server
        finally:
            if server.process is not None and server.process.returncode is None:
                await server.kill()
