"""The whole core: workers, doors and their readers over stores in memory, each in a process that can die or be paused.

Everything is drawn from the seed and happens in virtual time: the same seed does the same again.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count

from consumers.tasks import POLL_SECONDS, Worker
from service.adapters.memory_archive import MemoryArchive
from service.adapters.memory_database import MemoryDatabase
from service.adapters.memory_log import MemoryLogStore
from service.adapters.memory_messages import MemoryMessages
from service.adapters.memory_operations import MemoryOperations
from service.adapters.memory_sessions import MemorySessions
from service.adapters.memory_tasks import MemoryTasks
from service.agent.runner import TaskRunner
from service.agent.step import Clock, Steps
from service.agent.tools import THINK, Toolbox
from service.model.caller import EVERYONES
from service.model.errors import DatabaseUnavailable, LogUnavailable
from service.model.events import TextPart, Usage
from service.model.generation import CallEnded, Piece, Prompt, TextPiece, ToolCallPiece
from service.model.ids import SessionId, TaskId
from service.model.position import BEGINNING
from service.model.session import NewMessage, Posted
from service.registry.facts import SharedFacts
from service.registry.follow import LOST_TAIL_PATIENCE_SECONDS, Follower
from service.registry.hub import Hub, hub
from service.registry.pages import log_pages
from service.registry.writer import log_writer
from service.sessions.conversations import Conversations
from service.sessions.tasks import Tasks
from tests.races.connections import Connections
from tests.races.ends import check
from tests.races.loop import ShuffledLoop
from tests.races.oracles import Annals, Ledger
from tests.races.wire import Process, Trouble, Wire, at_once
from tests.races.world import SlowBell, SlowHints

LEASE_SECONDS = 3.0
HEARTBEAT_SECONDS = 4.0
LOOK_SECONDS = 0.5
"""Between two looks whether all is over."""

TURN_SECONDS = 1.0
"""A turn that nothing disturbs takes no longer, with all its calls."""

LIMIT_SECONDS = 2 * LEASE_SECONDS + 2 * POLL_SECONDS + 2 * TURN_SECONDS
"""After the last disturbance everything has ended: a lease that was just renewed lapses, so may that of a claim whose
answer is lost; each is found with a poll, and the turn may be done again."""

MOST_TURNS_TO_LEAVE = 50
"""Of the loop; whoever needs time for it is waited for in another way."""

_MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


def _never_away() -> None:
    """The log store loses calls here, but is never away for longer than it takes a worker to notice."""


class Author:
    """A model that says a few words with pauses, new ones each time; it asks for a tool in so many `steps`."""

    provider = "the author"

    def __init__(self, loop: ShuffledLoop) -> None:
        self._draw = loop.random.random
        self._calls = count(1)
        self.pieces = 3
        self.steps = 0
        self.pause_seconds = 0.15

    async def stream(self, task_id: TaskId, prompt: Prompt) -> AsyncGenerator[Piece]:
        call = next(self._calls)
        for number in range(self.pieces):
            await asyncio.sleep(self._draw() * self.pause_seconds)
            yield TextPiece(f"{call}.{number} ")
        if sum(utterance.role == "assistant" for utterance in prompt.turn) < self.steps:
            yield ToolCallPiece("c", "think", '{"thought": ""}')
        yield CallEnded("stop", Usage(1, self.pieces))


@dataclass(frozen=True)
class Parts:
    """What the core is made of. A test that plants a bug puts another part in."""

    tasks: type[MemoryTasks] = MemoryTasks
    store: type[MemoryLogStore] = MemoryLogStore
    turns: type[TaskRunner] = TaskRunner
    steps: type[Steps] = Steps
    follower: type[Follower] = Follower
    hub: Callable[..., "asynccontextmanager[Hub]"] = hub  # type: ignore[type-arg]


PARTS = Parts()


class Serving(Process):
    """A door: it serves readers."""

    follower: Follower


class Working(Process):
    """A worker, and what stops it."""

    worker: Worker | None = None
    stop: asyncio.Event

    @property
    def is_idle(self) -> bool:
        """Whether it works on nothing, or never will again."""
        return self.loop.is_frozen(self) or self.worker is None or not self.worker._held


class Core:
    """All of it, running until it is left."""

    def __init__(self, seed: int, parts: Parts = PARTS) -> None:
        self.loop = ShuffledLoop(seed)
        self.random = self.loop.random
        self.trouble = Trouble()
        self.author = Author(self.loop)
        numbers = count(1)
        self.database = MemoryDatabase(
            self._now, self.loop.time, lambda: f"{next(numbers):08d}-0000-7000-8000-000000000000"
        )
        self.tasks = Ledger(parts.tasks(self.database), self.loop.time)
        self.desk = MemoryOperations(self.database)
        self.sessions, self.messages = MemorySessions(self.database), MemoryMessages(self.database)
        self.hints = SlowHints(self.loop)
        self.store = Annals(parts.store(self.hints), self.database)
        self.bell = SlowBell(self.loop)
        self.conversations = Conversations(self.sessions, self.messages, self.messages, self.bell)
        self.controls = Tasks(self.tasks, self.bell, self.loop.time)
        self.readers: list[Connections] = []
        self.workers: list[Working] = []
        self.doors: list[Serving] = []
        self.errors: list[object] = []
        self.limit = LIMIT_SECONDS
        self.is_forgetful = False
        """Whether the store may have lost what it had acknowledged."""
        self._pending = 0
        self._parts = parts
        self._processes: list[Process] = []
        self._wires: list[Wire] = []
        self._mains: list[asyncio.Task[None]] = []
        self._settling: list[asyncio.Task[None]] = []
        self._over = asyncio.Event()
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))

    def _now(self) -> datetime:
        return _MIDNIGHT + timedelta(seconds=self.loop.now)

    # --- who is there ---

    def _wire(self, port: object, process: Process, away: type[LogUnavailable | DatabaseUnavailable]) -> Wire:
        wire = Wire(port, process, self.trouble, away)
        self._wires.append(wire)
        return wire

    def work(self) -> Working:
        """A worker, whose clock is wrong by up to a minute."""
        process = Working(self.loop)
        process.stop = asyncio.Event()
        self.workers.append(process)
        self._processes.append(process)
        self._mains.append(self.loop.create_task(self._work(process), context=process.context))
        return process

    async def _work(self, process: Working) -> None:
        wrong = timedelta(seconds=self.random.uniform(-60, 60))
        logs = self._wire(self.store, process, LogUnavailable)
        queue = self._wire(self.tasks, process, DatabaseUnavailable)
        messages = self._wire(self.messages, process, DatabaseUnavailable)
        clock = Clock(lambda: self._now() + wrong, self.loop.time, asyncio.sleep)
        async with log_writer(logs, lambda: int((self._now() + wrong).timestamp() * 1000)) as writer:
            turns = self._parts.turns(
                writer=writer,
                logs=logs,
                queue=queue,
                desk=self._wire(self.desk, process, DatabaseUnavailable),  # type: ignore[arg-type]
                messages=messages,
                step_store=queue,
                steps=self._parts.steps(self.author, clock, self.random.random),
                tools=Toolbox([THINK]),
                clock=clock,
            )
            process.worker = Worker(
                queue, turns, self.bell, self.loop.time, _never_away, lease_seconds=LEASE_SECONDS, capacity=4
            )
            await process.worker.run(process.stop)

    def open_door(self) -> Serving:
        """A process that serves readers; it is there when this returns."""
        process, ready = Serving(self.loop), asyncio.Event()
        self.doors.append(process)
        self._processes.append(process)
        self._mains.append(self.loop.create_task(self._serve(process, ready), context=process.context))
        self.loop.run(ready.wait())
        return process

    async def _serve(self, process: Serving, ready: asyncio.Event) -> None:
        logs = self._wire(self.store, process, LogUnavailable)
        facts = SharedFacts(self._wire(self.tasks, process, DatabaseUnavailable))
        async with (
            self._parts.hub(self.hints, tick_seconds=1.0) as ear,
            log_pages(logs, self.loop.time) as pages,
            log_pages(MemoryArchive(), self.loop.time) as archived,
        ):
            process.follower = self._parts.follower(pages, archived, ear, facts, heartbeat_seconds=HEARTBEAT_SECONDS)
            ready.set()
            await self._over.wait()

    # --- what happens ---

    def post(self, session_id: SessionId | None = None) -> TaskId:
        """A message, in a session of its own unless one is named."""
        session_id = session_id or at_once(self.sessions.create(None)).id
        return self.say(session_id).task_id

    def say(self, session_id: SessionId) -> Posted:
        """A message in a session."""
        return at_once(self.conversations.post(EVERYONES, session_id, NewMessage((TextPart("Hi"),))))

    def read(self, task_id: TaskId, door: Serving | None = None) -> Connections:
        """A reader from the beginning."""
        self.disturbed_until(self.loop.now)
        reader = Connections(self, door or self.random.choice(self.doors), BEGINNING, task_id)
        self.readers.append(reader)
        return reader

    def session_of(self, task_id: TaskId) -> SessionId:
        return self.database.tasks[task_id].task.session_id

    @property
    def last_disturbed(self) -> float:
        """When somebody may have known less than there was, for the last time."""
        return self.limit - LIMIT_SECONDS

    def come_back(self, reader: Connections) -> None:
        """Cut a reader that has not all; it comes back at any door."""
        if not reader.ended:
            reader.drop()
            reader.connect(self.random.choice(self.doors))

    def break_hints(self, said: bool) -> None:
        """All connections over which hints come; `said` tells whether anybody notices at once."""
        for feed in self.hints.feeds:
            feed.interrupt(said=said)

    def lose_tail(self, task_id: TaskId) -> None:
        """The store forgets the newest batches of those that it has now; or all."""
        self.is_forgetful = True
        self.disturbed_until(self.loop.now + LOST_TAIL_PATIENCE_SECONDS + HEARTBEAT_SECONDS)
        if batches := len(self.store.batches[task_id]):
            lost = batches if self.random.random() < 0.2 else min(batches, self.random.randint(1, 2))
            self.store.lose(task_id, lost, drawn=self.random.random() < 0.5)

    def at_take_over(self, within_seconds: float, act: Callable[..., object], *arguments: object) -> None:
        """Do something at the worst time, while another has just taken a task over; if that happens at all."""
        self.tasks.at_take_over.append(partial(self._shortly, within_seconds, partial(act, *arguments)))

    def _shortly(self, within_seconds: float, act: Callable[[], object]) -> None:
        self.at(self.loop.now + self.random.uniform(0, within_seconds), act)

    def when_closed(self, task_id: TaskId, act: Callable[..., object], *arguments: object) -> None:
        """Do something as soon as the log of a task is closed."""
        self._pending += 1
        self.store.when_closed[task_id] = partial(self._act, act, *arguments)

    def at(self, seconds: float, act: Callable[..., object], *arguments: object) -> None:
        """Do something then. It may disturb: so all may take longer than it would have."""
        self._pending += 1
        self.disturbed_until(seconds)
        self.loop.call_at(seconds, self._act, act, *arguments, context=Context())

    def disturbed_until(self, seconds: float) -> None:
        """Nobody can know better before."""
        self.limit = max(self.limit, seconds + LIMIT_SECONDS)

    def _act(self, act: Callable[..., object], *arguments: object) -> None:
        if self._over.is_set():
            return
        self._pending -= 1
        self.disturbed_until(self.loop.now)
        act(*arguments)

    def be_troubled(self, requests: float, answers: float, until: float, verbs: Collection[str] = ()) -> None:
        """From here on calls are lost, of these verbs or of all, and no more from then on."""
        self.trouble.requests, self.trouble.answers, self.trouble.verbs = requests, answers, verbs
        self.at(until, self._calm)

    def _calm(self) -> None:
        self.trouble.requests = self.trouble.answers = 0.0

    # --- how it ends ---

    def settle(self) -> None:
        """Until nothing is left to do; by `limit` at the latest."""
        self._settling.append(self.loop.create_task(self._settle()))
        self.loop.run_until_complete(self._settling[-1])
        check(self)

    async def _settle(self) -> None:
        while not self._is_settled():
            assert self.loop.now < self.limit + LOOK_SECONDS, (
                f"not at its end after {self.loop.now:.1f} s: {self._state()}"
            )
            for reader in self.readers:
                reader.check_alive()
            await asyncio.sleep(LOOK_SECONDS)

    def _is_settled(self) -> bool:
        return (
            not self._pending
            and not self.database.unclosed
            and all(reader.ended or reader.vanished for reader in self.readers)
            and all(worker.is_idle for worker in self.workers)
        )

    def _state(self) -> list[object]:
        rows = [(row.task.status, row.epoch, row.log_closed) for row in self.database.tasks.values()]
        return [*rows, [(reader.position, reader.ended) for reader in self.readers]]

    def leave(self) -> None:
        """Stop everything; nothing may be left over."""
        self._over.set()
        for wire in self._wires:
            wire.is_cut = True
        for process in self._processes:
            self.loop.thaw(process)
        for reader in self.readers:
            reader.drop()
        for leaving in (*self._mains, *self._settling):
            leaving.cancel()
        left = self.loop.run(self._until_all_left())
        self.loop.close()
        if left:
            raise RuntimeError(f"somebody does not leave: {left}")

    async def _until_all_left(self) -> set["asyncio.Task[object]"]:
        """Answers who does not leave."""
        for _ in range(MOST_TURNS_TO_LEAVE):
            if all(main.done() for main in self._mains):
                break
            await asyncio.sleep(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=60)
        await asyncio.get_running_loop().shutdown_asyncgens()
        return {other for other in others if not other.done()}
