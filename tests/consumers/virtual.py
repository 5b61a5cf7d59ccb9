"""Workers in virtual time: real turns and logs over tasks that are kept in memory."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count

from consumers.tasks import Worker
from service.adapters.memory_database import MemoryDatabase
from service.adapters.memory_doorbell import MemoryDoorbell
from service.adapters.memory_log import MemoryHints, MemoryLogStore
from service.adapters.memory_messages import MemoryMessages
from service.adapters.memory_operations import MemoryOperations
from service.adapters.memory_sessions import MemorySessions
from service.adapters.memory_tasks import MemoryTasks
from service.agent.ports import Model
from service.agent.runner import TaskRunner
from service.agent.step import Clock, Steps
from service.agent.tools import Toolbox
from service.model.caller import EVERYONES
from service.model.encoding import decode
from service.model.errors import DatabaseUnavailable, LogUnavailable, StoreUnavailable
from service.model.events import TextPart, Usage
from service.model.generation import CallEnded, Piece, Prompt, TextPiece
from service.model.ids import TaskId
from service.model.position import BEGINNING
from service.model.session import NewMessage
from service.model.task import Claim, End, Ended, Held, Rung
from service.registry.watch import StoreWatch
from service.registry.writer import log_writer
from tests.agent.faults import Fault, Watched
from tests.agent.house import told
from tests.races.loop import ShuffledLoop

LEASE_SECONDS = 15.0
_MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


class Speaker:
    """A model that speaks for so long, a word a second; where it is asked `slow` it takes so long to stop.

    A `deaf` one takes as long however often it is told. `calls` says when each call began, `ended` when it was over.
    """

    provider = "the speaker"

    def __init__(self, seconds: int, *, closing_seconds: float = 0, silent: bool = False, deaf: bool = False) -> None:
        self._seconds = seconds
        self._closing_seconds = closing_seconds
        self._silent = silent
        self._deaf = deaf
        self.calls: list[float] = []
        self.ended: list[float] = []

    async def stream(self, task_id: TaskId, prompt: Prompt) -> AsyncGenerator[Piece]:
        now = asyncio.get_running_loop().time
        self.calls.append(now())
        try:
            yield TextPiece("Well: ")
            for second in range(self._seconds):
                await asyncio.sleep(1)
                if not self._silent:
                    yield TextPiece(f"{second} ")
            yield CallEnded("stop", Usage(1, 1))
        finally:
            if getattr(prompt.turn[0].parts[0], "text", "") == "slow":
                try:
                    await self._close(now() + self._closing_seconds)
                finally:
                    self.ended.append(now())
            else:
                self.ended.append(now())

    async def _close(self, until: float) -> None:
        while (left := until - asyncio.get_running_loop().time()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                if not self._deaf:
                    raise


def away() -> "asyncio.Future[None]":
    raise DatabaseUnavailable


def mistake() -> "asyncio.Future[None]":
    raise RuntimeError("a mistake of ours")


def silence() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


def late(seconds: float) -> "asyncio.Future[None]":
    """Answered after so long, in the same turn of the loop in which everything else is that is due then."""
    loop = asyncio.get_running_loop()
    answer = loop.create_future()
    loop.call_later(seconds, lambda: answer.done() or answer.set_result(None))
    return answer


class Tasks(MemoryTasks):
    """Each task has a session of its own.

    `trouble` is awaited with the verb: in front of each call, but behind a claim, which has then taken effect.
    """

    def __init__(self, database: MemoryDatabase) -> None:
        super().__init__(database)
        self.rows = database.tasks
        self.trouble: Callable[[str], asyncio.Future[None] | None] = lambda _: None

    async def claim(self, limit: int, lease_seconds: float, *, counts_lost: bool = True) -> Sequence[Claim]:
        claims = await super().claim(limit, lease_seconds, counts_lost=counts_lost)
        await self._meet("claim")
        return claims

    async def renew(self, claims: Sequence[Claim], lease_seconds: float) -> Sequence[Held]:
        await self._meet("renew")
        return await super().renew(claims, lease_seconds)

    async def retake(self, claim: Claim, lease_seconds: float) -> Claim:
        await self._meet("retake")
        return await super().retake(claim, lease_seconds)

    async def end(self, claim: Claim, end: End) -> Ended:
        await self._meet("end")
        return await super().end(claim, end)

    async def close(self, claim: Claim) -> None:
        await self._meet("close")
        await super().close(claim)

    async def _meet(self, verb: str) -> None:
        if (trouble := self.trouble(verb)) is not None:
            await trouble


class Bell(MemoryDoorbell):
    """While `broken` is set, nobody can listen."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self.rung_at: list[float] = []
        self.broken: Exception | None = None

    async def ring(self, rung: Rung) -> None:
        self.rung_at.append(self._loop.time())
        await super().ring(rung)

    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[AsyncGenerator[Rung]]:
        async with super().listen() as rings, aclosing(self._unless_broken(rings)) as taken:
            yield taken

    async def _unless_broken(self, rings: AsyncGenerator[Rung]) -> AsyncGenerator[Rung]:
        async for rung in rings:
            yield rung
            if self.broken is not None:
                raise self.broken


@dataclass
class Cut(Fault):
    """While `is_cut` is set, a store does not answer one worker."""

    error: type[StoreUnavailable] = LogUnavailable
    is_cut: bool = False

    async def before(self, verb: str) -> None:
        if self.is_cut:
            raise self.error


@dataclass
class Line:
    """One worker's way to the stores."""

    logs: Cut = field(default_factory=Cut)
    database: Cut = field(default_factory=lambda: Cut(error=DatabaseUnavailable))


class Town:
    """Workers over the same stores, on a loop whose time is virtual."""

    def __init__(self, seed: int) -> None:
        self.loop = ShuffledLoop(seed)
        now, numbers = self.loop.time, count(1)
        self.database = MemoryDatabase(
            lambda: _MIDNIGHT + timedelta(seconds=now()),
            now,
            lambda: f"{next(numbers):08d}-0000-7000-8000-000000000000",
        )
        self.sessions, self.messages = MemorySessions(self.database), MemoryMessages(self.database)
        self.tasks = Tasks(self.database)
        self.desk = MemoryOperations(self.database)
        self.logs = MemoryLogStore(MemoryHints())
        self.bell = Bell(self.loop)
        self._working: set[asyncio.Task[None]] = set()

    def work(
        self,
        model: Model,
        *,
        capacity: int = 8,
        monotonic: Callable[[], float] | None = None,
        line: Line | None = None,
    ) -> tuple[asyncio.Task[None], asyncio.Event]:
        """A worker that runs, by a clock and over a line of its own where they are given, and what stops it."""
        stop = asyncio.Event()
        working = self.loop.create_task(
            self._work(model, stop, capacity, monotonic or self.loop.time, line or Line()),
        )
        self._working.add(working)
        return working, stop

    async def _work(
        self, model: Model, stop: asyncio.Event, capacity: int, monotonic: Callable[[], float], line: Line
    ) -> None:
        now = self.loop.time
        clock = Clock(lambda: _MIDNIGHT + timedelta(seconds=now()), now, asyncio.sleep)
        logs, queue = Watched(self.logs, line.logs), Watched(self.tasks, line.database)
        watch = StoreWatch({"logs": partial(logs.head, TaskId("any"))}, clock.now, monotonic)
        async with log_writer(logs, lambda: int(now() * 1000)) as writer, watch.watching():
            turns = TaskRunner(
                writer=writer,
                logs=logs,
                queue=queue,
                desk=Watched(self.desk, line.database),
                messages=Watched(self.messages, line.database),
                step_store=queue,
                steps=Steps(model, clock, self.loop.random.random),
                tools=Toolbox(),
                clock=clock,
            )
            worker = Worker(
                queue,
                turns,
                self.bell,
                monotonic,
                partial(watch.away_seconds, "logs"),
                lease_seconds=LEASE_SECONDS,
                capacity=capacity,
            )
            await worker.run(stop)

    def post(self, text: str = "Hi") -> TaskId:
        """A message in a session of its own."""
        session = self.loop.run(self.sessions.create(None))
        return self.loop.run(self.messages.post(EVERYONES, session.id, NewMessage((TextPart(text),)))).task_id

    def cancel(self, task_id: TaskId) -> None:
        self.loop.run(self.tasks.cancel(EVERYONES, task_id))

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
