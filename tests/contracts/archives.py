"""Tasks with logs to archive, in memory and in PostgreSQL."""

import time
import uuid
from dataclasses import dataclass, field
from typing import Protocol

from service.adapters.memory_archive import MemoryArchive
from service.adapters.postgres import Database
from service.adapters.postgres_archive import PostgresArchive
from service.adapters.postgres_tasks import PostgresTasks
from service.model.chain import NOTHING_READ, Proof, proven
from service.model.encoding import encode
from service.model.events import Finish, FinishMetadata, Usage
from service.model.ids import TaskId
from service.model.log import StoredEvent
from service.registry.ports import LogArchive, LogSource, Seals, TaskDirectory
from tests.contracts.logs import event

FINISH = encode(Finish("stop", FinishMetadata(TaskId("t"), "succeeded", "", Usage(0, 0), "", "")))


def task_made_at(ms: int) -> TaskId:
    """A task whose id says that it was made then, in Unix milliseconds."""
    return TaskId(str(uuid.UUID(f"{ms:012x}7{uuid.uuid4().hex[13:]}")))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def whole_log(events: int, *, first: int = 1, ms: int = 1000, text: str = "x") -> list[StoredEvent]:
    """A closed log, each two of its events of one time."""
    entries = [event(ms + n // 2, n, f"{text}{n}") for n in range(first, first + events)]
    return [*entries[:-1], (entries[-1][0], FINISH)]


class ArchiveBackend(Protocol):
    """An archive, and what it needs to know of tasks."""

    archive: LogArchive
    archived: LogSource
    seals: Seals
    directory: TaskDirectory

    async def task(self, *, made_ms: int | None = None, log_closed: bool = True, held: bool = False) -> TaskId:
        """A task that has ended."""

    async def chain(self, task_id: TaskId) -> tuple[int, bytes]:
        """Of an archived log, how many events it has and its last link."""


async def archive(backend: ArchiveBackend, task_id: TaskId, events: list[StoredEvent]) -> Proof:
    """Archive a log at once."""
    proof, rows = proven(NOTHING_READ, events)
    await backend.archive.prepare([task_id])
    async with backend.archive.copying([task_id]) as copying:
        assert copying.task_ids == [task_id]
        await copying.put(task_id, rows)
        await copying.seal({task_id: proof})
    return proof


@dataclass
class InMemory:
    """In memory."""

    archive: MemoryArchive = field(default_factory=MemoryArchive)

    def __post_init__(self) -> None:
        self.archived = self.directory = self.seals = self.archive

    async def task(self, *, made_ms: int | None = None, log_closed: bool = True, held: bool = False) -> TaskId:
        task_id = task_made_at(made_ms or now_ms())
        self.archive.know(task_id, log_closed=log_closed, held=held)
        return task_id

    async def chain(self, task_id: TaskId) -> tuple[int, bytes]:
        proof = self.archive.tasks[task_id].proof
        assert proof is not None
        return proof.events, proof.link


@dataclass
class InPostgres:
    """In a database with the schema."""

    database: Database

    def __post_init__(self) -> None:
        self.archive = self.archived = self.seals = PostgresArchive(self.database)
        self.directory = PostgresTasks(self.database)

    async def task(self, *, made_ms: int | None = None, log_closed: bool = True, held: bool = False) -> TaskId:
        task_id = task_made_at(made_ms or now_ms())
        await self.database.fetch(
            """
            WITH session AS (INSERT INTO sessions DEFAULT VALUES RETURNING id),
            task AS (
                INSERT INTO tasks (id, session_id, kind, status, input_id, ending, log_closed, started_at)
                SELECT $1, id, 'turn', 'succeeded', 'i', '[]', $2, now() FROM session
                RETURNING id
            )
            INSERT INTO leases (task_id, epoch, lease_until)
            SELECT id, 1, CASE WHEN $3 THEN timestamptz 'infinity' ELSE timestamptz '-infinity' END FROM task
            """,
            task_id,
            log_closed,
            held,
        )
        return task_id

    async def chain(self, task_id: TaskId) -> tuple[int, bytes]:
        (row,) = await self.database.fetch("SELECT events, sha256 FROM log_archives WHERE task_id = $1", task_id)
        return row["events"], row["sha256"]
