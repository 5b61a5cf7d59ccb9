"""Whoever works on an operation dies: in front of and behind every call that it makes, enumerated.

Afterwards there is one outcome, its service was told once at most, and the user has heard of it once.
"""

from dataclasses import dataclass, field, replace

import pytest

from service.agent.tools import THINK, Toolbox
from service.model import events as e
from service.model.caller import EVERYONES
from service.model.operation import EVERY_OPERATION, Accepted, Completion, Delivery, Duplicate, Succeeded
from service.model.remote import Answered, RemoteAnswer, RemoteCall, RemoteTool, Taken
from service.model.task import EVERY_TASK, Claim
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
    found = await house.operations.newest(EVERYONES, EVERY_OPERATION, 10, None)
    assert len(found) == 1
    (operation,) = found
    if operation.status == "pending":
        assert isinstance(await house.inbox.complete(Completion(operation.id, DONE, BY)), Accepted)
    await run_all(house)
    (operation,) = await house.operations.newest(EVERYONES, EVERY_OPERATION, 10, None)
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
        (operation,) = await house.operations.newest(EVERYONES, EVERY_OPERATION, 10, None)
        await house.inbox.complete(Completion(operation.id, DONE, BY))
        death = Death(at=at, is_behind=is_behind)
        if not await dies(house, await first(house, "operation"), death, None):
            break
        seen.add(death.calls[at])
        await run_all(house)
        await assert_all_well(house, service, at_once=False)
    assert {"open", "of_task", "append", "end", "finish", "close"} <= seen


@pytest.mark.parametrize("is_behind", [False, True], ids=["in front", "behind"])
async def test_whoever_takes_a_completion(is_behind: bool) -> None:
    """O5 and O6: the door's repeat is a duplicate, or the first."""
    house, service = MemoryHouse(), Service(Taken())
    equip(house, service, RENDER)
    await house.post('/tool render {"scene": 1}\n/say Asked.')
    await run_all(house)
    (operation,) = await house.operations.newest(EVERYONES, EVERY_OPERATION, 10, None)
    completion = Completion(operation.id, DONE, replace(BY, id="m1"))
    if is_behind:  # it was committed, and its sender was not told
        await house.inbox.complete(completion)
    assert isinstance(await house.inbox.complete(completion), Duplicate if is_behind else Accepted)
    await assert_all_well(house, service, at_once=False)
