"""The archive of logs in memory, with as much of the tasks as it needs: for embedding and for tests."""

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from service.model.chain import Proof, Row
from service.model.ids import Epoch, TaskId
from service.model.log import Head, Page, Standing, TaskFacts
from service.model.position import BEGINNING, Position


@dataclass(slots=True)
class KnownTask:
    """What the archive knows of a task."""

    log_closed: bool = True
    held: bool = False
    proof: Proof | None = None
    """Once its log is archived."""
    rows: Sequence[Row] = ()


class MemoryArchive:
    """The ports `LogArchive`, `LogSource`, `Seals` and `TaskDirectory` within one process."""

    def __init__(self) -> None:
        self.tasks: dict[TaskId, KnownTask] = {}
        """By `know`. A task that is missing here is older than an hour."""
        self._taken: set[TaskId] = set()

    def know(self, task_id: TaskId, *, log_closed: bool = True, held: bool = False) -> None:
        """There is this task, and it stands like this."""
        self.tasks[task_id] = KnownTask(log_closed, held)

    async def due(self, after: TaskId | None, limit: int) -> Sequence[TaskId]:
        return sorted(task_id for task_id in self.tasks if self._is_due(task_id) and task_id > (after or ""))[:limit]

    async def prepare(self, task_ids: Sequence[TaskId]) -> None:
        """There is always room."""

    @asynccontextmanager
    async def copying(self, task_ids: Sequence[TaskId]) -> AsyncGenerator["MemoryCopying"]:
        taken = sorted({task_id for task_id in task_ids if self._is_due(task_id)} - self._taken)
        self._taken.update(taken)
        copying = MemoryCopying(taken)
        try:
            await asyncio.sleep(0)
            yield copying
            for task_id, proof in copying.proofs.items():
                task = self.tasks[task_id]
                task.proof, task.rows = proof, copying.rows[task_id]
        finally:
            self._taken.difference_update(taken)

    async def owe(self, task_id: TaskId) -> bool:
        task = self.tasks.get(task_id)
        if task is None or task.held or not self._is_due(task_id):
            return False
        task.log_closed = False
        return True

    async def standing(self, task_ids: Sequence[TaskId]) -> Standing:
        known = [(task_id, self.tasks.get(task_id)) for task_id in task_ids]
        return Standing(
            [task_id for task_id, task in known if task is not None and task.proof is not None],
            [task_id for task_id, task in known if task is None],
            "memory",
        )

    async def seal_of(self, task_id: TaskId) -> Proof | None:
        return self.tasks[task_id].proof if task_id in self.tasks else None

    async def facts(self, task_id: TaskId) -> TaskFacts | None:
        task = self.tasks.get(task_id)
        return None if task is None else TaskFacts(task.log_closed, task.proof is not None)

    async def head(self, task_id: TaskId) -> Head:
        task = self.tasks.get(task_id)
        if task is None or task.proof is None:
            return Head(BEGINNING, closed=False, epoch=Epoch(0))
        return Head(task.proof.last, closed=True, epoch=Epoch(0))

    async def read(self, task_id: TaskId, after: Position, count: int) -> Page:
        rows = self.tasks[task_id].rows if task_id in self.tasks else ()
        positions = [Position(ms, n) for n, ms, _ in rows]
        index = bisect_right(positions, after)
        known = after == BEGINNING or (index > 0 and positions[index - 1] == after)
        events = [(b"%d-%d" % (ms, n), data) for n, ms, data in rows[index : index + count]]
        return Page(known, events, await self.head(task_id))

    def _is_due(self, task_id: TaskId) -> bool:
        task = self.tasks[task_id] if task_id in self.tasks else KnownTask(log_closed=False)
        return task.log_closed and task.proof is None


@dataclass(slots=True)
class MemoryCopying:
    """The port `Copying`."""

    task_ids: Sequence[TaskId]
    rows: defaultdict[TaskId, list[Row]] = field(default_factory=lambda: defaultdict(list))
    proofs: dict[TaskId, Proof] = field(default_factory=dict)

    async def put(self, task_id: TaskId, rows: Sequence[Row]) -> None:
        self.rows[task_id] += rows

    async def seal(self, proofs: Mapping[TaskId, Proof]) -> None:
        self.proofs.update(proofs)
