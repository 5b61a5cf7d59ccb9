"""What takes completions in these tests: in memory, with a database that goes away when it is told to."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson

from consumers.completions import Completions, Label, Takes
from service.adapters.rabbit_intake import Intake
from service.model.errors import DatabaseUnavailable
from service.model.events import Json
from service.model.ids import OperationId, TaskId
from service.model.operation import (
    Accepted,
    Completion,
    Conflicting,
    Duplicate,
    Noted,
    Outcome,
    Progress,
    Receipt,
    Refused,
    Report,
    Unknown,
    status_of,
)

Taken = Accepted | Duplicate | Conflicting | Unknown | Refused | Noted


def new_id() -> OperationId:
    return OperationId(str(uuid.uuid4()))


def success(operation_id: str, result: Json = None, **more: Json) -> bytes:
    return orjson.dumps({"operation_id": operation_id, "success": True, "result": result, **more})


@dataclass(slots=True)
class Ledger:
    """Operations, what became of each, and all that is said to it."""

    operations: dict[OperationId, Outcome | None] = field(default_factory=dict)
    """Those that there are; None while one is pending."""
    asked: list[Report] = field(default_factory=list)
    taken: list[OperationId] = field(default_factory=list)
    """Whose outcome took effect, in this order."""
    is_away: bool = False
    breaks_on: Callable[[Report], bool] = lambda _: False
    holds_before: asyncio.Event | None = None
    """What is asked waits for this before it is stored; or, the other one, before that is told."""
    holds_behind: asyncio.Event | None = None
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def pending(self, count: int = 1) -> list[OperationId]:
        """New operations."""
        ids = [new_id() for _ in range(count)]
        self.operations.update(dict.fromkeys(ids))
        return ids

    async def take(self, report: Completion | Progress) -> Taken:
        async with self.changed:
            self.asked.append(report)
            self.changed.notify_all()
        if self.holds_before is not None:
            await self.holds_before.wait()
        if self.is_away:
            raise DatabaseUnavailable
        if self.breaks_on(report):
            raise RuntimeError("a mistake of ours")
        taken = self._store(report)
        async with self.changed:
            self.changed.notify_all()
        if self.holds_behind is not None:
            await self.holds_behind.wait()
        return taken

    def _store(self, report: Report) -> Taken:
        operation_id = report.operation_id
        if operation_id not in self.operations:
            return Unknown()
        if report.task_id not in (None, TaskId(operation_id)):
            return Refused("The task is not the operation's own.")
        if isinstance(report, Progress):
            return Noted(operation_id)
        receipt = Receipt(operation_id, TaskId(operation_id), str(len(self.taken)), status_of(report.outcome))
        stored = self.operations[operation_id]
        if stored is None:
            self.operations[operation_id] = report.outcome
            self.taken.append(operation_id)
            return Accepted(receipt)
        return Duplicate(receipt) if stored == report.outcome else Conflicting(operation_id)

    async def has(self, is_so: Callable[[], bool]) -> None:
        """Returns when this is so."""
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(is_so)


@dataclass(slots=True)
class Clock:
    """The time of day, as a test sets it."""

    at: float = 1_700_000_000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)


@dataclass(slots=True, eq=False)
class Door:
    """A running consumer, and what it noted."""

    completions: Completions
    intake: Intake
    clock: Clock
    run: "asyncio.Task[None]"
    stop: asyncio.Event
    labels: list[Label]
    _noted: asyncio.Event

    async def noted(self, *labels: Label) -> None:
        """Returns when this, in any order, and nothing else was noted."""
        async with asyncio.timeout(45):
            while sorted(self.labels) != sorted(labels):
                assert len(self.labels) <= len(labels), self.labels
                self._noted.clear()
                await self._noted.wait()

    async def leave(self) -> None:
        """Tell it to stop, and wait until it has; what was in its hands goes back."""
        self.stop.set()
        await self.run
        await self.intake.close()

    async def die(self) -> None:
        """As a process that is killed: whatever it was doing is not finished."""
        self.run.cancel()
        await asyncio.wait([self.run])
        await self.intake.close()


@asynccontextmanager
async def door(intake: Intake, takes: Takes, clock: Clock | None = None, **more: float) -> AsyncIterator[Door]:
    """Run one while the block runs; what comes is taken by a ledger, or by something real."""
    clock = clock or Clock()
    labels: list[Label] = []
    noted = asyncio.Event()

    def note(label: Label) -> None:
        labels.append(label)
        noted.set()

    waits = {"store_waits": (0.01,), "bug_waits": (0.0,)}
    monotonic = asyncio.get_running_loop().time
    completions = Completions(intake, takes, clock.now, monotonic, note, **{**waits, **more})  # type: ignore[arg-type]
    stop = asyncio.Event()
    run = asyncio.create_task(completions.run(stop), name="door")
    opened = Door(completions, intake, clock, run, stop, labels, noted)
    try:
        yield opened
    finally:
        if run.done() and not run.cancelled():
            await run
        await (opened.die() if run.done() else opened.leave())
