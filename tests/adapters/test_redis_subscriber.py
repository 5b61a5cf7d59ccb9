"""Subscribed connections that break, or go deaf, and the doorbell that rings over them."""

import asyncio
import errno
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from service.adapters import redis_subscriber
from service.adapters.redis_client import connect
from service.adapters.redis_doorbell import RedisDoorbell
from service.adapters.redis_subscriber import Broken, Confirmed, Published, RedisSubscriber
from service.model.task import TaskDue
from tests.adapters.shared_redis import OurConnections, our_connections
from tests.adapters.valkeys import own_redis7

PATIENCE_SECONDS = 5.0
PILE_BYTES = 32 * 1024 * 1024
"""More than all buffers on the way hold."""


@pytest.fixture(params=["redis_url", "redis7_url"], ids=["valkey", "redis7"])
async def redis(request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    client = connect(request.getfixturevalue(request.param))
    yield client
    await client.aclose()


@pytest.fixture
def channel() -> str:
    """One that nobody else speaks on: channels are the whole server's."""
    return f"playhead-test-{uuid.uuid4()}"


@pytest.fixture(params=["valkey", "redis7"])
async def connections(request: pytest.FixtureRequest) -> AsyncIterator[OurConnections]:
    """To a server that nobody else uses: everyone hears the doorbell."""
    async with AsyncExitStack() as stack:
        if request.param == "valkey":
            url = request.getfixturevalue("redis_url")
        else:
            url = (await stack.enter_async_context(own_redis7())).url()
        yield await stack.enter_async_context(our_connections(url))


@dataclass
class Line:
    """The way to a server; what happens to its first connection, neither side is told."""

    url: str = ""
    connections: int = 0
    is_cut: bool = False
    """Nothing gets through."""
    is_stuck: bool = False
    """Nothing is even taken: what is sent piles up with its sender."""
    open: list[asyncio.StreamWriter] = field(default_factory=list)


@asynccontextmanager
async def line_to(redis: Redis) -> AsyncGenerator[Line]:
    """A way to the same server that can be cut."""
    line, target = Line(), redis.connection_pool.connection_kwargs
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            is_first = line.connections == 1
            while data := await reader.read(65_536):
                if is_first and line.is_stuck:
                    await asyncio.Event().wait()
                if not (is_first and line.is_cut):
                    writer.write(data)
            writer.close()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line.connections += 1
            if "path" in target:
                source, sink = await asyncio.open_unix_connection(target["path"])
            else:
                source, sink = await asyncio.open_connection(target["host"], target["port"])
            line.open += [writer, sink]
            pumps.extend(tasks.create_task(pump(*way)) for way in ((reader, sink), (source, writer)))

        pumps: list[asyncio.Task[None]] = []
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        stack.callback(server.close)
        line.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/{target.get('db') or 0}"
        yield line
        for task in pumps:
            task.cancel()
        for writer in line.open:
            writer.close()


async def next_of(messages: AsyncGenerator[Any]) -> Any:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await anext(messages)


async def test_a_connection_that_went_deaf_is_noticed_and_replaced(redis: Redis, channel: str) -> None:
    async with line_to(redis) as line:
        client = connect(line.url)
        subscriber = RedisSubscriber(client, "test", channel, probe_seconds=0.2)
        async with aclosing(subscriber.messages()) as messages:
            with structlog.testing.capture_logs() as logs:
                assert await next_of(messages) == Confirmed(channel.encode())
                line.is_cut = True
                assert await next_of(messages) == Broken()
                assert await next_of(messages) == Confirmed(channel.encode())
            assert [entry["event"] for entry in logs] == ["test_interrupted"]
            assert line.connections == 2
            await redis.publish(channel, b"heard")
            assert await next_of(messages) == Published(channel.encode(), b"heard")
        await client.aclose()


async def test_a_connection_that_is_only_silent_is_kept(redis: Redis, channel: str) -> None:
    """Its answers to probes are signs of life, and nobody is told of them."""
    subscriber = RedisSubscriber(redis, "test", channel, probe_seconds=0.5)
    async with aclosing(subscriber.messages()) as messages:
        assert await next_of(messages) == Confirmed(channel.encode())
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.wait([waiting], timeout=1.2)
        await redis.publish(channel, b"heard")
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await waiting == Published(channel.encode(), b"heard")


async def test_a_connection_that_takes_nothing_more_is_replaced(
    redis: Redis, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked over it gives up; who listens to it is told, and hears what is said from then on."""
    monkeypatch.setattr(redis_subscriber, "CALL_SECONDS", 0.5)
    async with line_to(redis) as line:
        client = connect(line.url)
        subscriber = RedisSubscriber(client, "test", channel, probe_seconds=1.0)
        async with aclosing(subscriber.messages()) as messages:
            assert await next_of(messages) == Confirmed(channel.encode())
            line.is_stuck = True
            waiting = asyncio.ensure_future(next_of(messages))
            await subscriber.unsubscribe("x" * PILE_BYTES)
            assert await waiting == Broken()
            assert await next_of(messages) == Confirmed(channel.encode())
            await redis.publish(channel, b"heard")
            assert await next_of(messages) == Published(channel.encode(), b"heard")
        await client.aclose()


async def test_a_message_that_comes_in_the_turn_of_a_failure_is_told_and_then_the_failure(
    redis: Redis, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscriber = RedisSubscriber(redis, "test", channel)
    async with aclosing(subscriber.messages()) as messages:
        assert await next_of(messages) == Confirmed(channel.encode())
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0)  # it reads

        async def fail(*_: object, **__: object) -> None:
            await connection.disconnect(nowait=True)  # as the library does
            raise ConnectionError

        connection = subscriber._connection
        with monkeypatch.context() as patch:
            patch.setattr(connection, "send_packed_command", fail)
            connection._reader.feed_data(published(channel, b"heard"))
            await subscriber.subscribe(f"{channel}-2")
        assert await waiting == Published(channel.encode(), b"heard")
        assert await next_of(messages) == Broken()
        confirmed = {(await next_of(messages)).channel for _ in range(2)}
        assert confirmed == {channel.encode(), f"{channel}-2".encode()}


@pytest.mark.timeout(10)
async def test_a_connection_that_the_kernel_gives_up_is_replaced(redis: Redis, channel: str) -> None:
    """The library takes ETIMEDOUT for its own time-out, of which there is none, and answers that nothing came."""
    subscriber = RedisSubscriber(redis, "test", channel)
    async with aclosing(subscriber.messages()) as messages:
        assert await next_of(messages) == Confirmed(channel.encode())
        subscriber._connection._reader.set_exception(TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
        assert await next_of(messages) == Broken()
        assert await next_of(messages) == Confirmed(channel.encode())


async def test_a_channel_that_is_refused_is_not_passed_over(redis: Redis, channel: str) -> None:
    """Though other messages come with the refusal: who wanted it would wait for its confirmation for ever."""
    subscriber = RedisSubscriber(redis, "test", channel)
    async with aclosing(subscriber.messages()) as messages:
        assert await next_of(messages) == Confirmed(channel.encode())
        refusal = b"-NOPERM this user has no permissions to access one of the channels\r\n"
        subscriber._connection._reader.feed_data(published(channel, b"heard") + refusal)
        with structlog.testing.capture_logs() as logs:
            assert await next_of(messages) == Broken()
        assert [entry["cause"] for entry in logs] == ["NoPermissionError"]
        assert await next_of(messages) == Confirmed(channel.encode())


def published(channel: str, data: bytes) -> bytes:
    """What the server sends."""
    words = (b"message", channel.encode(), data)
    return b"*3\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


async def test_what_is_wanted_no_more_while_a_connection_is_made_is_not_listened_to(
    redis: Redis, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passing = f"{channel}-2"
    subscriber = RedisSubscriber(redis, "test", channel, passing)
    send = redis_subscriber._send

    async def change_of_mind(connection: AbstractConnection, *words: str) -> None:
        await send(connection, *words)
        if passing in words and words[0] == "SUBSCRIBE":
            await subscriber.unsubscribe(passing)

    monkeypatch.setattr(redis_subscriber, "_send", change_of_mind)
    async with aclosing(subscriber.messages()) as messages:
        assert {(await next_of(messages)).channel for _ in range(2)} == {channel.encode(), passing.encode()}
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await redis.pubsub_numsub(passing))[0][1]:
                pass  # each look is a round trip
        assert (await redis.pubsub_numsub(channel))[0][1] == 1


async def test_a_ring_is_heard_also_over_the_next_connection(connections: OurConnections) -> None:
    redis = connect(connections.url)
    doorbell = RedisDoorbell(redis)
    async with doorbell.listen() as rings:
        await next_of(rings)  # what rang before is unknown
        await doorbell.ring(TaskDue())
        await next_of(rings)
        with structlog.testing.capture_logs() as logs:
            await connections.kill(subscribed=True)
            await next_of(rings)  # it listens again; it may have missed one
        assert [entry["event"] for entry in logs] == ["doorbell_interrupted"]
        await doorbell.ring(TaskDue())
        await next_of(rings)
    await redis.aclose()


async def test_a_ring_that_nobody_can_carry_is_dropped() -> None:
    redis = connect("redis://127.0.0.1:1/0")
    with structlog.testing.capture_logs() as logs:
        await RedisDoorbell(redis).ring(TaskDue())
    assert [entry["event"] for entry in logs] == ["ring_dropped"]
    await redis.aclose()
