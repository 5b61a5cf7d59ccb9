"""The reference: the obvious design, so that what ours gains is visible.

An event is one awaited XADD and one awaited PUBLISH. The server has an asyncio.Queue for each reader, with a timeout on
its `get` for the heartbeat; each event is validated and dumped with pydantic for each reader, and written by itself.
Replay is XRANGE, then the queue, which was filled meanwhile. There is no fencing, no gap that is noticed, and the
queues have no bound. Run as a program it serves `/tasks/<name>/stream` over the Redis at its argument.
"""

import asyncio
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final, Literal

from aiohttp import web
from pydantic import BaseModel
from redis.asyncio import BlockingConnectionPool, Redis

from tests.bench.ground import Ground
from tests.bench.ours import EVENT_BYTES
from tests.bench.processes import raise_descriptor_limit, said, started

HEARTBEAT_SECONDS: Final = 15.0
PAGE_EVENTS: Final = 1_000


class Event(BaseModel):
    """A delta, as pydantic has it."""

    type: Literal["text-delta"] = "text-delta"
    id: str
    delta: str


EVENT: Final = Event(id="p0", delta="x" * (EVENT_BYTES - len(Event(id="p0", delta="").model_dump_json())))


class NaiveLog:
    """Appends as the obvious worker does."""

    def __init__(self, redis: Redis, name: str) -> None:
        self._redis = redis
        self._name = name

    async def append(self, event: Event) -> None:
        """Store one event, then tell the readers."""
        data = event.model_dump_json().encode()
        position = await self._redis.xadd(f"naive:{self._name}", {"d": data})
        assert isinstance(position, bytes)
        await self._redis.publish(f"naive:{self._name}", position + b" " + data)


class Server:
    """Follows logs for readers."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._pubsub = redis.pubsub(ignore_subscribe_messages=True)
        self._queues: defaultdict[str, set[asyncio.Queue[tuple[str, Event]]]] = defaultdict(set)

    async def listen(self) -> None:
        """Give what is published to the queue of each of its readers."""
        await self._pubsub.subscribe("naive")
        async for message in self._pubsub.listen():
            position, _, data = message["data"].partition(b" ")
            item = (position.decode(), Event.model_validate_json(data))
            for queue in self._queues[message["channel"].decode()]:
                queue.put_nowait(item)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """One reader: what is stored, then what comes."""
        channel = f"naive:{request.match_info['name']}"
        queue: asyncio.Queue[tuple[str, Event]] = asyncio.Queue()
        self._queues[channel].add(queue)
        await self._pubsub.subscribe(channel)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        try:
            after = await self._replay(response, channel)
            while True:
                try:
                    position, event = await asyncio.wait_for(queue.get(), HEARTBEAT_SECONDS)
                except TimeoutError:
                    await response.write(b": hb\n")
                    continue
                if _order(position) > after:
                    await _write(response, position, event)
        except ConnectionError:
            return response
        finally:
            self._queues[channel].discard(queue)

    async def _replay(self, response: web.StreamResponse, channel: str) -> tuple[int, int]:
        after = "0-0"
        while entries := await self._redis.xrange(channel, f"({after}", count=PAGE_EVENTS):
            for position, fields in entries:
                assert isinstance(position, bytes)
                assert fields is not None
                after = position.decode()
                await _write(response, after, Event.model_validate_json(fields[b"d"]))
        return _order(after)


async def _write(response: web.StreamResponse, position: str, event: Event) -> None:
    await response.write(f"id: {position}\ndata: {event.model_dump_json()}\n\n".encode())


def _order(position: str) -> tuple[int, int]:
    ms, _, n = position.partition("-")
    return int(ms), int(n)


@asynccontextmanager
async def serving_naive(ground: Ground) -> AsyncGenerator[int]:
    """The server as a process; yields its port."""
    log = ground.folder / "naive.log"
    async with started([sys.executable, "-m", "tests.bench.naive", ground.redis_url], log) as process:
        yield int(await said(process, "port", log))


async def main(redis_url: str) -> None:
    """Serve until killed; the port is printed."""
    raise_descriptor_limit()
    # A pool that is waited for: the default one refuses its 101st user, and deadlines pass while many replay at once.
    pool = BlockingConnectionPool.from_url(redis_url, max_connections=32, timeout=None, socket_timeout=None)
    server = Server(Redis.from_pool(pool))
    app = web.Application()
    app.add_routes([web.get("/tasks/{name}/stream", server.stream)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print("port", runner.addresses[0][1], flush=True)
    await server.listen()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1]))
