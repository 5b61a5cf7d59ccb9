"""Wake-ups over Redis pub/sub."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.adapters.redis_client import CALL_SECONDS
from service.adapters.redis_keys import READY_CHANNEL

log = structlog.get_logger()

_RING_SECONDS: Final = 0.5
_RECONNECT_SECONDS: Final = 1.0


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
        while True:
            pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
            try:
                await pubsub.subscribe(READY_CHANNEL)
                yield  # what rang before is unknown
                while True:
                    if await pubsub.get_message(timeout=CALL_SECONDS) is not None:
                        yield
            except (RedisError, OSError) as error:
                log.warning("doorbell_interrupted", cause=type(error).__name__)
                await asyncio.sleep(_RECONNECT_SECONDS)
            finally:
                await pubsub.aclose()  # type: ignore[no-untyped-call]
