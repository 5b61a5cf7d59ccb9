"""Workers in virtual time: real turns and logs over tasks that are kept in memory."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from consumers.tasks import Worker
from service.adapters.memory_log import MemoryHints, MemoryLogStore
from service.agent.ports import Model
from service.agent.turn import Clock, Turns
from service.model import events as e
from service.model.encoding import decode
from service.model.errors import TakenOver
from service.model.ids import Epoch, MessageId, SessionId, TaskId
from service.model.position import BEGINNING
from service.model.session import Message
from service.model.task import Claim, End, Task
from service.registry.writer import log_writer
from tests.agent.house import told
from tests.races.loop import ShuffledLoop

LEASE_SECONDS = 15.0
UNCLAIMED = Epoch(0)
_MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Row:
    """A task with its lease."""

    task: Task
    text: str
    epoch: Epoch = UNCLAIMED
    lease_until: float = 0.0
    ending: tuple[e.Chunk, ...] | None = None
    log_closed: bool = False

    def claim(self) -> Claim:
        return Claim(self.task, self.epoch, _MIDNIGHT, self.ending)


@dataclass
class Tasks:
    """The port `TaskQueue`, and of `SessionStore` what a turn reads; each task has a session of its own.

    `trouble` is awaited in front of each call, with the verb.
    """

    loop: ShuffledLoop
    rows: dict[TaskId, Row] = field(default_factory=dict)
    trouble: Callable[[str], "asyncio.Future[None] | None"] = lambda _: None

    def post(self, text: str = "Hi") -> TaskId:
        name = f"{len(self.rows):08d}-0000-7000-8000-000000000000"
        ids = (TaskId(name), SessionId(f"s{name}"), MessageId(f"i{name}"), MessageId(f"a{name}"))
        task = Task(ids[0], ids[1], "turn", "queued", ids[2], ids[3], _MIDNIGHT, None, None, None, e.Usage(0, 0))
        self.rows[task.id] = Row(task, text)
        return task.id

    async def claim(self, limit: int, lease_seconds: float) -> Sequence[Claim]:
        taken = self.loop.time()
        claims = []
        for row in self.rows.values():
            if len(claims) < limit and not row.log_closed and row.lease_until <= taken:
                row.task = replace(row.task, status="running") if row.ending is None else row.task
                row.epoch, row.lease_until = Epoch(row.epoch + 1), taken + lease_seconds
                claims.append(row.claim())
        await self._meet("claim")
        return claims

    async def renew(self, claims: Sequence[Claim], lease_seconds: float) -> Sequence[tuple[TaskId, Epoch]]:
        await self._meet("renew")
        now = self.loop.time()
        held = [row for claim in claims if (row := self._held(claim)) is not None and row.lease_until > now]
        for row in held:
            row.lease_until = now + lease_seconds if lease_seconds else 0.0
        return [(row.task.id, row.epoch) for row in held]

    async def retake(self, claim: Claim, lease_seconds: float) -> Claim:
        await self._meet("retake")
        row = self._held(claim)
        if row is None or row.lease_until <= self.loop.time():
            raise TakenOver
        row.epoch, row.lease_until = Epoch(row.epoch + 1), self.loop.time() + lease_seconds
        return row.claim()

    async def end(self, claim: Claim, end: End) -> tuple[e.Chunk, ...]:
        await self._meet("end")
        row = self._held(claim)
        if row is None:
            raise TakenOver
        if row.ending is None:
            row.task, row.ending = replace(row.task, status=end.status, error_type=end.error_type), end.ending
        return row.ending

    async def close(self, claim: Claim) -> None:
        await self._meet("close")
        row = self._held(claim)
        if row is not None and row.ending is not None:
            row.log_closed, row.lease_until = True, 0.0

    async def history(self, session_id: SessionId) -> Sequence[Message]:
        row = next(row for row in self.rows.values() if row.task.session_id == session_id)
        return [Message(row.task.input_id, "user", ({"type": "text", "text": row.text},), row.task.id, _MIDNIGHT)]

    def _held(self, claim: Claim) -> Row | None:
        row = self.rows[claim.task.id]
        return row if row.epoch == claim.epoch else None

    async def _meet(self, verb: str) -> None:
        if (trouble := self.trouble(verb)) is not None:
            await trouble


class Bell:
    """The port `Doorbell` within one process. While `broken` is set, nobody can listen."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._listeners: list[asyncio.Event] = []
        self.rung_at: list[float] = []
        self.broken: Exception | None = None

    async def ring(self) -> None:
        self.rung_at.append(self._loop.time())
        for listener in self._listeners:
            listener.set()

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[AsyncGenerator[None]]:
        ring = asyncio.Event()
        self._listeners.append(ring)
        try:
            yield self._rings(ring)
        finally:
            self._listeners.remove(ring)

    async def _rings(self, ring: asyncio.Event) -> AsyncGenerator[None]:
        while True:
            if self.broken is not None:
                raise self.broken
            await ring.wait()
            ring.clear()
            yield


class Town:
    """Workers over the same stores, on a loop whose time is virtual."""

    def __init__(self, seed: int) -> None:
        self.loop = ShuffledLoop(seed)
        self.tasks = Tasks(self.loop)
        self.logs = MemoryLogStore(MemoryHints())
        self.bell = Bell(self.loop)
        self._working: set[asyncio.Task[None]] = set()

    def work(
        self, model: Model, *, capacity: int = 8, monotonic: Callable[[], float] | None = None
    ) -> tuple[asyncio.Task[None], asyncio.Event]:
        """A worker that runs, by a clock of its own where one is given, and what stops it."""
        stop = asyncio.Event()
        working = self.loop.create_task(self._work(model, stop, capacity, monotonic or self.loop.time))
        self._working.add(working)
        return working, stop

    async def _work(self, model: Model, stop: asyncio.Event, capacity: int, monotonic: Callable[[], float]) -> None:
        now = self.loop.time
        clock = Clock(lambda: _MIDNIGHT + timedelta(seconds=now()), now)
        async with log_writer(self.logs, lambda: int(now() * 1000)) as writer:
            turns = Turns(
                writer=writer, logs=self.logs, queue=self.tasks, sessions=self.tasks, model=model, clock=clock
            )
            worker = Worker(self.tasks, turns, self.bell, monotonic, lease_seconds=LEASE_SECONDS, capacity=capacity)
            await worker.run(stop)

    def pass_time(self, seconds: float) -> None:
        """Let everything run for so long."""
        self.loop.run(asyncio.sleep(seconds))

    def stop(self, working: asyncio.Task[None], stop: asyncio.Event) -> float:
        """Tell a worker to stop; answers how many seconds it took."""
        begun = self.loop.time()
        stop.set()
        self.loop.run(asyncio.wait_for(working, 600))
        return self.loop.time() - begun

    def told(self, task_id: TaskId) -> list[str]:
        """The log as a person reads it."""
        page = self.loop.run(self.logs.read(task_id, BEGINNING, 1000))
        return told([decode(data) for _, data in page.events])

    def leave(self) -> None:
        """Whoever still works dies here; nothing may be left over."""
        for working in self._working:
            working.cancel()
        self.loop.run(asyncio.wait(self._working))
        assert not asyncio.all_tasks(self.loop)
        self.loop.run(self.loop.shutdown_asyncgens())
        self.loop.close()
