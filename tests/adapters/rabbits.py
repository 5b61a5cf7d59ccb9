"""Exchanges and queues of a test's own at a RabbitMQ, and what a test does with them."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import aio_pika

from service.adapters.rabbit import Line, Names, Outlet, Patience, asking, declare, depths, open_line
from service.adapters.rabbit_intake import PREFETCH, Intake
from service.adapters.rabbit_letters import DeadLetters
from service.model.intake import QueueDepths

SOON = Patience(connect=2.0, call=1.0, park=0.05, waits=(0.02,))
"""For tests: whoever waits is not waited for."""


@dataclass(slots=True)
class Rabbit:
    """A RabbitMQ as one test sees it."""

    url: str
    names: Names
    line: Line
    outlet: Outlet
    letters: DeadLetters
    clock_ms: int = 1_700_000_000_000

    def intake(self, url: str | None = None, *, patience: Patience = SOON, prefetch: int = PREFETCH) -> Intake:
        """What a process has of it; over another URL, if that is given. Its outlet stays the test's own."""
        return Intake(
            url or self.url,
            self.names,
            self.outlet,
            lambda: self.clock_ms,
            patience,
            prefetch=prefetch,
            probe_seconds=0.05,
        )

    def through(self, port: int) -> str:
        """The same broker's URL, by another port of this machine."""
        place = urlsplit(self.url)
        return place._replace(netloc=f"{place.username}:{place.password}@127.0.0.1:{port}").geturl()

    @property
    def address(self) -> tuple[str, int]:
        place = urlsplit(self.url)
        assert place.hostname is not None
        return place.hostname, place.port or 5672

    async def publish(self, *bodies: bytes, headers: Mapping[str, Any] | None = None, **more: Any) -> None:
        """As some service does that uses more of AMQP than it needs to."""
        sent = [aio_pika.Message(body, headers=dict(headers or {}), delivery_mode=2, **more) for body in bodies]
        for begin in range(0, len(sent), 100):
            await asyncio.gather(*(self.outlet.send(one, self.names.exchange) for one in sent[begin : begin + 100]))

    async def depths(self) -> QueueDepths:
        """How many messages wait now."""
        async with asking(5):
            return await depths(self.line, self.names)

    async def has(self, **counts: int) -> None:
        """Returns when so many wait; each look is a round trip to the broker."""
        async with asyncio.timeout(20):
            while (now := await self.depths()) != replace(now, **counts):
                pass

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Returns when this is so; each look is a round trip to the broker."""
        async with asyncio.timeout(10):
            while not is_so():
                await self.line.raw.basic_qos(prefetch_count=1)


@asynccontextmanager
async def rabbit_at(url: str) -> AsyncIterator[Rabbit]:
    """Everything is there while the block runs, and gone behind it."""
    names = Names(f"test-{uuid.uuid4()}.")
    async with asking(5):
        line = await open_line(url, confirms=False)
        await declare(line, names)
    outlet = Outlet(url, names, replace(SOON, call=10.0))
    try:
        yield Rabbit(url, names, line, outlet, DeadLetters(url, names, replace(SOON, call=10.0)))
    finally:
        await outlet.close()
        async with asking(10):
            for queue in (names.queue, names.parked, names.dead):
                await line.raw.queue_delete(queue)
            for exchange in (names.exchange, names.dead_exchange):
                await line.raw.exchange_delete(exchange)
        await line.close()
