"""Wake-ups within one process, for embedding and for tests."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Final

from service.model.task import Rung, TaskDue

MAX_WAITING: Final = 1000
"""Rings that one listener has not taken yet; beyond it they are forgotten for one that says "something is due"."""


class MemoryDoorbell:
    """The port `Doorbell`."""

    def __init__(self) -> None:
        self._listeners: list[asyncio.Queue[Rung]] = []

    async def ring(self, rung: Rung) -> None:
        for waiting in self._listeners:
            if waiting.qsize() >= MAX_WAITING:
                while not waiting.empty():
                    waiting.get_nowait()
                waiting.put_nowait(TaskDue())
            waiting.put_nowait(rung)

    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[AsyncGenerator[Rung]]:
        waiting: asyncio.Queue[Rung] = asyncio.Queue()
        waiting.put_nowait(TaskDue())  # what rang before nobody knows
        self._listeners.append(waiting)
        try:
            async with aclosing(_taken(waiting)) as rings:
                yield rings
        finally:
            self._listeners.remove(waiting)


async def _taken(waiting: asyncio.Queue[Rung]) -> AsyncGenerator[Rung]:
    while True:
        yield await waiting.get()
