"""A subscribed connection to Redis, which comes back by itself and never in silence."""

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from service.adapters.redis_client import CALL_SECONDS, FOREIGN
from service.model.errors import LogUnavailable, cause_of, translate

log = structlog.get_logger()

PROBE_SECONDS: Final = 5.0
"""A connection that was silent for so long is probed; silent for as long again, it counts as gone."""

MAX_HEARD: Final = 256
"""Replies taken at once from what has arrived: a busy connection lets others have their turn in between."""

_WAITS: Final = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds before each try to come back; the last one from then on."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """From here on this channel is heard."""

    channel: bytes


@dataclass(frozen=True, slots=True)
class Published:
    """Somebody said this on a channel."""

    channel: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """A connection was lost: what is published until a channel is confirmed again is not heard."""


class RedisSubscriber:
    """What is published on some channels, of which one at least is always wanted: else nothing could be probed.

    The library's own subscriber is not used: it reconnects and loses messages without a word, and costs five times as
    much a message. `name` is what the log calls this.
    """

    def __init__(self, redis: Redis, name: str, *channels: str, probe_seconds: float = PROBE_SECONDS) -> None:
        self._redis = redis
        self._interrupted = f"{name}_interrupted"
        self._probe_seconds = probe_seconds
        self._wanted = set(channels)
        self._connection: AbstractConnection | None = None

    async def subscribe(self, channel: str) -> None:
        """Want this channel too. Never waits for the connection."""
        self._wanted.add(channel)
        await self._tell("SUBSCRIBE", channel)

    async def unsubscribe(self, channel: str) -> None:
        """Want it no more."""
        self._wanted.discard(channel)
        await self._tell("UNSUBSCRIBE", channel)

    async def messages(self) -> AsyncGenerator[Confirmed | Published | Broken]:
        """What is heard, in its order."""
        failures = 0
        while True:
            try:
                async with aclosing(self._connected()) as messages:
                    async for message in messages:
                        failures = 0
                        yield message
            except LogUnavailable as error:
                if failures == 0:
                    log.warning(self._interrupted, cause=cause_of(error))
                yield Broken()
            await asyncio.sleep(_WAITS[min(failures, len(_WAITS) - 1)])
            failures += 1

    async def _connected(self) -> AsyncGenerator[Confirmed | Published]:
        """What one connection brings, until it breaks with LogUnavailable."""
        pool = self._redis.connection_pool
        with translate(FOREIGN):
            async with asyncio.timeout(CALL_SECONDS):
                connection: AbstractConnection = await pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    await self._ask(connection)
                self._connection = connection
                probing = False
                while self._connection is connection:
                    replies = await self._hear(connection)
                    if replies:
                        probing = False
                    elif probing or self._connection is not connection:
                        break
                    else:
                        async with asyncio.timeout(CALL_SECONDS):
                            await _send(connection, "PING")
                        probing = True
                    for reply in replies:
                        match reply:
                            case [b"message", channel, data]:
                                yield Published(channel, data)
                            case [b"subscribe", channel, _]:
                                yield Confirmed(channel)
                raise LogUnavailable
            finally:
                self._connection = None
                await connection.disconnect(nowait=True)  # what is said on it still is nobody's reply
                await pool.release(connection)

    async def _hear(self, connection: AbstractConnection) -> Sequence[Any]:
        """The next reply and what came with it, as the server wrote it; none after `probe_seconds` of silence."""
        replies: list[Any] = []
        try:
            async with asyncio.timeout(self._probe_seconds):
                while not replies or (len(replies) < MAX_HEARD and await connection.can_read()):
                    reply = await connection.read_response(timeout=math.inf, disconnect_on_error=False)
                    if reply is None:  # what the library makes of ETIMEDOUT, at once and whenever it is asked again
                        raise ConnectionError
                    replies.append(reply)
        except TimeoutError:
            pass
        except ResponseError:  # something is refused: it is a reply, and does not come again
            raise
        except (RedisError, OSError):
            if not replies:  # else it is met again by the next one, behind these
                raise
        return replies

    async def _ask(self, connection: AbstractConnection) -> None:
        """Ask for all that is wanted; what is wanted may change meanwhile."""
        asked: set[str] = set()
        while asked != self._wanted:
            missing, surplus = self._wanted - asked, asked - self._wanted
            asked = set(self._wanted)
            if missing:
                await _send(connection, "SUBSCRIBE", *missing)
            if surplus:
                await _send(connection, "UNSUBSCRIBE", *surplus)

    async def _tell(self, command: str, channel: str) -> None:
        """Ask over the connection that there is; without one, the next connection asks for all that is wanted."""
        connection = self._connection
        if connection is None:
            return
        try:
            with translate(FOREIGN):
                async with asyncio.timeout(CALL_SECONDS):
                    await _send(connection, command, channel)
        except LogUnavailable:
            # The library has closed the connection, and would silently open it again for the next who writes. Who reads
            # from it stops within PROBE_SECONDS, and alone gives it back, since it may be using it.
            if self._connection is connection:
                self._connection = None


async def _send(connection: AbstractConnection, *words: str) -> None:
    await connection.send_command(*words, check_health=False)
