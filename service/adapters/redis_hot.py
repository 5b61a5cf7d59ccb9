"""The hot logs as keys: what may expire, what is removed, and what there is."""

import asyncio
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ReadOnlyError

from service.adapters.redis_client import CALL_SECONDS, FOREIGN, leave_server
from service.adapters.redis_keys import ANY_LOG_KEY, DATABASE_KEY, log_key, meta_key, owner_of
from service.adapters.redis_log import META_FIELDS, page_of
from service.model.errors import translate
from service.model.ids import TaskId
from service.model.log import Page, Scanned

SCAN_KEYS: Final = 256
"""Looked at by one call; a little more may come of it."""


class RedisHotLogs:
    """The port `HotLogs`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._retire = redis.register_script((files("service.adapters") / "retire.lua").read_text())

    async def begin(self, task_ids: Sequence[TaskId], count: int) -> Sequence[Page]:
        pipeline = self._redis.pipeline(transaction=True)
        for task_id in task_ids:
            pipeline.xrange(log_key(task_id), "-", "+", count)
            pipeline.hmget(meta_key(task_id), META_FIELDS)
        replies = await self._send(pipeline)
        return [page_of(entries, meta, known=True) for entries, meta in zip(replies[::2], replies[1::2], strict=True)]

    async def retire(self, task_ids: Sequence[TaskId], seconds: int) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for task_id in task_ids:
            await self._retire([log_key(task_id), meta_key(task_id)], [seconds], client=pipeline)
        await self._send(pipeline)

    async def is_of(self, database: str) -> bool:
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.set(DATABASE_KEY, database, nx=True)
        pipeline.get(DATABASE_KEY)
        _, owner = await self._send(pipeline)
        return bool(owner == database.encode())

    async def remove(self, task_ids: Sequence[TaskId]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for task_id in task_ids:
            pipeline.unlink(log_key(task_id), meta_key(task_id))
        await self._send(pipeline)

    async def scan(self, cursor: int) -> Scanned:
        with translate(FOREIGN):
            async with asyncio.timeout(CALL_SECONDS):
                following, keys = cast(
                    tuple[int, list[bytes]], await self._redis.scan(cursor, match=ANY_LOG_KEY, count=SCAN_KEYS)
                )
        owners = (owner_of(key) for key in keys)
        return Scanned(list(dict.fromkeys(owner for owner in owners if owner is not None)), following)

    async def _send(self, pipeline: Pipeline) -> list[Any]:
        with translate(FOREIGN):
            async with asyncio.timeout(CALL_SECONDS):
                try:
                    return await pipeline.execute()
                except ReadOnlyError:
                    await leave_server(self._redis)
                    raise
