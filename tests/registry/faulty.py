"""A log store between the writer and the real one, which fails as it is told to."""

import asyncio
from collections import deque
from collections.abc import Sequence
from enum import Enum, auto

from service.model.errors import LogUnavailable
from service.model.ids import Epoch, TaskId
from service.model.log import AppendResult, Batch, Fenced, Head, Invalid, Opened, Page, Refused
from service.model.position import Position
from service.registry.ports import LogStore


class Fault(Enum):
    """What happens to one call of `append`."""

    NONE = auto()
    REQUEST_LOST = auto()
    REPLY_LOST = auto()
    """It was done, and nobody heard of it."""
    REFUSED = auto()
    """Every batch is refused, as when memory is out."""
    INVALID = auto()
    """Every batch is one that no log can take."""
    HELD = auto()
    """Nothing happens until `release`; then it is done."""


class FaultyLogStore:
    """The port `LogStore`; `faults` are used up one a call of `append`, then all is well."""

    def __init__(self, inner: LogStore) -> None:
        self.inner = inner
        self.faults: deque[Fault] = deque()
        self.appends: list[Sequence[Batch]] = []
        self._called = asyncio.Event()
        self._released = asyncio.Event()

    async def open(self, task_id: TaskId, epoch: Epoch, floor: Position) -> Opened | Fenced:
        return await self.inner.open(task_id, epoch, floor)

    async def until(self, calls: int) -> None:
        """Wait until `append` has been called so often."""
        while len(self.appends) < calls:
            self._called.clear()
            await self._called.wait()

    def release(self) -> None:
        """Let what is held go on."""
        self._released.set()

    async def append(self, batches: Sequence[Batch]) -> Sequence[AppendResult]:
        self.appends.append(batches)
        self._called.set()
        for _ in range(3):  # it takes a while, as a store does
            await asyncio.sleep(0)
        match self.faults.popleft() if self.faults else Fault.NONE:
            case Fault.REQUEST_LOST:
                raise LogUnavailable
            case Fault.HELD:
                await self._released.wait()
                return await self.inner.append(batches)
            case Fault.REFUSED:
                return [Refused("OOM")] * len(batches)
            case Fault.INVALID:
                return [Invalid()] * len(batches)
            case Fault.REPLY_LOST:
                await self.inner.append(batches)
                raise LogUnavailable
            case _:
                return await self.inner.append(batches)

    async def read(self, task_id: TaskId, after: Position, count: int) -> Page:
        return await self.inner.read(task_id, after, count)

    async def head(self, task_id: TaskId) -> Head:
        return await self.inner.head(task_id)
