"""Background jobs: whatever comes of one, its command is gone, and the agent goes on, unless its user killed it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from service.adapters.demo_model import DemoModel
from service.adapters.memory_commands import MemoryCommands
from service.adapters.memory_doorbell import MemoryDoorbell
from service.agent.cancellation import Cancellation
from service.agent.job_tools import KILLED, SessionJobs, start_job
from service.agent.jobs import Jobs
from service.agent.step import Clock
from service.agent.tools import THINK, Toolbox
from service.model import events as e
from service.model.caller import EVERYONES
from service.model.errors import DatabaseUnavailable
from service.model.generation import CallEnded, TextPiece
from service.model.ids import SessionId, TaskId
from service.model.log import Lost
from service.model.operation import (
    Cancelled,
    Completion,
    Delivery,
    Failed,
    NewOperation,
    Operation,
    OperationFilter,
    Outcome,
    Progress,
    Succeeded,
)
from service.model.position import Position
from service.model.session import NewMessage, SessionSettings
from service.model.task import CancelRequested, Claim
from service.operations.operations import Operations
from service.operations.patience import Patience
from tests.agent.faults import Fault, Once, Watched
from tests.agent.house import LAPSED, House, MemoryHouse, Script, until

OTHERS = Delivery("http", "somebody")
DIED = Failed("died", "The background job was lost with the machine that ran it. Please try again.")
LONG = "echo up; sleep 1; echo done"


@dataclass
class Shop:
    """A house whose agents have background jobs, of which `sleep` lasts until `go_on`."""

    house: House
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: int = 16

    def __post_init__(self) -> None:
        self.commands = MemoryCommands(sleep=lambda _: self.go_on.wait())
        self.bell = MemoryDoorbell()
        house = self.house
        patiently = Patience(house.sleep)
        self.operations = Operations(house.inbox, house.operations, self.bell)
        house.tools = Toolbox(
            [THINK],
            [start_job(house.desk, patiently)],
            [lambda session_id: SessionJobs(self.operations, self.bell, session_id).tool],
        )
        self.jobs = self.worker()
        house.jobs = self.jobs

    def worker(self, *, inbox: Any = None, has_commands: bool = True) -> Jobs:
        """Another worker's; ports may be handed in that behave otherwise."""
        house, commands = self.house, self.commands if has_commands else None
        operations = Operations(inbox or house.inbox, house.operations, self.bell)
        clock = Clock(lambda: datetime.now(UTC), asyncio.get_running_loop().time, house.sleep)
        return Jobs(commands, house.desk, operations, Patience(house.sleep), clock, at_once=self.at_once)

    async def asked(
        self, command: str, deadline_seconds: float = 3600, session_id: SessionId | None = None
    ) -> Operation:
        """A turn has begun a job, and has ended; nobody runs it yet."""
        wanted = f'{{"command": "{command}", "deadline_seconds": {deadline_seconds}}}'
        await self.house.post(f"/tool start_job {wanted}\n/say Asked for.", session_id)
        (claim,) = [each for each in await self.house.queue.claim(10, LAPSED) if each.task.kind == "turn"]
        await self.house.run(claim)
        (operation, *_) = await self.all()
        return operation

    async def all(self) -> list[Operation]:
        return [*await self.operations.newest(EVERYONES, OperationFilter(executor="job"), 100)]

    async def now(self, operation: Operation) -> Operation:
        return await self.operations.read(EVERYONES, operation.id)

    async def due(self, lease_seconds: float = 60) -> list[Claim]:
        """Jobs and logs that wait for a worker."""
        return [each for each in await self.house.queue.claim(10, lease_seconds) if each.task.status == "waiting"]

    async def run_all(self, model: Any = None) -> None:
        """Everything that is due, one after the other."""
        model = model or DemoModel()
        while claims := await self.house.queue.claim(10, 60):
            for claim in claims:
                await self.house.run(claim, model)

    @asynccontextmanager
    async def running(
        self, operation: Operation, lease_seconds: float = 60, cancellation: Cancellation | None = None, **ports: Any
    ) -> AsyncIterator[asyncio.Task[bool]]:
        """A worker runs this job, which has printed something; it is over, or stopped, at the end."""
        (claim,) = await self.due(lease_seconds)
        assert claim.task.id == operation.task_id
        async with self.house.turns(**ports) as turns:
            work = asyncio.create_task(turns.run(claim, self.house.retake, cancellation or Cancellation()))
            try:
                await until(partial(self.now, operation), lambda job: job.progress == {"output": "up\n"})
                yield work
                async with asyncio.timeout(5):
                    await asyncio.wait([work])
            finally:
                work.cancel()
                await asyncio.wait([work])
        assert self.commands.running == {}

    async def assert_followed_up(self, operation: Operation, outcome: Outcome) -> None:
        """The operation has this outcome, and the agent has told its session."""
        known = await self.now(operation)
        assert known.outcome == outcome
        assert known.has_follow_up
        await self.run_all()
        log = await self.house.told(operation.task_id)
        assert log[-1].startswith("finish stop, succeeded: I have been told how it ended. ")
        fold = await self.house.assert_ended_well(operation.task_id)
        assert fold.operation(operation.id)["data"]["status"] == known.status  # type: ignore[index]
        messages = (await self.house.session(operation.task_id)).messages
        assert [message.task_id for message in messages][-1] == operation.task_id
        assert self.commands.running == {}

    async def assert_ended_alone(self, operation: Operation, outcome: Outcome) -> None:
        """The operation has this outcome and its log its end; nobody goes on with it."""
        known = await self.now(operation)
        assert (known.outcome, known.has_follow_up) == (outcome, False)
        await self.run_all()
        log = await self.house.told(operation.task_id)
        assert log[-2:] == ["abort cancelled by owner", "finish interrupted, cancelled: "]
        assert not any(line.startswith("data-attempt") for line in log)
        assert (await self.house.task(operation.task_id)).status == "cancelled"
        assert self.commands.running == {}


@pytest.fixture(params=["memory", "postgres"])
def place(request: pytest.FixtureRequest) -> House:
    return MemoryHouse() if request.param == "memory" else request.getfixturevalue("house")


@pytest.fixture
async def shop(place: House) -> AsyncIterator[Shop]:
    shop = Shop(place)
    yield shop
    assert shop.commands.running == {}


# --- how it ends ------------------------------------------------------------------------------------------------------


async def test_a_job_is_begun_by_a_turn_and_run_by_whoever_has_its_task(shop: Shop) -> None:
    operation = await shop.asked("echo built")
    assert (operation.executor, operation.status, operation.begun_by) == ("job", "pending", None)
    assert operation.deadline is not None
    assert (operation.deadline - operation.created_at).total_seconds() == pytest.approx(3600, abs=1)
    outputs = [c for c in await shop.house.log(operation.turn_id) if isinstance(c, e.ToolOutputAvailable)]
    started = {"status": "started", "operation_id": operation.id, "task_id": operation.task_id}
    assert outputs == [e.ToolOutputAvailable("call_0", started, preliminary=True)]
    (claim,) = await shop.due()
    await shop.house.run(claim)
    assert shop.commands.started == [(operation.session_id, operation.id, "echo built")]
    await shop.assert_followed_up(operation, Succeeded({"exit_code": 0, "output": "built\n"}))


ENDS: list[tuple[str, Outcome]] = [
    (
        "echo half; exit 3",
        Failed("exit_code", "The background job ended with an error.", {"exit_code": 3, "output": "half\n"}),
    ),
    ("echo half; kill -9 $$", Failed("killed", "The background job was killed.", {"signal": 9, "output": "half\n"})),
]  # fmt: skip


@pytest.mark.parametrize(("command", "outcome"), ENDS, ids=[command for command, _ in ENDS])
async def test_a_job_that_fails_is_told_with_what_it_printed(shop: Shop, command: str, outcome: Failed) -> None:
    operation = await shop.asked(command)
    (claim,) = await shop.due()
    await shop.house.run(claim)
    model = Script(TextPiece("I see."), CallEnded("stop", e.Usage(1, 1)))
    await shop.run_all(model)
    assert (await shop.now(operation)).outcome == outcome
    (said,) = [u.parts[0].text for u in model.calls[0] if u.role == "user" and "operation" in u.parts[0].text]  # type: ignore[union-attr]
    assert f"[code:{outcome.error_type}] {outcome.message}" in said
    assert '"output":"half\\n"' in said
    await shop.house.assert_ended_well(operation.task_id)


async def test_a_command_that_cannot_run_has_failed(shop: Shop) -> None:
    operation = await shop.asked("x" * 10)
    await shop.commands.__aexit__(None, None, None)  # it starts nothing any more
    (claim,) = await shop.due()
    await shop.house.run(claim)
    await shop.assert_followed_up(operation, Failed("command_not_started", "The command could not be started."))


async def test_a_job_that_is_past_its_deadline_is_killed(shop: Shop) -> None:
    operation = await shop.asked(LONG, 0.3)
    async with shop.running(operation):
        assert (await shop.now(operation)).status == "pending"
        await until(partial(shop.operations.end_overdue, 10), lambda ended: ended == 1)
    await shop.assert_followed_up(operation, Failed("timeout", "The request took too long. Please try again."))


async def test_a_job_whose_worker_died_is_not_run_again(shop: Shop) -> None:
    operation = await shop.asked(LONG)
    (claim,) = await shop.due(LAPSED)
    assert await shop.house.desk.begin_job(claim)  # and then nothing is heard of it
    await shop.run_all()
    assert shop.commands.started == []
    await shop.assert_followed_up(operation, DIED)


async def test_a_worker_without_a_workspace_ends_those_that_died_and_leaves_the_others(shop: Shop) -> None:
    fresh, lost = await shop.asked("echo late"), await shop.asked(LONG)
    await due_again(shop.house)
    (claim,) = [each for each in await shop.due(LAPSED) if each.task.id == lost.task_id]
    await shop.house.desk.begin_job(claim)
    shop.house.jobs = shop.worker(has_commands=False)
    for claim in await shop.due():
        await shop.house.run(claim)
    assert (await shop.now(lost)).outcome == DIED
    assert (await shop.now(fresh)).begun_by is None
    shop.house.jobs = shop.jobs
    await due_again(shop.house)
    await shop.run_all()
    await shop.assert_followed_up(fresh, Succeeded({"exit_code": 0, "output": "late\n"}))


async def test_a_job_dies_with_a_worker_that_is_stopped(shop: Shop) -> None:
    operation = await shop.asked(LONG)
    async with shop.running(operation) as work:
        work.cancel()
    await shop.assert_followed_up(operation, DIED)


async def test_a_stop_that_does_not_reach_the_database_is_told_by_the_next_holder(shop: Shop) -> None:
    def away() -> None:
        raise DatabaseUnavailable

    shop.house.jobs = shop.worker(inbox=Watched(shop.house.inbox, Once(verb="complete", act=away)))
    operation = await shop.asked(LONG)
    async with shop.running(operation, LAPSED) as work:
        work.cancel()
    assert (await shop.now(operation)).status == "pending"
    assert len(shop.commands.started) == 1
    await shop.run_all()
    assert len(shop.commands.started) == 1
    await shop.assert_followed_up(operation, DIED)


async def test_who_is_stopped_while_the_end_is_stored_says_how_it_ended(shop: Shop) -> None:
    arrived = asyncio.Event()

    class Stuck(Once):
        async def before(self, verb: str) -> None:
            if verb == "complete" and not arrived.is_set():
                arrived.set()
                await asyncio.Event().wait()

    shop.house.jobs = shop.worker(inbox=Watched(shop.house.inbox, Stuck()))
    operation = await shop.asked(LONG)
    async with shop.running(operation) as work:
        shop.go_on.set()
        await arrived.wait()
        work.cancel()
    await shop.assert_followed_up(operation, Succeeded({"exit_code": 0, "output": "up\ndone\n"}))


async def test_a_mistake_of_ours_ends_one_job_as_failed(shop: Shop) -> None:
    def odd() -> None:
        raise RuntimeError

    shop.house.jobs = shop.worker(inbox=Watched(shop.house.inbox, Once(verb="report", act=odd)))
    operation = await shop.asked(LONG)
    (claim,) = await shop.due()
    await shop.house.run(claim)
    await shop.assert_followed_up(
        operation, Failed("unexpected_error", "Something went wrong. Please try again.")
    )  # fmt: skip


# --- while it runs ----------------------------------------------------------------------------------------------------


async def progress_told(shop: Shop, operation: Operation) -> list[Any]:
    log = await shop.house.log(operation.task_id)
    return [chunk.data.progress for chunk in log if isinstance(chunk, e.DataOperation)]


async def test_what_it_prints_is_told_while_it_runs_and_what_others_report_too(shop: Shop) -> None:
    operation = await shop.asked(LONG)
    async with shop.running(operation):
        await until(partial(progress_told, shop, operation), lambda told: told == [None, {"output": "up\n"}])
        await shop.house.inbox.report(Progress(operation.id, {"half": True}, OTHERS))
        await until(partial(progress_told, shop, operation), lambda told: told[-1] == {"half": True})
        shop.go_on.set()
    told = await progress_told(shop, operation)
    assert told == [None, {"output": "up\n"}, {"half": True}]
    await shop.assert_followed_up(operation, Succeeded({"exit_code": 0, "output": "up\ndone\n"}))


async def test_a_job_runs_on_where_its_log_loses_its_tail(shop: Shop) -> None:
    """The command is neither ended nor run again for it; the log is whole in the end."""
    answered = asyncio.Event()

    class Forgetful(Watched):
        is_so = False

        async def append(self, batches: Any) -> Any:
            if not self.is_so:
                return await self._port.append(batches)
            answered.set()
            return [Lost(Position(1, 1)) for _ in batches]  # of another history than what was written

    operation, logs = await shop.asked(LONG), Forgetful(shop.house.logs, Fault())
    async with shop.running(operation, logs=logs) as work:
        logs.is_so = True
        await shop.house.inbox.report(Progress(operation.id, {"half": True}, OTHERS))
        await answered.wait()
        await shop.house.inbox.report(Progress(operation.id, {"half": False}, OTHERS))
        looks = len(shop.house.waits)
        await until(partial(shop.now, operation), lambda _: len(shop.house.waits) > looks + 2)
        assert not work.done()
        shop.go_on.set()
    assert len(shop.commands.started) == 1
    await shop.assert_followed_up(operation, Succeeded({"exit_code": 0, "output": "up\ndone\n"}))


async def due_again(house: House) -> None:
    """What was to be looked at later is due now."""
    if isinstance(house, MemoryHouse):
        for row in house.queue._database.tasks.values():  # type: ignore[attr-defined]
            row.tell_at = None if row.tell_at is None else row.task.created_at
    else:
        await house.database.fetch("UPDATE tasks SET tell_at = created_at WHERE tell_at IS NOT NULL")


async def test_a_job_that_finds_no_room_waits_for_it(place: House) -> None:
    shop = Shop(place, at_once=1)
    first = await shop.asked(LONG)
    async with shop.running(first):
        second = await shop.asked("echo second")
        (claim,) = await shop.due()
        await place.run(claim)
        assert (await shop.now(second)).begun_by is None
        assert await shop.due() == []
        await due_again(place)
        (claim,) = await shop.due()
        await place.run(claim)
        shop.go_on.set()
    assert [command for _, _, command in shop.commands.started] == [LONG]
    await due_again(place)
    await shop.run_all()
    await shop.assert_followed_up(first, Succeeded({"exit_code": 0, "output": "up\ndone\n"}))
    await shop.assert_followed_up(second, Succeeded({"exit_code": 0, "output": "second\n"}))


# --- ended by others --------------------------------------------------------------------------------------------------


async def ask(shop: Shop, operation: Operation, **asked: Any) -> Any:
    """The `jobs` tool in the job's session."""
    tools = shop.house.tools.granted(None, operation.session_id)
    return (await tools.run("jobs", asked)).value


Ending = Callable[[Shop, Operation], Awaitable[object]]

ALONE: dict[str, tuple[Ending, str]] = {
    "killed": (lambda shop, job: ask(shop, job, job=job.id, kill=True), KILLED),
    "cancelled": (lambda shop, job: shop.house.tasks.cancel(EVERYONES, job.task_id), "cancelled by owner"),
}


@pytest.mark.parametrize("how", ALONE)
async def test_a_job_that_its_user_ends_is_killed_without_a_follow_up(shop: Shop, how: str) -> None:
    ends, reason = ALONE[how]
    operation = await shop.asked(LONG)
    async with shop.running(operation):
        await ends(shop, operation)
    await shop.assert_ended_alone(operation, Cancelled(reason))


async def test_a_job_whose_operation_is_cancelled_is_killed_and_followed_up(shop: Shop) -> None:
    operation = await shop.asked(LONG)
    async with shop.running(operation):
        await shop.operations.cancel(EVERYONES, operation.id, OTHERS)
    await shop.assert_followed_up(operation, Cancelled("cancelled by owner"))


async def test_a_job_of_a_deleted_session_is_killed_and_its_log_closed(shop: Shop) -> None:
    operation = await shop.asked(LONG)
    async with shop.running(operation):
        await shop.house.sessions.delete(EVERYONES, operation.session_id)
    await shop.run_all()
    assert (await shop.house.told(operation.task_id))[-1].startswith("finish interrupted, cancelled")
    known = await shop.house.desk.of_task(operation.task_id)
    assert known is not None
    assert (known.outcome, known.has_follow_up) == (Cancelled("session deleted"), False)


async def test_a_kill_is_told_to_its_holder_and_counts_at_once(shop: Shop) -> None:
    """The command of one that looks only once in an hour is killed by the ring."""

    async def an_hour(_: float) -> None:
        if shop.commands.running and looks:
            await asyncio.Event().wait()
        looks.append(True)

    looks: list[bool] = []
    shop.house.sleep = an_hour
    shop.house.jobs = shop.worker()
    operation = await shop.asked(LONG)
    cancellation = Cancellation()
    async with shop.bell.listen() as rings, shop.running(operation, cancellation=cancellation) as work:
        assert (await ask(shop, operation, job=operation.id, kill=True))["status"] == "cancelled"
        async for rung in rings:
            if rung == CancelRequested(operation.task_id):
                break
        assert not work.done()
        cancellation.request()
    await shop.assert_ended_alone(operation, Cancelled(KILLED))
    assert len((await shop.operations.life(EVERYONES, operation.id))[1]) == 1


async def test_a_cancellation_of_what_is_pending_ends_it(shop: Shop) -> None:
    operation, cancellation = await shop.asked(LONG), Cancellation()
    async with shop.running(operation, cancellation=cancellation):
        cancellation.request()
    await shop.assert_ended_alone(operation, Cancelled("cancelled by owner"))


# --- the tools --------------------------------------------------------------------------------------------------------


async def test_jobs_are_listed_and_shown(shop: Shop) -> None:
    first = await shop.asked("echo " + "x" * 300)
    await shop.run_all()
    second = await shop.asked(LONG, session_id=first.session_id)
    listed = (await ask(shop, first, list=True))["jobs"]
    assert [(line["job"], line["status"]) for line in listed] == [(second.id, "waiting"), (first.id, "succeeded")]
    assert len(listed[1]["command"]) == 201
    async with shop.running(second):
        shown = await ask(shop, first, job=second.id)
        assert (shown["status"], shown["output"]) == ("running", "up\n")
        shop.go_on.set()
    shown = await ask(shop, first, job=second.id)
    assert (shown["status"], shown["outcome"]) == ("succeeded", {"result": {"exit_code": 0, "output": "up\ndone\n"}})
    assert (await ask(shop, first, job=second.id, kill=True))["status"] == "succeeded"


async def test_a_killed_job_is_shown_with_what_it_printed(shop: Shop) -> None:
    operation = await shop.asked(LONG)
    async with shop.running(operation):
        await ask(shop, operation, job=operation.id, kill=True)
    shown = await ask(shop, operation, job=operation.id)
    assert (shown["outcome"], shown["output"]) == ({"reason": KILLED}, "up\n")


async def test_the_model_asks_for_them(shop: Shop) -> None:
    operation = await shop.asked(LONG)
    async with shop.running(operation):
        session_id = operation.session_id
        text = f'/tool jobs {{"job": "{operation.id}", "kill": true}}\n/say Killed.'
        posted = await shop.house.messages.post(EVERYONES, session_id, NewMessage((e.TextPart(text),)))
        (claim,) = [each for each in await shop.house.queue.claim(10, 60) if each.task.kind == "turn"]
        await shop.house.run(claim)
    assert any("'status': 'cancelled'" in line for line in await shop.house.told(posted.task_id))
    await shop.assert_ended_alone(operation, Cancelled(KILLED))


async def test_another_sessions_jobs_and_other_operations_are_none(shop: Shop) -> None:
    mine = await shop.asked(LONG)
    others = await shop.asked(LONG)
    assert [line["job"] for line in (await ask(shop, mine, list=True))["jobs"]] == [mine.id]
    for command in ({"job": others.id}, {"job": others.id, "kill": True}, {"job": mine.id[:-4] + "0000"}):
        with pytest.raises(Exception, match=r"\[code:not_found\]"):
            await ask(shop, mine, **command)
    assert (await shop.now(others)).status == "pending"
    await shop.house.post("Hi", mine.session_id)
    (claim,) = [each for each in await shop.house.queue.claim(10, 60) if each.task.kind == "turn"]
    remote = await shop.house.desk.begin(claim, NewOperation("c9", "render", "remote", {}, 60))
    with pytest.raises(Exception, match=r"\[code:not_found\]"):
        await ask(shop, mine, job=remote.operation.id, kill=True)
    for each in (mine, others, remote.operation):
        await shop.house.inbox.complete(Completion(each.id, Cancelled(), OTHERS, follow_up=False))


@pytest.mark.parametrize(
    "asked",
    [{}, {"list": False}, {"kill": True}, {"list": True, "kill": True}, {"list": True, "job": "x"}, {"job": "x"},
     {"job": "' OR 1=1"}, {"job": None}, {"all": True}],
    ids=str,
)  # fmt: skip
async def test_what_asks_for_nothing_that_there_is_is_refused(asked: dict[str, Any]) -> None:
    shop = Shop(MemoryHouse())
    with pytest.raises(Exception, match=r"\[code:invalid_arguments\]"):
        await shop.house.tools.granted(None, SessionId("s")).run("jobs", asked)


@pytest.mark.parametrize(
    ("arguments", "fits"),
    [
        ({"command": "make"}, True),
        ({"command": "make", "deadline_seconds": 86_400}, True),
        ({"command": "make", "deadline_seconds": 0.5}, True),
        ({"command": "#" * 100_000}, True),
        ({"command": "#" * 100_001}, False),
        ({"command": ""}, False),
        ({"command": "a\0b"}, False),
        ({"command": ["make"]}, False),
        ({"command": "make", "deadline_seconds": 86_401}, False),
        ({"command": "make", "deadline_seconds": 0}, False),
        ({"command": "make", "deadline_seconds": "1"}, False),
        ({"command": "make", "as": "root"}, False),
        ({}, False),
        (None, False),
    ],
)
async def test_what_may_be_started(arguments: Any, fits: bool) -> None:
    shop = Shop(MemoryHouse())
    reason = start_job(shop.house.desk, Patience(shop.house.sleep)).why_not(arguments)
    assert (reason is None) == fits
    assert reason is None or "#####" not in reason


async def test_sessions_that_do_not_grant_them_do_not_have_them() -> None:
    shop = Shop(MemoryHouse())
    granted = shop.house.tools.granted(("jobs",), SessionId("s"))
    assert sorted(each.name for each in granted.described) == ["jobs", "think"]
    (always,) = shop.house.tools.granted((), SessionId("s")).described
    assert always.name == "think"
    session = await shop.house.sessions.create(None, SessionSettings(tools=("jobs",)))
    task_id: TaskId = await shop.house.post('/tool start_job {"command": "x"}\n/tool jobs {"list": true}', session.id)
    await shop.run_all()
    log = await shop.house.told(task_id)
    assert any("[code:unknown_tool]" in line for line in log)
    assert any("'jobs': []" in line for line in log)
    assert await shop.all() == []
