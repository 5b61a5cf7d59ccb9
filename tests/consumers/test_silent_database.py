"""A worker whose connections to PostgreSQL fall silent, in real time: a router forgot them, and new ones work."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from consumers.tasks import Worker
from service.adapters.postgres import Database, postgres_pool
from service.adapters.postgres_tasks import PostgresTasks
from service.model.events import Usage
from service.model.generation import CallEnded, TextPiece
from tests.adapters.postgres_line import line_to
from tests.agent.faults import Fault, Watched
from tests.agent.house import House, Script
from tests.consumers.virtual import Bell
from tests.sessions.databases import emptied

LEASE_SECONDS = 4.0
CONNECTIONS = 6


class Renewals(Fault):
    """Sets `renewed` when some renewals have been answered."""

    def __init__(self) -> None:
        super().__init__()
        self.renewed = asyncio.Event()
        self.wanted = 0

    async def behind(self, verb: str) -> None:
        self.wanted -= verb == "renew"
        if self.wanted <= 0:
            self.renewed.set()

    async def answered(self, renewals: int) -> None:
        self.wanted = renewals
        self.renewed.clear()
        await self.renewed.wait()


@asynccontextmanager
async def working(worker: Worker) -> AsyncGenerator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.run(stop))
        yield
        stop.set()


async def test_pitfall_55_a_worker_keeps_its_leases_over_connections_that_fall_silent(dsn: str) -> None:
    said, renewals = asyncio.Event(), Renewals()
    model = Script(TextPiece("Well: "), said, TextPiece("there."), CallEnded("stop", Usage(1, 1)))
    async with emptied(dsn) as near, line_to(dsn) as line, postgres_pool(line.url) as pool:
        house = House(near)
        task_id = await house.post("Hi")
        database = Database(pool, call_seconds=LEASE_SECONDS / 2)
        async with AsyncExitStack() as stack:
            for _ in range(CONNECTIONS):
                await stack.enter_async_context(database.connection())
        far = Watched(PostgresTasks(database), renewals)
        with structlog.testing.capture_logs() as logs:
            async with house.turns(model, queue=far) as turns:
                bell = Bell(asyncio.get_running_loop())
                async with working(Worker(far, turns, bell, time.monotonic, lambda: None, lease_seconds=LEASE_SECONDS)):
                    await renewals.answered(1)
                    line.fall_silent()
                    await renewals.answered(2)
                    said.set()
        told = [entry["event"] for entry in logs if entry["log_level"] != "info"]
        assert "lease_lapsed" not in told
        assert "renewal_failed" in told
        await house.assert_ended_well(task_id)
        (row,) = await near.fetch("SELECT epoch FROM leases")
    assert row["epoch"] == 1
