"""A writer over a store that can fail; in memory, and over the embedded Valkey."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from service.adapters.memory_log import MemoryHints, MemoryLogStore
from service.adapters.redis_client import connect
from service.adapters.redis_log import RedisLogStore
from service.model.ids import TaskId
from service.model.log import StoredEvent
from service.model.position import BEGINNING
from service.registry.writer import LogWriter, log_writer
from tests.registry.faulty import FaultyLogStore


@dataclass(slots=True)
class Desk:
    """A writer, its store, and the clock that it goes by."""

    writer: LogWriter
    store: FaultyLogStore
    now_ms: int = 1_763_700_000_000

    async def log(self, task_id: TaskId) -> list[StoredEvent]:
        """The whole log as it is stored."""
        return list((await self.store.read(task_id, BEGINNING, 100_000)).events)


@pytest.fixture(params=["memory", "valkey"])
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    if request.param == "memory":
        redis, store = None, FaultyLogStore(MemoryLogStore(MemoryHints()))
    else:
        redis = connect(request.getfixturevalue("redis_url"))
        store = FaultyLogStore(RedisLogStore(redis))
    async with log_writer(store, lambda: made.now_ms) as writer:
        made = Desk(writer, store)
        yield made
    if redis is not None:
        await redis.aclose()


@pytest.fixture
async def memory_desk() -> AsyncIterator[Desk]:
    """A writer over memory, on a clock that stands still: only the numbers tell its events apart."""
    store = FaultyLogStore(MemoryLogStore(MemoryHints()))
    async with log_writer(store, lambda: made.now_ms) as writer:
        made = Desk(writer, store)
        yield made
