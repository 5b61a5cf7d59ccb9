"""A house for turns: a log store in memory, a real database, and what can be read from both afterwards."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from service.adapters.demo_model import DemoModel
from service.adapters.memory_database import MemoryDatabase
from service.adapters.memory_log import MemoryHints, MemoryLogStore
from service.adapters.memory_messages import MemoryMessages
from service.adapters.memory_operations import MemoryOperations
from service.adapters.memory_sessions import MemorySessions
from service.adapters.memory_tasks import MemoryTasks
from service.adapters.postgres import Database
from service.adapters.postgres_messages import PostgresMessages
from service.adapters.postgres_operations import PostgresOperations
from service.adapters.postgres_sessions import PostgresSessions
from service.adapters.postgres_tasks import PostgresTasks
from service.agent.cancellation import Cancellation
from service.agent.jobs import Jobs
from service.agent.ports import Model
from service.agent.runner import TaskRunner
from service.agent.step import Clock, Steps
from service.agent.tools import THINK, Toolbox
from service.model import events as e
from service.model.caller import EVERYONES
from service.model.check import LogCheck
from service.model.encoding import decode
from service.model.failures import ModelCallFailed
from service.model.fold import LogFold
from service.model.generation import Piece, Prompt, TextPiece, Utterance
from service.model.ids import SessionId, TaskId
from service.model.operation import EVERY_OPERATION, Operation
from service.model.position import BEGINNING, Position
from service.model.session import NewMessage, Session
from service.model.task import Claim, Task
from service.model.verdict import Finding
from service.operations.ports import OperationDesk, OperationInbox, OperationStore
from service.registry.ports import LogStore, TaskDirectory
from service.registry.writer import log_writer
from service.sessions.ports import MessageStore, SessionStore, StepStore, TaskQueue, TaskStore
from tests.agent.faults import Death, Watched

LEASE = 60.0
LAPSED = 0.0
"""A lease that has ended as soon as it is given."""

Retake = Callable[[Claim], Awaitable[Claim]]


class Script:
    """A model that says these pieces; an event is waited for, a callable is called, an error is raised."""

    provider = "the script"

    def __init__(self, *steps: Piece | asyncio.Event | Callable[[], object] | Exception) -> None:
        self._steps = steps
        self.prompts: list[Prompt] = []
        self.began = asyncio.Event()

    @property
    def calls(self) -> list[Sequence[Utterance]]:
        """The conversation of each call."""
        return [prompt.conversation for prompt in self.prompts]

    async def stream(self, task_id: TaskId, prompt: Prompt) -> AsyncGenerator[Piece]:
        self.prompts.append(prompt)
        self.began.set()
        for step in self._steps:
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, Exception):
                raise step
            elif callable(step):
                step()
            else:
                yield step


class ForGood:
    """A model whose failures are for good: a call of it is never tried again."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.provider = model.provider

    async def stream(self, task_id: TaskId, prompt: Prompt) -> AsyncGenerator[Piece]:
        try:
            async with aclosing(self._model.stream(task_id, prompt)) as pieces:
                async for piece in pieces:
                    yield piece
        except ModelCallFailed as failure:
            raise ModelCallFailed(failure.error_type, is_retryable=False) from failure


@dataclass
class House:
    """All stores, and the turns that run over them."""

    database: Database
    logs: LogStore = field(default_factory=lambda: MemoryLogStore(MemoryHints()))

    def __post_init__(self) -> None:
        self.sessions: SessionStore = PostgresSessions(self.database)
        self.messages: MessageStore = PostgresMessages(self.database)
        self.queue: TaskQueue = PostgresTasks(self.database)
        self.step_store: StepStore = PostgresTasks(self.database)
        operations = PostgresOperations(self.database)
        self.desk: OperationDesk = operations
        self.inbox: OperationInbox = operations
        self.operations: OperationStore = operations
        self.tasks: TaskStore = PostgresTasks(self.database)
        self.directory: TaskDirectory = PostgresTasks(self.database)
        self.tools = Toolbox([THINK])
        self.jobs: Jobs | None = None
        self.waits: list[float] = []
        """For how long turns wanted to wait; none did."""
        self.sleep: Callable[[float], Awaitable[None]] = self._no_time

    async def post(self, text: str, session_id: SessionId | None = None) -> TaskId:
        """A message, in a session of its own unless one is named."""
        session_id = session_id or (await self.sessions.create(None)).id
        return (await self.messages.post(EVERYONES, session_id, NewMessage((e.TextPart(text),)))).task_id

    async def claim(self, lease_seconds: float = LEASE) -> Claim:
        """The one task that is due."""
        (claim,) = await self.queue.claim(10, lease_seconds)
        return claim

    @asynccontextmanager
    async def turns(
        self,
        model: Model | None = None,
        *,
        logs: LogStore | None = None,
        queue: TaskQueue | None = None,
        step_store: StepStore | None = None,
        desk: OperationDesk | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> AsyncIterator[TaskRunner]:
        """A worker's turns; ports may be handed in that behave otherwise than the house's own."""
        logs = logs or self.logs
        async with log_writer(logs, clock_ms) as writer:
            clock = Clock(lambda: datetime.now(UTC), time.monotonic, self.sleep)
            yield TaskRunner(
                writer=writer,
                logs=logs,
                queue=queue or self.queue,
                desk=desk or self.desk,
                messages=self.messages,
                step_store=step_store or self.step_store,
                steps=Steps(model or DemoModel(), clock, lambda: 0.5),
                tools=self.tools,
                clock=clock,
                jobs=self.jobs,
            )

    async def run(self, claim: Claim, model: Model | None = None, **ports: Any) -> None:
        """One turn by a worker of its own, from its claim on."""
        async with self.turns(model, **ports) as turns:
            await turns.run(claim, self.retake, Cancellation())

    async def _no_time(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)

    async def retake(self, claim: Claim) -> Claim:
        return await self.queue.retake(claim, LEASE)

    async def log(self, task_id: TaskId) -> list[e.Chunk | e.Unknown]:
        """The whole log, its numbers checked: dense from 1 or, after a loss, from wherever it begins."""
        chunks: list[e.Chunk | e.Unknown] = []
        after, n = BEGINNING, None
        while (page := await self.logs.read(task_id, after, 1000)).events:
            for position, data in page.events:
                after = Position.parse(position.decode())
                assert n is None or after.n == n + 1
                n = after.n
                chunks.append(decode(data))
        return chunks

    async def task(self, task_id: TaskId) -> Task:
        task = await self.tasks.read(EVERYONES, task_id)
        assert task is not None
        return task

    async def all_operations(self) -> list[Operation]:
        """Whole, the newest first."""
        listed = await self.operations.newest(EVERYONES, EVERY_OPERATION, 100, None)
        return [each for one in listed if (each := await self.operations.read(EVERYONES, one.id)) is not None]

    async def session(self, task_id: TaskId) -> Session:
        """The session with all its messages, however many pages they take."""
        session_id = (await self.task(task_id)).session_id
        session = await self.sessions.read(EVERYONES, session_id)
        assert session is not None
        while session.earlier:
            page = await self.sessions.read(EVERYONES, session_id, session.messages[0].id)
            assert page is not None
            session = replace(session, messages=page.messages + session.messages, earlier=page.earlier)
        return session

    async def conversation(self, task_id: TaskId) -> list[str]:
        """The session's messages, as `user: Hi`; reasoning in brackets."""
        lines = []
        for message in (await self.session(task_id)).messages:
            spoken = [f"[{p['text']}]" if p["type"] == "reasoning" else p.get("text", "") for p in message.parts]
            lines.append(f"{message.role}: {''.join(spoken)}")
        return lines

    async def positions(self, task_id: TaskId) -> list[Position]:
        """Where each event of the log stands."""
        page = await self.logs.read(task_id, BEGINNING, 1000)
        return [Position.stored(position) for position, _ in page.events]

    async def told(self, task_id: TaskId) -> list[str]:
        """The log as a person reads it."""
        return told(await self.log(task_id))

    async def assert_ended_well(self, task_id: TaskId) -> LogFold:
        """The log folds, has one terminal event, and says what the database says. Answers the fold."""
        chunks = await self.log(task_id)
        fold = LogFold()
        for chunk in chunks:
            fold.apply(chunk)
        task, session = await self.task(task_id), await self.session(task_id)
        assert sum(isinstance(chunk, e.Finish) for chunk in chunks) == 1
        assert isinstance(chunks[-1], e.Finish)
        head = await self.logs.head(task_id)
        assert head.closed
        facts = await self.directory.facts(task_id)
        assert facts is not None
        assert facts.log_closed
        assert not session.entry.busy
        assert fold.finish is not None
        finish = fold.finish.message_metadata
        assert (fold.task_id, fold.message_id, fold.status) == (task.id, task.answer_id, task.status)
        assert fold.usage == finish.usage == task.usage
        assert finish.task_id == task_id
        assert (finish.started_at, finish.finished_at) == (_time(task.started_at), _time(task.finished_at))
        answers = [message for message in session.messages if message.id == task.answer_id]
        if answers:
            (answer,) = answers
            assert list(answer.parts) == fold.message_parts()
        else:
            assert fold.message_parts() in ([], [{"type": "step-start"}])
        if finish.truncated is None:
            assert finish.output == fold.output()
        await self._assert_proven(task)
        return fold

    async def _assert_proven(self, task: Task) -> None:
        """The log's proof finds nothing, but that its beginning is lost where it is."""
        check, events = LogCheck(task.id), (await self.logs.read(task.id, BEGINNING, 100_000)).events
        for event in events:
            check.take(event)
        check.compare(task)
        lost = [Finding("missing_events", check.first, each.detail) for each in check.found.listed[:1]]
        assert check.found.listed == (lost if check.first and check.first.n > 1 else [])


class MemoryHouse(House):
    """All of it in memory: for what is tried many times."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        super().__post_init__()
        rows = MemoryDatabase()
        tasks = MemoryTasks(rows)
        self.sessions, self.messages = MemorySessions(rows), MemoryMessages(rows)
        self.queue = self.step_store = self.tasks = self.directory = tasks
        self.desk = self.inbox = self.operations = MemoryOperations(rows)


async def half_an_answer(house: House) -> TaskId:
    """A task whose first holder said `Half` and is gone."""
    task_id = await house.post("Hi")
    claim = await house.claim(LAPSED)
    hold = asyncio.Event()
    model = Script(TextPiece("Half"), hold)
    async with house.turns(model) as turns, asyncio.TaskGroup() as tasks:
        work = tasks.create_task(turns.run(claim, house.retake, Cancellation()))
        await until(lambda: house.told(task_id), lambda lines: lines[-1:] == ["text-delta p1: Half"])
        work.cancel()
    return task_id


async def dies(house: House, claim: Claim, death: Death, model: Model | None) -> bool:
    """Run a turn whose process dies at one of its calls; False where it came to its end before that."""
    ports = {name: Watched(getattr(house, name), death) for name in ("logs", "queue", "step_store", "desk")}
    with suppress(asyncio.CancelledError):
        async with house.turns(model, **ports) as turns, asyncio.TaskGroup() as tasks:
            work = tasks.create_task(turns.run(claim, house.retake, Cancellation()))
            died = tasks.create_task(death.died.wait())
            await asyncio.wait([work, died], return_when=asyncio.FIRST_COMPLETED)
            work.cancel()
            died.cancel()
    return death.died.is_set()


async def die_at(house: House, verb: str, *, is_behind: bool, model: Model | None = None) -> None:
    class DeathAt(Death):
        async def before(self, name: str) -> None:
            self.at = len(self.calls) if name == verb and not self.died.is_set() else self.at
            await super().before(name)

    death = DeathAt(at=-1, is_behind=is_behind)
    assert await dies(house, await house.claim(LAPSED), death, model)


async def until(look: Callable[[], Any], holds: Callable[[Any], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds(await look()):  # noqa: ASYNC110 - the turn goes on meanwhile; no time has to pass
            await asyncio.sleep(0)


def _time(moment: datetime | None) -> str:
    assert moment is not None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def told(chunks: Sequence[e.Chunk | e.Unknown]) -> list[str]:  # noqa: C901 - one arm a chunk
    """A line a chunk; neighbouring deltas of one part are one line, however they were stored."""
    lines: list[str] = []
    for chunk in chunks:
        match chunk:
            case e.TextDelta(id=part, delta=text) | e.ReasoningDelta(id=part, delta=text):
                prefix = f"{chunk.type} {part}: "
                if lines and lines[-1].startswith(prefix):
                    lines[-1] += text
                else:
                    lines.append(prefix + text)
            case e.TextStart() | e.TextEnd() | e.ReasoningStart() | e.ReasoningEnd():
                lines.append(f"{chunk.type} {chunk.id}")
            case e.DataInput(data=data):
                lines.append(f"data-input: {' | '.join(getattr(part, 'text', '?') for part in data.parts)}")
            case e.DataAttempt(data=data):
                lines.append(f"data-attempt {data.epoch}")
            case e.MessageMetadata(message_metadata=e.CallMetadata() as call):
                lines.append(f"call-ended {call.finish_reason} {call.usage.input_tokens}+{call.usage.output_tokens}")
            case e.MessageMetadata(message_metadata=e.FailureMetadata() as failure):
                lines.append(f"task {failure.status} {failure.error_type}")
            case e.DataRetry(data=data):
                lines.append(f"data-retry {data.attempt} {data.error_type}")
            case e.ToolInputStart(tool_call_id=call, tool_name=name):
                lines.append(f"{chunk.type} {call} {name}")
            case e.ToolInputDelta(tool_call_id=call, input_text_delta=text):
                lines.append(f"{chunk.type} {call}: {text}")
            case e.ToolInputAvailable(tool_call_id=call, tool_name=name, input=value):
                lines.append(f"{chunk.type} {call} {name}: {value}")
            case e.ToolInputError() | e.ToolOutputError():
                lines.append(f"{chunk.type} {chunk.tool_call_id}: {chunk.error_text}")
            case e.ToolOutputAvailable(tool_call_id=call, output=value):
                lines.append(f"{chunk.type} {call}: {value}")
            case e.SteeringMessage(parts=parts):
                lines.append(f"steering-message: {' | '.join(getattr(part, 'text', '?') for part in parts)}")
            case e.Abort(reason=reason):
                lines.append(f"abort {reason}")
            case e.DataBounceBack(data=data):
                lines.append(f"data-bounce-back {data.error_type}: {data.content}")
            case e.DataAuthenticationRequired(data=data):
                lines.append(f"data-authentication-required {data.provider}")
            case e.Error(error_text=text):
                lines.append(f"error {text}")
            case e.Finish(finish_reason=reason, message_metadata=end):
                lines.append(f"finish {reason}, {end.status}: {end.output}")
            case _:
                lines.append(chunk.type)
    return lines
