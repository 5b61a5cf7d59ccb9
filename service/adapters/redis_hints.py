"""Hints over Redis pub/sub, one connection a process."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Final

import structlog
from redis.asyncio import Redis

from service.adapters.redis_keys import PULSE_CHANNEL, live_channel, task_of
from service.adapters.redis_subscriber import Broken, Confirmed, Published, RedisSubscriber
from service.model.ids import Epoch, TaskId
from service.model.log import Hint, Interrupted, Listening
from service.model.position import InvalidPosition, Position
from service.model.trace import trace_from

log = structlog.get_logger()

_PULSE: Final = PULSE_CHANNEL.encode()
"""Belongs to no task."""


class RedisHintFeed:
    """The port `HintFeed`."""

    def __init__(self, redis: Redis) -> None:
        self._subscriber = RedisSubscriber(redis, "hints", PULSE_CHANNEL)

    async def subscribe(self, task_id: TaskId) -> None:
        await self._subscriber.subscribe(live_channel(task_id))

    async def unsubscribe(self, task_id: TaskId) -> None:
        await self._subscriber.unsubscribe(live_channel(task_id))

    async def items(self) -> AsyncGenerator[Hint | Listening | Interrupted]:
        async with aclosing(self._subscriber.messages()) as messages:
            async for message in messages:
                match message:
                    case Broken():
                        yield Interrupted()
                    case Published(channel, data) if channel != _PULSE:
                        yield _read(channel, data)
                    case Confirmed(channel) if channel != _PULSE:
                        yield Listening(_task(channel))


class RedisHints:
    """The port `Hints`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[RedisHintFeed]:
        yield RedisHintFeed(self._redis)


def _task(channel: bytes) -> TaskId:
    return task_of(channel.decode())


def _read(channel: bytes, data: bytes) -> Hint | Listening:
    """What was published about a log."""
    task_id = _task(channel)
    head, _, frames = data.partition(b"\n")
    try:
        epoch, before, last, terminal, *traces = head.decode().split(" ")
        trace = trace_from(traces[0]) if traces else None
        positions = Position.parse(before), Position.parse(last)
        return Hint(task_id, Epoch(int(epoch)), *positions, terminal == "1", frames, trace)
    except (ValueError, InvalidPosition):
        # Of another version, or nobody's: readers look into the store, as after a lost one.
        log.warning("hint_not_understood", task_id=task_id)
        return Listening(task_id)
