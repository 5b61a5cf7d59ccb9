"""Every log store there is, with the hints that belong to it; and every place where conversations are kept."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from functools import cache

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from service.adapters.memory_log import MemoryHints, MemoryLogStore
from service.adapters.redis_client import connect, with_plain_pages
from service.adapters.redis_hints import RedisHints
from service.adapters.redis_hot import RedisHotLogs
from service.registry.ports import Hints, HotLogs, LogStore
from tests.adapters.shared_redis import OurConnections, TidyLogStore, our_connections
from tests.adapters.valkeys import own_redis7
from tests.contracts.conversations import InMemory, InPostgres, Kept
from tests.sessions.databases import SERVERS, emptied, own_database, server_url


@dataclass(frozen=True, slots=True)
class Backend:
    """A log store and its hints."""

    logs: LogStore
    hints: Hints
    hot: HotLogs
    redis: Redis | None = None
    connections: OurConnections | None = None


@pytest.fixture(params=["memory", "fakeredis", "valkey", "redis7"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """`redis7` is one that others use too. `own redis7` is for what its server does to everyone."""
    async with AsyncExitStack() as stack:
        match request.param:
            case "memory":
                hints = MemoryHints()
                memory = MemoryLogStore(hints)
                yield Backend(memory, hints, memory)
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
        yield Backend(logs, RedisHints(subscriber), RedisHotLogs(redis), redis, ours)
        await logs.remove_all()


@pytest.fixture(scope="module")
def dsns(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """A database of this module's own, with the schema, on each server that is asked for."""
    with ExitStack() as stack:
        yield cache(lambda server: stack.enter_context(own_database(server_url(server, request))))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for a `database` or its `dsn` is about PostgreSQL: its locks, its pools, its statements."""
    if "place" in metafunc.fixturenames:
        is_about_postgres = "dsn" in metafunc.fixturenames
        metafunc.parametrize("place", SERVERS if is_about_postgres else ("memory", *SERVERS))


@pytest.fixture
def dsn(place: str, dsns: Callable[[str], str]) -> str:
    return dsns(place)


@pytest.fixture
def kept_at(place: str, dsns: Callable[[str], str]) -> str | None:
    """Where conversations are kept; None is in memory. No coroutine, since making a database runs a loop of its own."""
    return None if place == "memory" else dsns(place)


@pytest.fixture
async def kept(kept_at: str | None) -> AsyncIterator[Kept]:
    """Conversations wherever they can be kept, none to begin with."""
    if kept_at is None:
        yield InMemory()
        return
    async with emptied(kept_at) as database:
        yield InPostgres(database)
