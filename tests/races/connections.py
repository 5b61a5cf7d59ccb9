"""A reader of the one log there is in these worlds, over all its connections."""

import asyncio
from collections.abc import AsyncGenerator

from service.model.encoding import unframed
from service.model.errors import LogUnavailable
from service.model.ids import TaskId
from service.model.position import Position
from service.registry.follow import Begun, Ended, Followed, Frames, Gap
from tests.races.world import World

TASK = TaskId("the-task")


class Connections:
    """One reader over all its connections: from a position on, cut and back again."""

    def __init__(self, world: World, after: Position) -> None:
        self.after = self.position = after
        self.got = b""
        self.gaps = 0
        self.ended = False
        self._world = world
        self.connect()

    def connect(self) -> None:
        self._task = self._world.loop.create_task(self._read())

    async def _read(self) -> None:
        """Over one connection; over as many as it takes where the store is away before it begins."""
        while True:
            try:
                return await self._run(self._world.follower.follow(TASK, self.position))
            except LogUnavailable:
                await asyncio.sleep(0.1)

    async def _run(self, items: AsyncGenerator[Followed]) -> None:
        has_begun = False
        try:
            async for item in items:
                match item:
                    case Begun(gap, end):
                        has_begun = True
                        self.gaps += gap is not None
                        self.ended = isinstance(end, Ended)
                    case Gap():
                        self.gaps += 1
                    case Frames(frames, last):
                        assert self._world.store.ever_stored.issuperset(unframed(frames)), "shown and never stored"
                        self.got += frames
                        self.position = last
                    case Ended():
                        self.ended = True
        except LogUnavailable:
            assert not has_begun, "a store that is away is waited for once a reader has begun"
            raise
        finally:
            await items.aclose()

    def cut(self) -> None:
        self._task.cancel()
        self._world.loop.run(asyncio.wait([self._task]))

    def check_alive(self) -> None:
        if self._task.done() and not self._task.cancelled():
            error = self._task.exception()
            assert error is None, error
