"""What acceptance tests wait for in other processes, and a broker that has nothing left of earlier tests."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aio_pika

from service.adapters.rabbit import Names


async def empty_broker(url: str) -> None:
    """Remove our queues with all that is in them; a service declares them again."""
    names = Names()
    async with await aio_pika.connect(url) as connection:
        for name in (names.queue, names.parked, names.dead):
            channel = await connection.channel()
            await channel.queue_delete(name)


async def messages_left(url: str) -> list[int]:
    """How many are ready in our queues."""
    names = Names()
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queues = [await channel.declare_queue(each, passive=True) for each in (names.queue, names.parked, names.dead)]
        return [queue.declaration_result.message_count or 0 for queue in queues]


async def until(look: Callable[[], Awaitable[Any]], what: str, *, seconds: float = 30) -> Any:
    """What is looked for, as soon as it is there."""
    try:
        async with asyncio.timeout(seconds):
            while not (found := await look()):  # noqa: ASYNC110 - other processes work on it
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what}") from None
    return found
