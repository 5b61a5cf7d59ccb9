"""Every log store there is, with the hints that belong to it; and every PostgreSQL."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from service.adapters.memory_log import MemoryHints, MemoryLogStore
from service.adapters.redis_client import connect, with_plain_pages
from service.adapters.redis_hints import RedisHints
from service.adapters.redis_log import RedisLogStore
from service.registry.ports import Hints, LogStore
from tests.sessions.databases import SERVERS, server_url


@dataclass(frozen=True, slots=True)
class Backend:
    """A log store and its hints."""

    logs: LogStore
    hints: Hints
    redis: Redis | None


@pytest.fixture(params=["memory", "fakeredis", "valkey", "redis7"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    match request.param:
        case "memory":
            hints = MemoryHints()
            yield Backend(MemoryLogStore(hints), hints, None)
            return
        case "fakeredis":
            server = FakeServer(version=(7,))
            redis, subscriber = with_plain_pages(FakeAsyncRedis(server=server)), FakeAsyncRedis(server=server)
        case "valkey":
            url = request.getfixturevalue("redis_url")
            redis, subscriber = connect(url), connect(url)
        case _:
            url = request.getfixturevalue("redis7_url")
            redis, subscriber = connect(url), connect(url)
    yield Backend(RedisLogStore(redis), RedisHints(subscriber), redis)
    if request.param == "redis7":
        await redis.flushdb()
    await subscriber.aclose()
    await redis.aclose()


@pytest.fixture(scope="module", params=SERVERS)
def postgres_server(request: pytest.FixtureRequest) -> str:
    return server_url(request.param, request)
