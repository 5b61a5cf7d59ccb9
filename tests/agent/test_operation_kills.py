"""Whoever works on an operation dies: in front of and behind every call that it makes, enumerated.

Afterwards there is one outcome, its service was told once at most, and the user has heard of it once. A background
command was run once at most, and runs no more.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from service.adapters.memory_commands import MemoryCommands
from service.adapters.memory_doorbell import MemoryDoorbell
from service.agent.job_tools import KILLED, start_job
from service.agent.jobs import Jobs
from service.agent.step import Clock
from service.agent.tools import THINK, Toolbox
from service.model import events as e
from service.model.caller import EVERYONES
from service.model.errors import DatabaseUnavailable
from service.model.failures import message_for
from service.model.operation import (
    Accepted,
    Cancelled,
    Completion,
    Delivery,
    Duplicate,
    Failed,
    Operation,
    Outcome,
    Succeeded,
)
from service.model.remote import Answered, RemoteAnswer, RemoteCall, RemoteTool, Taken
from service.model.task import EVERY_TASK, Claim
from service.operations.operations import Operations
from service.operations.patience import Patience
from service.operations.remote import RemoteOperations
from tests.agent.faults import Death, Watched
from tests.agent.house import MemoryHouse, dies

LAPSED = 0.0
BY = Delivery("amqp", "render")
DONE = Succeeded({"frames": 3})
RENDER = RemoteTool("render", "Renders.", {"type": "object"}, "http://127.0.0.1:1/", "whsec_AAAA")


@dataclass
class Service:
    """Takes what it is asked, or answers at once."""

    answer: RemoteAnswer
    calls: list[RemoteCall] = field(default_factory=list)

    async def call(self, tool: RemoteTool, call: RemoteCall) -> RemoteAnswer:
        self.calls.append(call)
        return self.answer


def equip(house: MemoryHouse, service: Service, tool: RemoteTool, death: Death | None = None) -> None:
    """A remote tool whose ports are watched, where somebody is to die."""
    desk, inbox, services = house.desk, house.inbox, service
    if death is not None:
        desk, inbox, services = (Watched(port, death) for port in (desk, inbox, services))  # type: ignore[assignment]
    render = RemoteOperations(
        tool,
        desk,
        inbox,
        services,
        Patience(house.sleep),
        house.sleep,
        why_not=lambda _: None,
        callback_url=lambda _: None,
    )
    house.tools = Toolbox([THINK], [render])


async def run_all(house: MemoryHouse) -> None:
    while claims := await house.queue.claim(10, 60):
        for claim in claims:
            await house.run(claim)


async def first(house: MemoryHouse, kind: str) -> Claim:
    """The one task of this kind that is due."""
    (claim,) = [each for each in await house.queue.claim(10, LAPSED) if each.task.kind == kind]
    return claim


async def assert_all_well(house: MemoryHouse, service: Service, *, at_once: bool) -> None:
    """Everything has ended, once; what is still pending is completed now, twice."""
    found = await house.all_operations()
    assert len(found) == 1
    (operation,) = found
    if operation.status == "pending":
        assert isinstance(await house.inbox.complete(Completion(operation.id, DONE, BY)), Accepted)
    await run_all(house)
    (operation,) = await house.all_operations()
    assert operation.outcome == DONE
    assert isinstance(await house.inbox.complete(Completion(operation.id, DONE, BY)), Duplicate)
    await run_all(house)
    assert {call.operation_id for call in service.calls} <= {operation.id}
    assert len(service.calls) <= 1
    tasks = await house.tasks.newest(EVERYONES, EVERY_TASK, 10, None)
    assert [(task.kind, task.status) for task in tasks] == [("operation", "succeeded"), ("turn", "succeeded")]
    await house.assert_ended_well(operation.turn_id)
    for task in tasks:
        log = await house.log(task.id)
        assert sum(isinstance(chunk, e.Finish) for chunk in log) == 1
    log = await house.log(operation.task_id)
    assert sum(isinstance(chunk, e.ToolInputAvailable) and chunk.tool_name == "render" for chunk in log) == 1
    outputs = [chunk.output for chunk in log if isinstance(chunk, e.ToolOutputAvailable)]
    assert outputs == [{"frames": 3}]
    statuses = [chunk.data.status for chunk in log if isinstance(chunk, e.DataOperation)]
    assert statuses == ["pending", "succeeded"]
    messages = (await house.session(operation.turn_id)).messages
    assert [message.role for message in messages] == ["user", "assistant"] + ["assistant"] * operation.has_follow_up
    if operation.has_follow_up:
        await house.assert_ended_well(operation.task_id)
    else:
        assert at_once


@pytest.mark.parametrize("is_behind", [False, True], ids=["in front", "behind"])
@pytest.mark.parametrize("answer", [Taken(), Answered({"frames": 3})], ids=["taken", "answered"])
async def test_the_holder_of_the_turn(answer: RemoteAnswer, is_behind: bool) -> None:
    """O1, O3, O4 and S2 among them; and the answer at once, which is an outcome first."""
    seen, told = set[str](), set[int]()
    for at in range(100):
        house, service = MemoryHouse(), Service(answer)
        death = Death(at=at, is_behind=is_behind)
        equip(house, service, RENDER, death)
        await house.post('/tool render {"scene": 1}\n/say Asked.')
        if not await dies(house, await house.claim(LAPSED), death, None):
            break
        seen.add(death.calls[at])
        equip(house, service, RENDER)
        await run_all(house)
        told.add(len(service.calls))
        await assert_all_well(house, service, at_once=isinstance(answer, Answered))
    assert {"begin", "call", "open", "append", "promote", "end", "finish", "close"} <= seen
    assert ("complete" in seen) is isinstance(answer, Answered)
    assert told == {0, 1}  # behind O1 a service that does not know repeats is not told any more: the deadline decides


@pytest.mark.parametrize("is_behind", [False, True], ids=["in front", "behind"])
@pytest.mark.parametrize("ends", [False, True], ids=["pending", "answered"])
async def test_the_holder_of_the_log_of_a_pending_operation(ends: bool, is_behind: bool) -> None:
    """O2, and the end of an operation that was answered at once."""
    seen = set[str]()
    for at in range(100):
        house, service = MemoryHouse(), Service(Answered({"frames": 3}) if ends else Taken())
        equip(house, service, RENDER)
        await house.post('/tool render {"scene": 1}\n/say Asked.')
        await house.run(await house.claim())
        death = Death(at=at, is_behind=is_behind)
        if not await dies(house, await first(house, "operation"), death, None):
            break
        seen.add(death.calls[at])
        await run_all(house)
        await assert_all_well(house, service, at_once=ends)
    ending = {"end", "finish", "close"} if ends else {"told"}
    assert seen == {"open", "append", "of_task"} | ending


@pytest.mark.parametrize("is_behind", [False, True], ids=["in front", "behind"])
@pytest.mark.parametrize("is_told", [False, True], ids=["first to write", "told before"])
async def test_the_holder_of_the_follow_up(is_told: bool, is_behind: bool) -> None:
    """O7 and O8: from its claim to the end of its log."""
    seen = set[str]()
    for at in range(100):
        house, service = MemoryHouse(), Service(Taken())
        equip(house, service, RENDER)
        await house.post('/tool render {"scene": 1}\n/say Asked.')
        await house.run(await house.claim())
        if is_told:
            await run_all(house)
        (operation,) = await house.all_operations()
        await house.inbox.complete(Completion(operation.id, DONE, BY))
        death = Death(at=at, is_behind=is_behind)
        if not await dies(house, await first(house, "operation"), death, None):
            break
        seen.add(death.calls[at])
        await run_all(house)
        await assert_all_well(house, service, at_once=False)
    assert {"open", "of_task", "append", "end", "finish", "close"} <= seen


@pytest.mark.parametrize("is_behind", [False, True], ids=["in front", "behind"])
async def test_the_holder_of_the_follow_up_of_a_yes_that_calls_a_service(is_behind: bool) -> None:
    """O7, and O1, O3 and O4 in it: the service is called once at most, and what comes of it is told."""
    seen, told, allowed = set[str](), set[int](), replace(RENDER, needs_approval=True)
    for at in range(100):
        house, service = MemoryHouse(), Service(Taken())
        equip(house, service, allowed)
        await house.post('/tool render {"scene": 1}\n/say Asked.')
        await run_all(house)
        (asked,) = await house.all_operations()
        yes = Completion(asked.id, Succeeded({"approved": True}), BY, is_answer=True)
        assert isinstance(await house.inbox.complete(yes), Accepted)
        death = Death(at=at, is_behind=is_behind)
        equip(house, service, allowed, death)
        if not await dies(house, await first(house, "operation"), death, None):
            break
        seen.add(death.calls[at])
        equip(house, service, allowed)
        await run_all(house)
        told.add(len(service.calls))
        begun, _ = await house.all_operations()
        assert isinstance(await house.inbox.complete(Completion(begun.id, DONE, BY)), Accepted)
        await run_all(house)
        started = {"status": "started", "operation_id": begun.id, "task_id": begun.task_id}
        for operation, output in ((asked, started), (begun, {"frames": 3})):
            await house.assert_ended_well(operation.task_id)
            log = await house.log(operation.task_id)
            assert [chunk.output for chunk in log if isinstance(chunk, e.ToolOutputAvailable)] == [output]
    assert {"begin", "call", "open", "append", "of_task", "end", "finish", "close"} <= seen
    assert told == {0, 1}


@pytest.mark.parametrize("is_behind", [False, True], ids=["in front", "behind"])
async def test_whoever_takes_a_completion(is_behind: bool) -> None:
    """O5 and O6: the door's repeat is a duplicate, or the first."""
    house, service = MemoryHouse(), Service(Taken())
    equip(house, service, RENDER)
    await house.post('/tool render {"scene": 1}\n/say Asked.')
    await run_all(house)
    (operation,) = await house.all_operations()
    completion = Completion(operation.id, DONE, replace(BY, id="m1"))
    if is_behind:  # it was committed, and its sender was not told
        await house.inbox.complete(completion)
    assert isinstance(await house.inbox.complete(completion), Duplicate if is_behind else Accepted)
    await assert_all_well(house, service, at_once=False)


# --- background jobs --------------------------------------------------------------------------------------------------

BUILT = Succeeded({"exit_code": 0, "output": "up\ndone\n"})
DIED = Failed("died", message_for("died"))


@dataclass
class DeathOfAWorker(Death):
    """A holder that is stopped says how its job stands; one that is dead says nothing, and waits for nobody."""

    async def before(self, verb: str) -> None:
        if self.died.is_set() and verb in ("of_task", "complete"):
            raise DatabaseUnavailable
        await super().before(verb)


class Workshop(MemoryHouse):
    """A house with one background job, which prints something, and ends once that was told; or `then` something
    happens, and it goes on for good.
    """

    def __init__(self, then: "Callable[[Workshop], Awaitable[object]] | None" = None) -> None:
        super().__init__()
        self.then = then
        self.commands = MemoryCommands(sleep=lambda _: self._until_told())
        self.employ()

    def employ(self, death: Death | None = None) -> None:
        """A worker, whose ports are watched where it is to die."""
        ports = self.commands, self.desk, self.inbox
        commands, desk, inbox = ports if death is None else (Watched(port, death) for port in ports)  # type: ignore[assignment]
        clock = Clock(lambda: datetime.now(UTC), asyncio.get_running_loop().time, self.sleep)
        patiently = Patience(self.sleep)
        self.jobs = Jobs(commands, desk, Operations(inbox, self.operations, MemoryDoorbell()), patiently, clock)
        self.tools = Toolbox([THINK], [start_job(self.desk, patiently)])

    async def dies(self, death: Death) -> bool:
        """The job's holder dies at one of its calls, and its command with it; False where it came to its end before."""
        self.employ(death)
        has_died = await dies(self, await self.claim(LAPSED), death, None)
        if has_died:
            await asyncio.gather(*(command.kill() for command in self.commands.running.values()))
        self.employ()
        return has_died

    async def begin(self) -> Operation:
        """A turn asks for it, and ends."""
        await self.post('/tool start_job {"command": "echo up; sleep 1; echo done"}\n/say Asked for.')
        await self.run(await self.claim())
        return await self.job()

    async def job(self) -> Operation:
        (job,) = await self.all_operations()
        return job

    async def kill(self) -> None:
        """Its user does not want it any more."""
        killed = Completion((await self.job()).id, Cancelled(KILLED), BY, follow_up=False)
        assert isinstance(await self.inbox.complete(killed), Accepted | Duplicate)

    async def _until_told(self) -> None:
        while (await self.job()).progress is None:  # noqa: ASYNC110 - its holder goes on meanwhile
            await asyncio.sleep(0)
        if self.then is not None:
            await self.then(self)
            await asyncio.Event().wait()

    async def assert_ended(self, outcome: Outcome) -> None:
        """It has this outcome, and a follow-up, unless it was killed on request; all logs are whole."""
        await run_all(self)
        job = await self.job()
        is_followed_up = not isinstance(outcome, Cancelled)
        assert (job.outcome, job.has_follow_up) == (outcome, is_followed_up)
        log = await self.log(job.task_id)
        assert sum(isinstance(chunk, e.Finish) for chunk in log) == 1
        *before, last = [chunk.data.status for chunk in log if isinstance(chunk, e.DataOperation)]
        assert (set(before), last) == ({"pending"}, job.status)
        messages = (await self.session(job.turn_id)).messages
        assert [message.role for message in messages] == ["user", "assistant"] + ["assistant"] * is_followed_up
        assert [message.task_id for message in messages[1:]] == [job.turn_id, job.task_id][: 1 + is_followed_up]
        if is_followed_up:
            await self.assert_ended_well(job.task_id)
        assert self.commands.running == {}
        assert len(self.commands.started) <= 1


@pytest.mark.parametrize("is_behind", [False, True], ids=["in front", "behind"])
async def test_the_holder_of_a_background_job(is_behind: bool) -> None:
    """What nobody has begun is run by the next; what was begun has died, unless its end is stored."""
    seen, came = set[str](), set[tuple[str, bool, int]]()
    for at in range(100):
        house, death = Workshop(), DeathOfAWorker(at=at, is_behind=is_behind)
        await house.begin()
        has_died = await house.dies(death)
        job = await house.job()
        outcome = job.outcome or (BUILT if job.begun_by is None else DIED)
        came.add((job.status, job.begun_by is not None, len(house.commands.started)))
        await house.assert_ended(outcome)
        if not has_died:
            break
        seen.add(death.calls[at])
    else:
        pytest.fail("it never ends")
    assert {"open", "append", "of_task", "begin_job", "start", "report", "complete"} <= seen
    assert came == {("pending", False, 0), ("pending", True, 0), ("pending", True, 1), ("succeeded", True, 1)}


@pytest.mark.parametrize("is_behind", [False, True], ids=["in front", "behind"])
async def test_the_holder_of_a_background_job_that_another_has_begun(is_behind: bool) -> None:
    """It says that the job has died, or the next one does."""
    seen = set[str]()
    for at in range(100):
        house, death = Workshop(), DeathOfAWorker(at=at, is_behind=is_behind)
        await house.begin()
        await house.desk.begin_job(await house.claim(LAPSED))
        has_died = await house.dies(death)
        await house.assert_ended(DIED)
        assert house.commands.started == []
        if not has_died:
            break
        seen.add(death.calls[at])
    else:
        pytest.fail("it never ends")
    assert {"open", "of_task", "append", "complete"} <= seen


@pytest.mark.parametrize("is_behind", [False, True], ids=["in front", "behind"])
async def test_the_holder_of_a_background_job_that_is_killed_on_request(is_behind: bool) -> None:
    """While it runs, or as soon as its holder has died; nobody goes on with it."""
    seen = set[str]()
    for at in range(100):
        house, death = Workshop(Workshop.kill), DeathOfAWorker(at=at, is_behind=is_behind)
        await house.begin()
        has_died = await house.dies(death)
        await house.kill()
        await house.assert_ended(Cancelled(KILLED))
        if not has_died:
            break
        seen.add(death.calls[at])
    else:
        pytest.fail("it never ends")
    assert {"open", "append", "of_task", "begin_job", "start", "report"} <= seen
    assert "complete" not in seen


async def test_the_holder_of_a_background_job_whose_lease_lapses_while_that_runs() -> None:
    """Another one says that the job has died; the first one finds that out, and ends the command."""

    async def next_holder(house: Workshop) -> None:
        house.employ()
        await house.run(await house.claim(LAPSED))

    house = Workshop(next_holder)
    await house.begin()
    async with asyncio.timeout(5):
        await house.run(await house.claim(LAPSED))
    assert len(house.commands.started) == 1
    await house.assert_ended(DIED)
