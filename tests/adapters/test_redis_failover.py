"""Another server becomes the primary behind the same address; connections to the one that was stay open."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from service.adapters.redis_client import connect
from service.adapters.redis_hot import RedisHotLogs
from service.adapters.redis_log import KEPT_CONNECTIONS, RedisLogStore
from service.model.errors import LogUnavailable
from service.model.events import TextStart
from service.model.ids import Epoch, PartId, TaskId
from service.model.position import BEGINNING
from service.registry.writer import log_writer
from tests.adapters.valkeys import OwnValkey, own_valkey

TASK = TaskId("t")


@dataclass
class Pair:
    """Two servers, the second a replica; `address` leads new connections to whichever is the primary."""

    first: OwnValkey
    second: OwnValkey
    address: Path

    @property
    def url(self) -> str:
        return f"unix://{self.address}"

    async def fail_over(self) -> None:
        old, new = connect(self.first.url()), connect(self.second.url())
        await new.execute_command("REPLICAOF", "NO", "ONE")
        await old.execute_command("REPLICAOF", "127.0.0.1", "1")
        for redis in (old, new):
            await redis.aclose()
        self.address.unlink()
        self.address.symlink_to(self.second.path)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(own_valkey()) for _ in range(2)]
        address = tmp_path / "primary"
        address.symlink_to(first.path)
        yield Pair(first, second, address)


@pytest.fixture
async def redis(pair: Pair) -> AsyncIterator[Redis]:
    opened = connect(pair.url)
    yield opened
    await opened.aclose()


async def test_a_writer_goes_on_at_the_new_primary(pair: Pair, redis: Redis) -> None:
    """The replica had nothing: what was stored is repaired from what the writer keeps."""
    store = RedisLogStore(redis)
    async with log_writer(store, lambda: 1) as writer:
        log = await writer.open(TASK, Epoch(1))
        await log.append(TextStart(PartId("a")))
        for other in range(KEPT_CONNECTIONS):
            await redis.ping()
            await store.head(TaskId(f"other {other}"))
        await pair.fail_over()
        reopened = RedisLogStore(connect(pair.url))
        await reopened.open(TASK, Epoch(1), BEGINNING)
        await log.append(TextStart(PartId("b")))
        page = await reopened.read(TASK, BEGINNING, 10)
        await reopened._redis.aclose()
    assert [position for position, _ in page.events] == [b"1-1", b"1-2"]


async def test_a_demoted_server_is_a_store_that_is_away_once(pair: Pair, redis: Redis) -> None:
    store = RedisLogStore(redis)
    await store.open(TASK, Epoch(1), BEGINNING)
    await pair.fail_over()
    with pytest.raises(LogUnavailable):
        await store.open(TASK, Epoch(2), BEGINNING)
    await store.open(TASK, Epoch(2), BEGINNING)
    assert (await store.head(TASK)).epoch == 2


@pytest.mark.parametrize("verb", ["retire", "remove"])
async def test_what_lets_logs_go_goes_on_at_the_new_primary(pair: Pair, redis: Redis, verb: str) -> None:
    """An archiver may run where nobody appends, and nobody but it would notice."""
    hot = RedisHotLogs(redis)
    write = (lambda: hot.retire([TASK], 60)) if verb == "retire" else (lambda: hot.remove([TASK]))
    await write()
    await pair.fail_over()
    with pytest.raises(LogUnavailable):
        await write()
    await write()
