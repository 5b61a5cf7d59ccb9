"""A user of a running service, who can also look into its store: what stands there is the truth."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
from redis.asyncio import Redis

from tests.processes import Service, http_to


@dataclass(frozen=True, slots=True)
class Stored:
    """One event as the store has it."""

    position: str
    json: bytes

    @property
    def n(self) -> int:
        return int(self.position.partition("-")[2])

    @property
    def frame(self) -> bytes:
        """What a reader must get, to the byte."""
        return b"id: %b\ndata: %b\n\n" % (self.position.encode(), self.json)

    @property
    def pair(self) -> tuple[str, str]:
        """What a client's `onmessage` must see."""
        return self.position, self.json.decode()

    @property
    def chunk(self) -> dict[str, Any]:
        return orjson.loads(self.json)

    @property
    def type(self) -> str:
        return self.chunk["type"]


class Client:
    """Posts, asks, and knows the truth."""

    def __init__(self, http: httpx.AsyncClient, redis: Redis) -> None:
        self._http = http
        self._redis = redis

    async def post(self, *lines: str) -> str:
        """Say this in a session of its own; answers the task's id."""
        session = (await self._http.post("/sessions")).raise_for_status().json()["id"]
        posted = await self._http.post(f"/sessions/{session}/messages", json={"text": "\n".join(lines)})
        return posted.raise_for_status().json()["task_id"]

    async def status(self, task_id: str) -> str:
        """The task's status, as the service says."""
        return (await self._http.get(f"/tasks/{task_id}")).raise_for_status().json()["status"]

    async def stored(self, task_id: str) -> list[Stored]:
        """The log, whole, from the store itself."""
        entries = await self._redis.xrange(f"playhead:{{{task_id}}}:log")
        return [Stored(position.decode(), fields[b"d"]) for position, fields in entries]

    async def last(self, task_id: str) -> Stored:
        """The log's last event, from the store itself."""
        ((position, fields),) = await self._redis.xrevrange(f"playhead:{{{task_id}}}:log", count=1)
        return Stored(position.decode(), fields[b"d"])

    async def no_longer_ready(self) -> dict[str, Any]:
        """Wait until the service does not want any more requests; answers what it says then."""
        async with asyncio.timeout(5):
            while (answer := await self._http.get("/readyz")).status_code == 200:
                pass
        fields: dict[str, Any] = answer.json()
        return fields

    async def is_closed(self, task_id: str) -> bool:
        """Whether the log has its terminal event, from the store itself."""
        return await self._redis.hexists(f"playhead:{{{task_id}}}:meta", "closed")


@asynccontextmanager
async def client_of(service: Service) -> AsyncIterator[Client]:
    """A user of this service and of its store."""
    async with (
        http_to(service.url, 20) as http,
        Redis.from_url(service.redis_url, protocol=2) as redis,
    ):
        yield Client(http, redis)


def frames(log: list[Stored]) -> bytes:
    """The log as a reader must get it."""
    return b"".join(event.frame for event in log)


def assert_whole(log: list[Stored]) -> None:
    """A log that was read to its end can be compared with: dense from 1, time never back, one terminal event, last."""
    assert [event.n for event in log] == list(range(1, len(log) + 1))
    assert all(re.fullmatch(r"[0-9]{13}-[0-9]+", event.position) for event in log)
    times = [int(event.position.partition("-")[0]) for event in log]
    assert times == sorted(times)
    assert [event.n for event in log if event.type == "finish"] == [len(log)]
