"""A reader of a log, over all its connections."""

import asyncio
from collections.abc import AsyncGenerator
from contextvars import Context
from typing import Protocol

from service.model.encoding import unframed
from service.model.errors import StoreUnavailable
from service.model.ids import TaskId
from service.model.log import StoredEvent
from service.model.position import Position
from service.registry.follow import Begun, Ended, Followed, Follower, Frames, Gap, Vanished
from tests.races.loop import ShuffledLoop

TASK = TaskId("the-task")


class Door(Protocol):
    """A process that serves readers."""

    follower: Follower
    context: Context | None


class House(Protocol):
    """What readers need of the world they are in."""

    loop: ShuffledLoop
    store: "Recorded"


class Recorded(Protocol):
    """A store that remembers whatever it had."""

    ever_stored: set[StoredEvent]


class Connections:
    """One reader over all its connections: from a position on, cut and back again, at any door."""

    def __init__(self, house: House, door: Door, after: Position, task_id: TaskId = TASK) -> None:
        self.task_id = task_id
        self.after = self.position = after
        self.got = b""
        self.gaps = 0
        self.ended = self.vanished = False
        self.ended_at = 0.0
        self._house = house
        self.connect(door)

    def connect(self, door: Door) -> None:
        self.door = door
        self._task = self._house.loop.create_task(self._read(door), context=door.context)

    async def _read(self, door: Door) -> None:
        """Over one connection; over as many as it takes where the store is away before it begins."""
        while True:
            try:
                return await self._run(door.follower.follow(self.task_id, self.position))
            except StoreUnavailable:
                await asyncio.sleep(0.1)

    async def _run(self, items: AsyncGenerator[Followed]) -> None:
        has_begun = False
        try:
            async for item in items:
                match item:
                    case Begun(gap, end):
                        has_begun = True
                        self.gaps += gap is not None
                        self.ended, self.vanished = isinstance(end, Ended), isinstance(end, Vanished)
                    case Gap():
                        self.gaps += 1
                    case Frames(frames, last):
                        assert self._house.store.ever_stored.issuperset(unframed(frames)), "shown and never stored"
                        self.got += frames
                        self.position = last
                    case Ended():
                        self.ended, self.ended_at = True, self._house.loop.time()
                    case Vanished():
                        self.vanished = True
        except StoreUnavailable:
            assert not has_begun, "a store that is away is waited for once a reader has begun"
            raise
        finally:
            await items.aclose()

    def drop(self) -> None:
        """Cut it; it is gone as soon as its process notices."""
        self._task.cancel()

    def cut(self) -> None:
        """Cut it, and wait until it is gone."""
        self.drop()
        self._house.loop.run(asyncio.wait([self._task]))

    def check_alive(self) -> None:
        if self._task.done() and not self._task.cancelled():
            error = self._task.exception()
            assert error is None, error
