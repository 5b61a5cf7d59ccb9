"""Following over a real store: connections that break, hints that never arrive, more readers than connections."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from service.adapters.memory_archive import MemoryArchive
from service.adapters.redis_client import connect
from service.adapters.redis_hints import RedisHintFeed, RedisHints
from service.adapters.redis_keys import live_channel, log_key
from service.model.encoding import frames
from service.model.events import Chunk, Finish, FinishMetadata, TextStart, Usage
from service.model.ids import Epoch, PartId, TaskId
from service.model.log import Hint, Interrupted, Listening
from service.registry.follow import Ended, Follower
from service.registry.hub import Hub, hub
from service.registry.pages import log_pages
from service.registry.task_log import TaskLog
from service.registry.writer import LogWriter, log_writer
from tests.adapters.shared_redis import OurConnections, TidyLogStore, our_connections
from tests.contracts.logs import new_task
from tests.registry.readers import Directory, Reader

HEARTBEAT_SECONDS = 0.5
CONNECTIONS = 8
FINISH = Finish("stop", FinishMetadata(TaskId("t"), "succeeded", "", Usage(0, 0), "", ""))


class DroppingFeed(RedisHintFeed):
    """Some of what arrives is dropped, as if it had never been published."""

    drop: Callable[[Hint], bool] = staticmethod(lambda _: False)

    async def items(self) -> AsyncGenerator[Hint | Listening | Interrupted]:
        async with aclosing(super().items()) as items:
            async for item in items:
                if not (isinstance(item, Hint) and self.drop(item)):
                    yield item


class DroppingHints(RedisHints):
    """The port `Hints` with a feed that drops."""

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[RedisHintFeed]:
        yield DroppingFeed(self._redis)


@dataclass(slots=True)
class House:
    redis: Redis
    connections: OurConnections
    store: TidyLogStore
    writer: LogWriter
    hub: Hub
    follower: Follower

    async def open(self) -> TaskLog:
        return await self.writer.open(new_task(), Epoch(1))

    async def log(self, task_id: TaskId) -> bytes:
        entries = await self.redis.xrange(log_key(task_id))
        return frames([(position, data) for position, (_, data) in entries])


@pytest.fixture(params=["redis_url", "redis7_url"], ids=["valkey", "redis7"])
async def house(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    url = request.getfixturevalue(request.param)
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(our_connections(url))
        redis, subscriber = (connect(ours.url, connections=CONNECTIONS) for _ in range(2))
        stack.push_async_callback(redis.aclose)
        stack.push_async_callback(subscriber.aclose)
        store = TidyLogStore(redis)
        stack.push_async_callback(store.remove_all)
        writer = await stack.enter_async_context(log_writer(store, lambda: time.time_ns() // 1_000_000))
        ear = await stack.enter_async_context(hub(DroppingHints(subscriber), tick_seconds=HEARTBEAT_SECONDS / 8))
        pages = await stack.enter_async_context(log_pages(store, asyncio.get_running_loop().time))
        archived = await stack.enter_async_context(log_pages(MemoryArchive(), asyncio.get_running_loop().time))
        follower = Follower(pages, archived, ear, Directory(), heartbeat_seconds=HEARTBEAT_SECONDS)
        yield House(redis, ours, store, writer, ear, follower)


def parts(count: int, name: str) -> list[Chunk]:
    return [TextStart(PartId(f"{name}{i}")) for i in range(count)]


async def test_pitfall_11_the_hubs_connection_is_killed_in_mid_stream(house: House) -> None:
    log = await house.open()
    readers = [Reader(house.follower, log.task_id) for _ in range(5)]
    for reader in readers:
        await reader.begun()
    for i in range(60):
        await log.append(*parts(2, f"{i}-"))
        if i % 6 == 3:
            await house.connections.kill(subscribed=True)
    await log.append(FINISH)
    whole = await house.log(log.task_id)
    for reader in readers:
        assert isinstance(await reader.end(), Ended)
        assert (reader.got, reader.gaps) == (whole, [])


@pytest.mark.parametrize("lost", [{2}, {2, 3, 4}, {5}, set(range(6))], ids=str)
async def test_pitfall_11_hints_that_never_arrive_the_last_one_too(
    house: House, monkeypatch: pytest.MonkeyPatch, lost: set[int]
) -> None:
    arrived = -1

    def drop(_: Hint) -> bool:
        nonlocal arrived
        arrived += 1
        return arrived in lost

    monkeypatch.setattr(DroppingFeed, "drop", staticmethod(drop))
    log = await house.open()
    reader = Reader(house.follower, log.task_id)
    await reader.begun()
    begun = asyncio.get_running_loop().time()
    for i in range(5):
        await log.append(*parts(2, f"{i}-"))
    await log.append(FINISH)
    await reader.end()
    assert asyncio.get_running_loop().time() - begun < HEARTBEAT_SECONDS * 2 + 0.5
    assert (reader.got, reader.gaps) == (await house.log(log.task_id), [])


async def test_pitfall_76_a_thousand_readers_share_a_handful_of_connections(house: House) -> None:
    logs = [await house.open() for _ in range(1000)]
    for log in logs:
        await log.put(TextStart(PartId("a")))
    await asyncio.gather(*(log.flush() for log in logs))
    readers = [Reader(house.follower, log.task_id) for log in logs]
    for reader in readers:
        await reader.reached(logs[0].last._replace(ms=0, n=1))
    assert len(await house.connections.listed(subscribed=True)) == 1
    assert len(await house.connections.listed()) <= 1 + CONNECTIONS
    await asyncio.gather(*(log.append(FINISH) for log in logs))
    for reader in readers:
        assert isinstance(await reader.end(), Ended)
        assert reader.got.count(b"id: ") == 2


@pytest.mark.parametrize(
    "nonsense", [b"", b"garbage", b"1 2 3", b"1 0-0 x 0\n", b"\xff\xff", b"x 0-0 1-1 0\nid"], ids=repr
)
async def test_a_hint_that_makes_no_sense_costs_a_look_and_nothing_else(house: House, nonsense: bytes) -> None:
    log = await house.open()
    reader = Reader(house.follower, log.task_id)
    await reader.reached(await log.append(*parts(2, "a")))
    await house.redis.publish(live_channel(log.task_id), nonsense)
    await log.append(*parts(2, "b"), FINISH)
    assert isinstance(await reader.end(), Ended)
    assert reader.got == await house.log(log.task_id)


async def test_what_nobody_follows_any_more_is_unsubscribed(house: House) -> None:
    log = await house.open()
    reader = Reader(house.follower, log.task_id)
    await reader.begun()
    channel = live_channel(log.task_id)
    assert (await house.redis.pubsub_numsub(channel))[0][1] == 1
    await reader.leave()
    async with asyncio.timeout(5):
        while (await house.redis.pubsub_numsub(channel))[0][1]:
            pass  # each look is a round trip
