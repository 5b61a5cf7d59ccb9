"""What every benchmark stands on: a folder, a Valkey on a TCP port, the embedded PostgreSQL, and how much to measure.

Valkey listens on TCP so that everyone reaches it the same way, redis-benchmark and Nchan included. It keeps an
append-only file with fsync every second, as the service's own does; the file is not rewritten meanwhile.
"""

import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis

from service.adapters.embedded import embedded_stores
from service.adapters.embedded.binaries import find_valkey
from service.adapters.postgres_schema import apply_schema
from service.settings import Settings
from tests.bench.processes import free_port, listening, raise_descriptor_limit, started


@dataclass(slots=True)
class Ground:
    """The stores of one run, and its size."""

    folder: Path
    redis_port: int
    postgres_url: str
    quick: bool
    notes: list[str] = field(default_factory=list)
    """What is to be said under the table."""

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis_port}"

    @property
    def rounds(self) -> int:
        """Samples of each side."""
        return 1 if self.quick else 3

    def sized(self, full: int, quick: int) -> int:
        """One of two sizes."""
        return quick if self.quick else full

    def settings(self) -> Settings:
        """The service's settings over these stores, and nothing else."""
        return Settings(redis_url=self.redis_url, postgres_url=self.postgres_url, http_port=0)

    def environment(self) -> dict[str, str]:
        """The same for a process of its own."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith("PLAYHEAD_")}
        ours = {"REDIS_URL": self.redis_url, "POSTGRES_URL": self.postgres_url, "HTTP_PORT": "0"}
        return outside | {f"PLAYHEAD_{name}": value for name, value in ours.items()}

    async def clear(self) -> None:
        """Empty Valkey: one workload's logs are no load for the next one."""
        async with Redis.from_url(self.redis_url) as redis:
            await redis.flushall()


@asynccontextmanager
async def open_ground(*, quick: bool) -> AsyncGenerator[Ground]:
    """Start the stores; they and all that they kept are gone at the end."""
    for name in [name for name in os.environ if name.startswith("PLAYHEAD_")]:
        del os.environ[name]
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="playhead-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # as root, PostgreSQL and nginx's workers are other users
        async with embedded_stores(folder / "stores", valkey=False) as stores, _valkey(folder) as port:
            assert stores.postgres is not None
            await apply_schema(stores.postgres)
            yield Ground(folder, port, stores.postgres, quick)


@asynccontextmanager
async def _valkey(folder: Path) -> AsyncGenerator[int]:
    port, log, data = free_port(), folder / "valkey.log", folder / "valkey"
    data.mkdir()
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(data),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "auto-aof-rewrite-percentage": "0",
        "maxmemory-policy": "noeviction",
        "logfile": str(log),
    }
    words = (word for name, value in options.items() for word in (f"--{name}", value))
    async with started([str(await find_valkey()), *words], log) as process:
        await listening(process, port, log)
        yield port
