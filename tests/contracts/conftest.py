"""Every log store there is, with the hints that belong to it; and every PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from service.adapters.memory_log import MemoryHints, MemoryLogStore
from service.adapters.redis_client import connect, with_plain_pages
from service.adapters.redis_hints import RedisHints
from service.registry.ports import Hints, LogStore
from tests.adapters.shared_redis import OurConnections, TidyLogStore, our_connections
from tests.adapters.valkeys import own_redis7
from tests.sessions.databases import SERVERS, server_url


@dataclass(frozen=True, slots=True)
class Backend:
    """A log store and its hints."""

    logs: LogStore
    hints: Hints
    redis: Redis | None = None
    connections: OurConnections | None = None


@pytest.fixture(params=["memory", "fakeredis", "valkey", "redis7"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """`redis7` is one that others use too. `own redis7` is for what its server does to everyone."""
    async with AsyncExitStack() as stack:
        match request.param:
            case "memory":
                hints = MemoryHints()
                yield Backend(MemoryLogStore(hints), hints)
                return
            case "fakeredis":
                server = FakeServer(version=(7,))
                redis = with_plain_pages(FakeAsyncRedis(server=server))
                subscriber, ours = FakeAsyncRedis(server=server), None
            case _:
                if request.param == "own redis7":
                    url = (await stack.enter_async_context(own_redis7())).url()
                else:
                    url = request.getfixturevalue("redis_url" if request.param == "valkey" else "redis7_url")
                ours = await stack.enter_async_context(our_connections(url))
                redis, subscriber = connect(ours.url), connect(ours.url)
        stack.push_async_callback(redis.aclose)
        stack.push_async_callback(subscriber.aclose)
        logs = TidyLogStore(redis)
        yield Backend(logs, RedisHints(subscriber), redis, ours)
        await logs.remove_all()


@pytest.fixture(scope="module", params=SERVERS)
def postgres_server(request: pytest.FixtureRequest) -> str:
    return server_url(request.param, request)
