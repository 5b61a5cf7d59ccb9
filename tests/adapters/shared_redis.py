"""On a server that others use too: only what is ours is counted, cut off or removed."""

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from redis.asyncio import Redis

from service.adapters.redis_client import connect
from service.adapters.redis_keys import log_key, meta_key
from service.adapters.redis_log import RedisLogStore
from service.model.ids import Epoch, TaskId
from service.model.log import AppendResult, Batch, Fenced, Opened
from service.model.position import Position


@dataclass(frozen=True, slots=True)
class OurConnections:
    """Those that were made over `url`: the server knows them by a name that nobody else has."""

    url: str
    name: str
    _administrator: Redis

    async def listed(self, *, subscribed: bool | None = None) -> list[dict[str, Any]]:
        """All of them, or only those that are subscribed to something, or only the others."""
        ours = [client for client in await self._administrator.client_list() if client["name"] == self.name]
        return [client for client in ours if subscribed in (None, "P" in client["flags"])]

    async def kill(self, *, subscribed: bool) -> None:
        """Have the server close those that are subscribed, or those that are not."""
        for client in await self.listed(subscribed=subscribed):
            await self._administrator.client_kill_filter(_id=client["id"])


@asynccontextmanager
async def our_connections(url: str) -> AsyncIterator[OurConnections]:
    """To the server at `url`."""
    name = f"playhead-test-{uuid.uuid4()}"
    parts = urlsplit(url)
    query = "&".join(filter(None, [parts.query, urlencode({"client_name": name})]))
    administrator = connect(url)
    yield OurConnections(parts._replace(query=query).geturl(), name, administrator)
    await administrator.aclose()


class TidyLogStore(RedisLogStore):
    """Knows which logs were written through it."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self._written: set[TaskId] = set()

    async def open(self, task_id: TaskId, epoch: Epoch, floor: Position) -> Opened | Fenced:
        self._written.add(task_id)
        return await super().open(task_id, epoch, floor)

    async def append(self, batches: Sequence[Batch]) -> Sequence[AppendResult]:
        self._written.update(batch.task_id for batch in batches)
        return await super().append(batches)

    async def remove_all(self) -> None:
        """Remove those logs."""
        if self._written:
            await self._redis.delete(*map(log_key, self._written), *map(meta_key, self._written))
