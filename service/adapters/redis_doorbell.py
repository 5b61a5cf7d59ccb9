"""Wake-ups over Redis pub/sub."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Final, assert_never

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.adapters.redis_keys import CANCEL_CHANNEL, READY_CHANNEL
from service.adapters.redis_subscriber import Broken, Confirmed, Published, RedisSubscriber
from service.model.ids import TaskId
from service.model.task import CancelRequested, Rung, TaskDue

log = structlog.get_logger()

_RING_SECONDS: Final = 0.5


class RedisDoorbell:
    """The port `Doorbell`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def ring(self, rung: Rung) -> None:
        try:
            async with asyncio.timeout(_RING_SECONDS):
                await self._redis.publish(*_message(rung))
        except (RedisError, OSError) as error:
            log.warning("ring_dropped", cause=type(error).__name__)

    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[AsyncGenerator[Rung]]:
        async with aclosing(self._rings()) as rings:
            yield rings

    async def _rings(self) -> AsyncGenerator[Rung]:
        subscriber = RedisSubscriber(self._redis, "doorbell", READY_CHANNEL, CANCEL_CHANNEL)
        async with aclosing(subscriber.messages()) as messages:
            async for message in messages:
                if not isinstance(message, Broken) and (rung := _rung(message)) is not None:
                    yield rung


def _message(rung: Rung) -> tuple[str, bytes]:
    match rung:
        case TaskDue():
            return READY_CHANNEL, b""
        case CancelRequested(task_id):
            return CANCEL_CHANNEL, task_id.encode()
        case other:
            assert_never(other)


def _rung(message: Confirmed | Published) -> Rung | None:
    """The confirmation of one channel is a ring too, since what rang before it is unknown; the other is none."""
    if message.channel == READY_CHANNEL.encode():
        return TaskDue()
    return CancelRequested(TaskId(message.data.decode(errors="replace"))) if isinstance(message, Published) else None
