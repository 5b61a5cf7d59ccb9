"""A whole turn's log in memory, hot and archived, with its task's row; everything in it can be tampered with."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from service.adapters.memory_database import MemoryDatabase
from service.adapters.memory_tasks import MemoryTasks
from service.model import events as e
from service.model.chain import Row
from service.model.ids import MessageId, PartId, SessionId, TaskId
from service.model.log import StoredEvent
from service.model.session import UNSET
from service.model.task import Task, TaskStatus
from service.model.verdict import Verdict
from service.registry.export import Exporter
from service.registry.proof import Prover
from tests.registry.readers import Library, library

USAGE = e.Usage(3, 5)
SECRET = "Only the two of us may know"


def turn(task: Task, *, words: int = 4, output: str | None = None) -> list[e.Chunk]:
    """A turn of two steps, with a tool call in the first, that said these many words."""
    said = [f"{SECRET} {i} " for i in range(words)]
    finish = e.FinishMetadata(task.id, "succeeded", "".join(said) if output is None else output, USAGE, "", "")
    return [
        e.Start(task.answer_id, e.StartMetadata(task.id, task.session_id)),
        e.DataInput(e.InputData(task.input_id, (e.TextPart(SECRET),))),
        e.StartStep(),
        e.ToolInputAvailable("call", "search", {"query": SECRET}),
        e.MessageMetadata(e.CallMetadata("tool-calls", e.Usage(1, 2), 1, 2)),
        e.ToolOutputAvailable("call", [SECRET, 42]),
        e.FinishStep(),
        e.StartStep(),
        e.TextStart(PartId("p1")),
        *(e.TextDelta(PartId("p1"), word) for word in said),
        e.TextEnd(PartId("p1")),
        e.MessageMetadata(e.CallMetadata("stop", e.Usage(2, 3), 1, 2)),
        e.FinishStep(),
        e.Finish("stop", finish),
    ]


@dataclass
class Bench:
    """A registry in memory, and the rows of its tasks."""

    library: Library
    database: MemoryDatabase

    def __post_init__(self) -> None:
        archive = self.library.archive
        self.prover = Prover(self.library.store, archive, archive, archive, MemoryTasks(self.database))
        self.exporter = Exporter(self.library.follower, archive, archive)

    def task(self) -> Task:
        session = self.database.add_session(None, UNSET)
        return self.database.add_turn(SessionId(session.id), MessageId("i"))

    async def write(self, task: Task, chunks: Sequence[e.Chunk], status: TaskStatus = "succeeded") -> None:
        """Its log, each event by itself, and its row as the end of the turn leaves it."""
        log = await self.library.open(task.id)
        for chunk in chunks:
            await log.append(chunk)
        row = self.database.tasks[task.id]
        row.task = replace(task, status=status, usage=USAGE)
        self.library.archive.know(task.id, log_closed=status not in ("queued", "running"))

    async def hot(self) -> TaskId:
        """A log that has ended and is not archived."""
        task = self.task()
        await self.write(task, turn(task))
        return task.id

    async def both(self) -> TaskId:
        """One that is archived, too."""
        task_id = await self.hot()
        await self.library.archivist.archive_some()
        return task_id

    async def archived(self) -> TaskId:
        """One whose hot copy has gone."""
        task_id = await self.both()
        self.library.store.forget(task_id)
        return task_id

    def rows(self, task_id: TaskId) -> list[Row]:
        """The archived events, to be changed in place."""
        task = self.library.archive.tasks[task_id]
        task.rows = list(task.rows)
        return task.rows

    def events(self, task_id: TaskId) -> list[StoredEvent]:
        """The hot events, to be changed in place (and `_positions` with them)."""
        return self.library.store._logs[task_id].events

    def put_hot(self, task_id: TaskId, events: Sequence[StoredEvent]) -> None:
        """The hot copy has exactly these events; its head stays."""
        log = self.library.store._logs[task_id]
        log.events[:] = events
        log.positions[:] = [type(log.last).stored(position) for position, _ in events]

    async def prove(self, task_id: TaskId) -> Verdict:
        return await self.prover.prove(task_id)


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    async with library() as made:
        yield Bench(made, MemoryDatabase())
        await asyncio.sleep(0)


def kinds(verdict: Verdict) -> list[str]:
    return [finding.type for finding in verdict.findings]
