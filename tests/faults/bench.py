"""The processes of the bench: two doors, two workers, an archiver, each with links of its own to both stores."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import orjson

from tests.faults.link import Link, link_to
from tests.faults.patience import until
from tests.faults.stores import Stores, own_stores
from tests.faults.truth import Truth, truth_of
from tests.processes import Service, free_port, serve

LEASE_SECONDS: Final = 2.0
HEARTBEAT_SECONDS: Final = 1.0
WRITE_TIMEOUT_SECONDS: Final = 3.0
CLAIM_SECONDS: Final = 10.0

READY: Final[Mapping[str, str]] = {
    **{"http": "listening on", "tasks": "model"},
    **{"archiver": "archiver", "completions": "amqp"},
}
"""How the last line begins that a part prints at its start."""

SETTINGS: Final[Mapping[str, str]] = {
    "LEASE_SECONDS": str(LEASE_SECONDS),
    "HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
    "WRITE_TIMEOUT_SECONDS": str(WRITE_TIMEOUT_SECONDS),
}


class Member:
    """One process of the service; the same links lead it to the stores however often it is started again."""

    def __init__(
        self,
        name: str,
        part: str,
        redis: Link,
        postgres: Link,
        folder: Path,
        settings: Mapping[str, str] = SETTINGS,
        database: str = "postgres",
    ) -> None:
        self.name = name
        self.redis = redis
        self.postgres = postgres
        self._settings = settings
        self._database = database
        self._part = part
        self._log = folder / f"{name}.log"
        self._port = str(free_port())
        self._running = AsyncExitStack()
        self._service: Service | None = None

    @property
    def service(self) -> Service:
        assert self._service is not None
        return self._service

    @property
    def pid(self) -> int:
        return self.service.process.pid

    async def start(self) -> None:
        """On the same port each time; it works when this returns."""
        settings = dict(self._settings) | {
            "REDIS_URL": f"redis://127.0.0.1:{self.redis.port}/0",
            "POSTGRES_URL": f"postgresql://postgres@127.0.0.1:{self.postgres.port}/{self._database}?sslmode=disable",
            "HTTP_PORT": self._port,
        }
        run = serve(self._log, settings, "--only", self._part, ready=READY[self._part])
        self._service = await self._running.enter_async_context(run)

    @property
    def address(self) -> tuple[str, int]:
        """Where a door listens."""
        url = urlsplit(self.service.url)
        assert url.hostname is not None
        assert url.port is not None
        return url.hostname, url.port

    async def stop(self) -> None:
        """SIGTERM; it must end well."""
        assert await self.service.stop() == 0, f"{self.name} did not end well"

    async def kill(self) -> None:
        """SIGKILL."""
        await self.service.stop(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP."""
        self.service.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT."""
        self.service.process.send_signal(signal.SIGCONT)

    async def close(self) -> None:
        """Whatever it does; if it runs, it must end well."""
        if self._service is not None and self._service.process.returncode is None:
            self.wake()
            await self.stop()
        await self._running.aclose()

    def claims(self) -> dict[str, int]:
        """The tasks that it has claimed, each with its last epoch, as its own log says."""
        claimed = {}
        for line in self._log.read_bytes().splitlines():
            if line.startswith(b"{") and b'"task_claimed"' in line:
                fields = orjson.loads(line)
                claimed[fields["task_id"]] = fields["epoch"]
        return claimed

    def complaints(self) -> list[str]:
        """What it has logged that is a mistake of the service's own: exceptions that nobody expected."""
        lines = self._log.read_bytes().splitlines()
        return [line.decode()[:2000] for line in lines if b'"exception"' in line or not line.startswith(b"{")]


class Bench:
    """Everything."""

    def __init__(
        self, stores: Stores, truth: Truth, workers: list[Member], doors: list[Member], archiver: Member
    ) -> None:
        self.stores = stores
        self.truth = truth
        self.workers = workers
        self.doors = doors
        self.archiver = archiver
        self.gates: list[Link] = []
        """The readers' links to the doors, in their order."""

    @property
    def members(self) -> list[Member]:
        return [*self.workers, *self.doors, self.archiver]

    @property
    def links(self) -> list[Link]:
        return [link for member in self.members for link in (member.redis, member.postgres)] + self.gates

    @property
    def urls(self) -> list[str]:
        """Where readers go: through the gates."""
        return [f"http://127.0.0.1:{gate.port}" for gate in self.gates]

    async def holder(self, task_id: str) -> Member:
        """The worker that claimed this task last."""

        async def is_claimed() -> bool:
            return any(task_id in worker.claims() for worker in self.workers)

        await until(is_claimed, CLAIM_SECONDS)
        return max(self.workers, key=lambda worker: worker.claims().get(task_id, 0))

    def complaints(self) -> list[str]:
        """All mistakes of their own that the processes have logged."""
        return [complaint for member in self.members for complaint in member.complaints()]

    async def restored(self) -> None:
        """Everything runs and nothing is wrong any more."""
        for link in self.links:
            link.heal()
        for store in (self.stores.valkey, self.stores.postgres):
            if store.is_down:
                await store.start()
        for member in self.members:
            if member.service.process.returncode is None:
                member.wake()
            else:
                await member.start()


@asynccontextmanager
async def open_bench(folder: Path) -> AsyncGenerator[Bench]:
    """Stores, links and processes, ready; all are gone at the end of the block."""
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(own_stores(folder / "data"))
        truth = await stack.enter_async_context(truth_of(stores))
        members: dict[str, Member] = {}
        parts = {
            **{"worker-1": "tasks", "worker-2": "tasks"},
            **{"door-1": "http", "door-2": "http"},
            "archiver": "archiver",
        }
        for name, part in parts.items():
            redis = await stack.enter_async_context(link_to(stores.valkey.socket, f"{name}-redis"))
            postgres = await stack.enter_async_context(link_to(stores.postgres.socket, f"{name}-postgres"))
            members[name] = Member(name, part, redis, postgres, folder)
            stack.push_async_callback(members[name].close)
        await asyncio.gather(*(member.start() for member in members.values()))
        workers, doors = ([members[f"{kind}-{n}"] for n in (1, 2)] for kind in ("worker", "door"))
        bench = Bench(stores, truth, workers, doors, members["archiver"])
        for door in doors:
            bench.gates.append(await stack.enter_async_context(link_to(door.address, f"readers-{door.name}")))
        yield bench
