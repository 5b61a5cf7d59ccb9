"""A subscribed connection to Redis, which comes back by itself and never in silence."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from service.adapters.redis_client import CALL_SECONDS, FOREIGN
from service.model.errors import LogUnavailable, translate

log = structlog.get_logger()

PROBE_SECONDS: Final = 5.0
"""A connection that was silent for so long is probed; silent for as long again, it counts as gone."""

_WAITS: Final = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds before each try to come back; the last one from then on."""


class RedisSubscriber:
    """What is published on some channels, of which one at least is always wanted: else nothing could be probed.

    The library's own reconnecting is not used: it loses messages without a word. `name` is what the log calls this.
    """

    def __init__(self, redis: Redis, name: str, *channels: str, probe_seconds: float = PROBE_SECONDS) -> None:
        self._redis = redis
        self._interrupted = f"{name}_interrupted"
        self._probe_seconds = probe_seconds
        self._wanted = set(channels)
        self._pubsub: PubSub | None = None

    async def subscribe(self, channel: str) -> None:
        """Want this channel too. Never waits for the connection."""
        self._wanted.add(channel)
        await self._tell("subscribe", channel)

    async def unsubscribe(self, channel: str) -> None:
        """Want it no more."""
        self._wanted.discard(channel)
        await self._tell("unsubscribe", channel)

    async def messages(self) -> AsyncGenerator[dict[str, Any] | None]:
        """Messages, and confirmations of subscriptions, in their order; None where a connection was lost.

        What was published between None and a channel's next confirmation is lost.
        """
        failures = 0
        while True:
            try:
                async with aclosing(self._connected()) as messages:
                    async for message in messages:
                        failures = 0
                        yield message
            except LogUnavailable as error:
                if failures == 0:
                    log.warning(self._interrupted, cause=type(error.__cause__).__name__)
                yield None
            await asyncio.sleep(_WAITS[min(failures, len(_WAITS) - 1)])
            failures += 1

    async def _connected(self) -> AsyncGenerator[dict[str, Any]]:
        """What one connection brings, until it breaks with LogUnavailable."""
        pubsub = self._redis.pubsub()
        try:
            with translate(FOREIGN):
                async with asyncio.timeout(CALL_SECONDS):
                    await self._ask(pubsub)
                self._pubsub = pubsub
                probing = False
                while self._pubsub is pubsub:
                    message = await pubsub.get_message(timeout=self._probe_seconds)
                    if message is not None:
                        probing = False
                        if message["type"] in {"message", "subscribe"}:
                            yield message
                    elif probing or self._pubsub is not pubsub:
                        break
                    else:
                        async with asyncio.timeout(CALL_SECONDS):
                            await pubsub.ping()
                        probing = True
                raise LogUnavailable
        finally:
            self._pubsub = None
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _ask(self, pubsub: PubSub) -> None:
        """Ask for all that is wanted; what is wanted may change meanwhile."""
        asked: set[str] = set()
        while asked != self._wanted:
            missing, surplus = self._wanted - asked, asked - self._wanted
            asked = set(self._wanted)
            if missing:
                await pubsub.subscribe(*missing)
            if surplus:
                await pubsub.unsubscribe(*surplus)

    async def _tell(self, command: str, channel: str) -> None:
        """Ask over the connection that there is; without one, the next connection asks for all that is wanted."""
        pubsub = self._pubsub
        if pubsub is None:
            return
        try:
            with translate(FOREIGN):
                async with asyncio.timeout(CALL_SECONDS):
                    await getattr(pubsub, command)(channel)
        except LogUnavailable:
            # The library has closed the connection, and would silently open another one for its reader: it must stop
            # there, which it does within PROBE_SECONDS. It alone gives the connection back, since it may be using it.
            if self._pubsub is pubsub:
                self._pubsub = None
