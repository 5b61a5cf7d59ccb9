"""Wake-ups over Redis pub/sub."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.adapters.redis_keys import READY_CHANNEL
from service.adapters.redis_subscriber import RedisSubscriber

log = structlog.get_logger()

_RING_SECONDS: Final = 0.5


class RedisDoorbell:
    """The port `Doorbell`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def ring(self) -> None:
        try:
            async with asyncio.timeout(_RING_SECONDS):
                await self._redis.publish(READY_CHANNEL, b"")
        except (RedisError, OSError) as error:
            log.warning("ring_dropped", cause=type(error).__name__)

    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[AsyncGenerator[None]]:
        async with aclosing(self._rings()) as rings:
            yield rings

    async def _rings(self) -> AsyncGenerator[None]:
        async with aclosing(RedisSubscriber(self._redis, "doorbell", READY_CHANNEL).messages()) as messages:
            async for message in messages:
                if message is not None:  # a confirmation is a ring too: what rang before it is unknown
                    yield
