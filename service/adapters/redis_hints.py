"""Hints over Redis pub/sub: one connection, which comes back by itself and never in silence."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from service.adapters.redis_client import CALL_SECONDS, FOREIGN
from service.adapters.redis_keys import PULSE_CHANNEL, live_channel, task_of
from service.model.errors import LogUnavailable, translate
from service.model.ids import Epoch, TaskId
from service.model.log import Hint, Interrupted, Listening
from service.model.position import InvalidPosition, Position

log = structlog.get_logger()

PROBE_SECONDS: Final = 5.0
"""A connection that was silent for so long is probed; silent for as long again, it counts as gone."""

_WAITS: Final = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds before each try to come back; the last one from then on."""


class RedisHintFeed:
    """The port `HintFeed`. The library's own reconnecting is not used: it loses hints without a word."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._wanted: set[TaskId] = set()
        self._pubsub: PubSub | None = None

    async def subscribe(self, task_id: TaskId) -> None:
        self._wanted.add(task_id)
        await self._tell("subscribe", task_id)

    async def unsubscribe(self, task_id: TaskId) -> None:
        self._wanted.discard(task_id)
        await self._tell("unsubscribe", task_id)

    async def items(self) -> AsyncGenerator[Hint | Listening | Interrupted]:
        failures = 0
        while True:
            try:
                async with aclosing(self._connected()) as items:
                    async for item in items:
                        failures = 0
                        yield item
            except LogUnavailable as error:
                if failures == 0:
                    log.warning("hints_interrupted", cause=type(error.__cause__).__name__)
                yield Interrupted()
            await asyncio.sleep(_WAITS[min(failures, len(_WAITS) - 1)])
            failures += 1

    async def _connected(self) -> AsyncGenerator[Hint | Listening]:
        """What one connection brings, until it breaks with LogUnavailable."""
        pubsub = self._redis.pubsub()
        try:
            with translate(FOREIGN):
                async with asyncio.timeout(CALL_SECONDS):
                    await pubsub.subscribe(PULSE_CHANNEL)
                    asked: set[TaskId] = set()
                    while missing := self._wanted - asked:  # some may be wanted while the others are asked for
                        await pubsub.subscribe(*map(live_channel, missing))
                        asked |= missing
                self._pubsub = pubsub
                probing = False
                while True:
                    message = await pubsub.get_message(timeout=PROBE_SECONDS)
                    if message is not None:
                        probing = False
                        item = _read(message)
                        if item is not None:
                            yield item
                    elif probing:
                        raise LogUnavailable
                    else:
                        await pubsub.ping()
                        probing = True
        finally:
            self._pubsub = None
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _tell(self, command: str, task_id: TaskId) -> None:
        """Ask over the connection that there is; without one, the next connection asks for all that is wanted."""
        pubsub = self._pubsub
        if pubsub is None:
            return
        try:
            with translate(FOREIGN):
                async with asyncio.timeout(CALL_SECONDS):
                    await getattr(pubsub, command)(live_channel(task_id))
        except LogUnavailable:
            # The reader of this connection finds out by itself; to be sure that it does, the connection ends here.
            await pubsub.aclose()  # type: ignore[no-untyped-call]


class RedisHints:
    """The port `Hints`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[RedisHintFeed]:
        yield RedisHintFeed(self._redis)


def _read(message: dict[str, Any]) -> Hint | Listening | None:
    """What a message says; None for what is not ours."""
    channel = message["channel"]
    if message["type"] == "subscribe" and channel != PULSE_CHANNEL.encode():
        return Listening(task_of(channel.decode()))
    if message["type"] != "message":
        return None
    task_id = task_of(channel.decode())
    head, _, frames = message["data"].partition(b"\n")
    try:
        epoch, before, last, terminal = head.decode().split(" ")
        return Hint(task_id, Epoch(int(epoch)), Position.parse(before), Position.parse(last), terminal == "1", frames)
    except (ValueError, InvalidPosition):
        # Of another version, or nobody's: readers look into the store, as after a lost one.
        log.warning("hint_not_understood", task_id=task_id)
        return Listening(task_id)
