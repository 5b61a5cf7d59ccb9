"""What an agent does with operations: begin them, wait, and go on with their outcome, told in a log of their own."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pydantic import BaseModel

from service.adapters.demo_model import DemoModel
from service.adapters.memory_doorbell import MemoryDoorbell
from service.agent.cancellation import Cancellation
from service.agent.follow_up import RETRY_SECONDS
from service.agent.ports import Tool
from service.agent.tools import THINK, CallRefused, Toolbox
from service.model import events as e
from service.model.caller import EVERYONES
from service.model.events import Json
from service.model.failures import NO_RESULT, ModelCallFailed
from service.model.generation import CallEnded, Piece, TextPiece, ToolCallPiece
from service.model.operation import (
    NOT_THE_PERSON,
    Accepted,
    Cancelled,
    Completion,
    Delivery,
    Failed,
    Operation,
    Outcome,
    Progress,
    Refused,
    Succeeded,
)
from service.model.remote import Answered, NotTaken, RemoteAnswer, RemoteCall, RemoteTool, Taken
from service.model.session import NewMessage, SessionChange, SessionSettings
from service.operations.asking import ask, timer
from service.operations.operations import Operations
from service.operations.patience import Patience
from service.operations.remote import RemoteOperations
from tests.agent.house import House, MemoryHouse, Script, until

BY = Delivery("amqp", "render")
DONE = Succeeded({"frames": 3})


@dataclass
class Services:
    """The port `ServiceCalls`: answers as it is told, and does something before it answers."""

    answers: list[RemoteAnswer] = field(default_factory=list)
    calls: list[RemoteCall] = field(default_factory=list)
    before: Any = None

    async def call(self, tool: RemoteTool, call: RemoteCall) -> RemoteAnswer:
        self.calls.append(call)
        if self.before is not None:
            await self.before(call)
        return self.answers.pop(0) if self.answers else Taken()


RENDER = RemoteTool("render", "Renders.", {"type": "object"}, "http://127.0.0.1:1/", "whsec_AAAA")


def with_render(house: House, services: Services, tool: RemoteTool = RENDER) -> House:
    """The house with a remote tool in it."""
    patiently = Patience(house.sleep)
    render = RemoteOperations(
        tool,
        house.desk,
        house.inbox,
        services,
        patiently,
        house.sleep,
        why_not=lambda _: None,
        callback_url=lambda operation_id: f"http://us/{operation_id}",
    )
    house.tools = Toolbox([THINK], [render])
    return house


@pytest.fixture(params=["memory", "postgres"])
def place(request: pytest.FixtureRequest) -> House:
    return MemoryHouse() if request.param == "memory" else request.getfixturevalue("house")


async def only(house: House) -> Operation:
    (operation,) = await house.all_operations()
    return operation


async def complete(house: House, outcome: Outcome = DONE) -> Operation:
    operation = await only(house)
    said = Completion(operation.id, outcome, BY, is_answer=operation.executor == "person")
    assert isinstance(await house.inbox.complete(said), Accepted)
    return await only(house)


async def run_all(house: House, model: Any = None) -> None:
    """Everything that is due."""
    model = model or DemoModel()
    while claims := await house.queue.claim(10, 60):
        for claim in claims:
            await house.run(claim, model)


ASKED = '/say Well.\n/tool render {"scene": 1}\n/say Asked for.'


async def started(house: House, services: Services | None = None) -> Operation:
    """A turn has begun an operation, and ended; the operation's log has its beginning."""
    with_render(house, services or Services())
    await house.post(ASKED)
    await run_all(house)
    return await only(house)


async def test_a_turn_goes_on_and_ends_while_its_operation_is_pending(place: House) -> None:
    services = Services()
    operation = await started(place, services)
    (call,) = services.calls
    assert call == RemoteCall(
        operation.id, operation.task_id, operation.session_id, {"scene": 1}, f"http://us/{operation.id}"
    )
    ran = {"status": "started", "operation_id": operation.id, "task_id": operation.task_id}
    log = await place.log(operation.turn_id)
    outputs = [chunk for chunk in log if isinstance(chunk, e.ToolOutputAvailable)]
    assert outputs == [e.ToolOutputAvailable("call_1", ran, preliminary=True)]
    assert (await place.task(operation.turn_id)).status == "succeeded"
    assert await place.told(operation.task_id) == [
        "start",
        "tool-input-available call_1 render: {'scene': 1}",
        "data-operation",
    ]
    await place.assert_ended_well(operation.turn_id)


async def test_the_outcome_is_told_in_the_operations_log_and_the_agent_goes_on(place: House) -> None:
    await started(place)
    operation = await complete(place)
    await run_all(place)
    log = await place.told(operation.task_id)
    assert log[:7] == [
        "start",
        "tool-input-available call_1 render: {'scene': 1}",
        "data-operation",
        "data-attempt 3",
        "data-operation",
        "tool-output-available call_1: {'frames': 3}",
        "start-step",
    ]
    assert log[-1].startswith("finish stop, succeeded: I have been told how it ended. The operation `render`")
    assert '{"frames":3}' in log[-1]
    fold = await place.assert_ended_well(operation.task_id)
    assert fold.operation(operation.id)["data"]["status"] == "succeeded"  # type: ignore[index]
    messages = (await place.session(operation.task_id)).messages
    assert [(m.role, m.task_id) for m in messages] == [
        ("user", operation.turn_id),
        ("assistant", operation.turn_id),
        ("assistant", operation.task_id),
    ]


OUTCOMES: list[tuple[Outcome, str]] = [
    (Succeeded({}), "tool-output-available call_1: {}"),
    (Succeeded(None), "tool-output-available call_1: None"),
    (Succeeded(""), "tool-output-available call_1: "),
    (
        Failed("llm_timeout", "Too slow.", {"after": 60}),
        'tool-output-error call_1: [code:llm_timeout] Too slow.\n{"after":60}',
    ),
    (Cancelled("Not needed."), "tool-output-error call_1: [code:cancelled] Cancelled: Not needed."),
]


@pytest.mark.parametrize(("outcome", "line"), OUTCOMES, ids=[line for _, line in OUTCOMES])
async def test_every_outcome_is_told_to_the_log_and_the_model(place: House, outcome: Outcome, line: str) -> None:
    await started(place)
    operation = await complete(place, outcome)
    model = Script(TextPiece("I see."), CallEnded("stop", e.Usage(1, 1)))
    await run_all(place, model)
    assert line in await place.told(operation.task_id)
    await place.assert_ended_well(operation.task_id)
    (said,) = [u.parts[0].text for u in model.calls[0] if u.role == "user" and "operation" in u.parts[0].text]  # type: ignore[union-attr]
    assert line.partition(": ")[2].replace("None", "null") in said
    data = [chunk.data for chunk in await place.log(operation.task_id) if isinstance(chunk, e.DataOperation)][-1]
    if isinstance(outcome, Failed):
        assert data.outcome == {"error_type": "llm_timeout", "message": "Too slow.", "details": {"after": 60}}


AT_ONCE: list[tuple[RemoteAnswer, str]] = [
    (Answered({"frames": 9}), "tool-output-available call_1: {'frames': 9}"),
    (Answered(None), "tool-output-available call_1: None"),
    (NotTaken("rate_limit", "Busy."), "tool-output-error call_1: [code:rate_limit] Busy."),
]


@pytest.mark.parametrize(("answer", "line"), AT_ONCE, ids=[line for _, line in AT_ONCE])
async def test_an_answer_at_once_is_the_tools_result_and_has_no_follow_up(
    place: House, answer: RemoteAnswer, line: str
) -> None:
    operation = await started(place, Services([answer]))
    assert line in await place.told(operation.turn_id)
    assert not operation.has_follow_up
    log = await place.told(operation.task_id)
    assert line in log
    assert log[-1].startswith("finish ")
    assert sum(each.startswith("finish") for each in log) == 1
    session = await place.session(operation.turn_id)
    assert [message.role for message in session.messages] == ["user", "assistant"]
    assert not session.entry.busy


async def test_pitfall_31_a_completion_that_is_faster_than_the_answer_is_the_outcome(place: House) -> None:
    async def first(call: RemoteCall) -> None:
        await place.inbox.complete(Completion(call.operation_id, Succeeded("early"), BY))

    operation = await started(place, Services([Answered("late")], before=first))
    assert operation.outcome == Succeeded("early")
    assert operation.has_follow_up
    assert any("'status': 'started'" in line for line in await place.told(operation.turn_id))
    await place.assert_ended_well(operation.task_id)


async def test_a_service_that_does_a_repeat_once_is_called_again(place: House) -> None:
    busy = NotTaken("service_unavailable", "Away.", is_retryable=True)
    services = Services([busy, busy, Answered("done")])
    with_render(place, services, replace(RENDER, is_repeatable=True))
    await place.post(ASKED)
    await run_all(place)
    assert (await only(place)).outcome == Succeeded("done")
    assert len({call.operation_id for call in services.calls}) == 1
    assert place.waits == [0.5, 2.0]


async def test_one_that_does_not_is_called_once(place: House) -> None:
    services = Services([NotTaken("service_unavailable", "Away.", is_retryable=True)])
    operation = await started(place, services)
    assert len(services.calls) == 1
    assert operation.outcome == Failed("service_unavailable", "Away.")


async def test_progress_is_told(place: House) -> None:
    operation = await started(place)
    for number in (0.25, 0.5):
        await place.inbox.report(Progress(operation.id, number, BY))
    await complete(place)
    await run_all(place)
    data = [chunk.data for chunk in await place.log(operation.task_id) if isinstance(chunk, e.DataOperation)]
    assert data[0].progress is None
    assert data[-1].progress == 0.5
    assert [each.status for each in data] == ["pending", "succeeded"]


# --- a follow-up that fails -------------------------------------------------------------------------------------------


async def again(house: House, operation: Operation) -> None:
    """What was postponed is due now."""
    if isinstance(house, MemoryHouse):
        for row in house.queue._database.tasks.values():  # type: ignore[attr-defined]
            row.due_at = None
    else:
        await house.database.fetch("UPDATE tasks SET due_at = now() WHERE status = 'queued'")


async def test_pitfall_48_a_follow_up_that_fails_rests_and_is_tried_again_and_nothing_is_done_twice(
    place: House,
) -> None:
    services = Services()
    await started(place, services)
    operation = await complete(place, Succeeded('/tool render {"scene": 2}\n/fail timeout times=12\n/say At last.'))
    model = DemoModel()
    tries = 0
    for _ in range(10):
        await run_all(place, model)
        if (await place.task(operation.task_id)).has_ended:
            break
        tries += 1
        await again(place, operation)
    assert tries == 2  # each asks the model six times
    assert [call.arguments for call in services.calls] == [{"scene": 1}, {"scene": 2}]
    fold = await place.assert_ended_well(operation.task_id)
    assert fold.output() == "At last."


async def test_pitfall_37_a_follow_up_that_always_fails_has_failed_and_ends_in_plain_words_with_the_outcome(
    place: House,
) -> None:
    await started(place)
    operation = await complete(place, Succeeded("/fail authentication_error"))
    model = DemoModel()
    for _ in range(len(RETRY_SECONDS) + 1):
        assert not (await place.task(operation.task_id)).has_ended
        await run_all(place, model)
        await again(place, operation)
    task = await place.task(operation.task_id)
    assert (task.status, task.error_type) == ("failed", "authentication_error")
    fold = await place.assert_ended_well(operation.task_id)
    assert fold.output().startswith("render is done. Its result: /fail authentication_error\n\nI could not go on")
    assert (await place.session(operation.task_id)).messages[-1].task_id == operation.task_id


async def given_up(house: House, operation: Operation) -> None:
    """The follow-up was tried as often as it may, and has failed."""
    for _ in range(len(RETRY_SECONDS) + 1):
        await run_all(house, DemoModel())
        await again(house, operation)
    assert (await house.task(operation.task_id)).status == "failed"


async def test_a_follow_up_that_failed_is_redriven_in_a_log_of_its_own(place: House) -> None:
    services = Services()
    await started(place, services)
    operation = await complete(place, Succeeded("/fail authentication_error"))
    await given_up(place, operation)
    task_id = await place.inbox.redrive(EVERYONES, operation.id, BY)
    model = Script(TextPiece("At last."), CallEnded("stop", e.Usage(1, 1)))
    await run_all(place, model)
    assert await place.told(task_id) == [
        "start",
        "tool-input-available call_1 render: {'scene': 1}",
        "data-operation",
        "data-attempt 1",
        "data-operation",
        "tool-output-available call_1: /fail authentication_error",
        "start-step",
        "text-start p3",
        "text-delta p3: At last.",
        "text-end p3",
        "call-ended stop 1+1",
        "finish-step",
        "finish stop, succeeded: At last.",
    ]
    await place.assert_ended_well(task_id)
    assert (await place.session(task_id)).messages[-1].task_id == task_id
    assert len(services.calls) == 1
    assert "/fail authentication_error" in model.calls[0][-1].parts[0].text  # type: ignore[union-attr]


class Printer:
    """A tool that must not run twice."""

    def __init__(self) -> None:
        self.printed: list[str] = []

    async def run(self, thought: Any) -> Json:
        self.printed.append(thought.thought)
        return f"printed {len(self.printed)}"

    @property
    def toolbox(self) -> Toolbox:
        return Toolbox([replace(THINK, name="print", needs_approval=True, is_repeatable=False, run=self.run)])


async def approved_and_given_up(house: House, printer: Printer) -> Operation:
    """What a person allowed was done; but the model could not go on with that."""
    house.tools = printer.toolbox
    await house.post('/tool print {"thought": "x"}')
    await run_all(house)
    operation = await complete(house, Succeeded({"approved": True}))
    for _ in range(len(RETRY_SECONDS) + 1):
        await run_all(house, Script(*[ModelCallFailed("authentication_error", is_retryable=False)]))
        await again(house, operation)
    assert (await house.task(operation.task_id)).status == "failed"
    return operation


async def test_plain_words_tell_what_came_of_what_a_person_allowed_and_not_the_answer(place: House) -> None:
    operation = await approved_and_given_up(place, Printer())
    said = (await place.assert_ended_well(operation.task_id)).output()
    assert said.startswith("print is done. Its result: printed 1\n\nI could not go on")


async def test_plain_words_do_not_tell_what_was_allowed_and_failed_as_done(place: House) -> None:
    class Jammed(Printer):
        async def run(self, thought: Any) -> Json:
            raise CallRefused("jammed", "There is no paper.")

    operation = await approved_and_given_up(place, Jammed())
    said = (await place.assert_ended_well(operation.task_id)).output()
    assert said.startswith("print has failed. There is no paper.\n\nI could not go on")


async def test_plain_words_do_not_tell_what_was_allowed_and_has_begun_as_done(place: House) -> None:
    services = Services()
    asked = await asked_for_approval(place, services)
    await complete(place, Succeeded({"approved": True}))
    for _ in range(len(RETRY_SECONDS) + 1):
        await run_all(place, Script(*[ModelCallFailed("authentication_error", is_retryable=False)]))
        await again(place, asked)
    said = (await place.assert_ended_well(asked.task_id)).output()
    assert said.startswith("render was allowed, and has begun.\n\nI could not go on")
    assert len(services.calls) == 1


async def test_what_a_person_allowed_is_not_done_again_when_its_follow_up_is_redriven(place: House) -> None:
    printer = Printer()
    operation = await approved_and_given_up(place, printer)
    place.tools = Toolbox([THINK])
    await place.post('/tool think {"thought": "y"}\n/say So.', operation.session_id)  # its call has the same id
    await run_all(place)
    place.tools = printer.toolbox
    task_id = await place.inbox.redrive(EVERYONES, operation.id, BY)
    await run_all(place, Script(TextPiece("Done."), CallEnded("stop", e.Usage(1, 1))))
    assert printer.printed == ["x"]
    log = await place.told(task_id)
    assert [line for line in log if "approval" in line or "output" in line] == [
        "tool-approval-request",
        "tool-approval-response",
        "tool-output-available call_0: printed 1",
    ]
    await place.assert_ended_well(task_id)


async def test_where_nobody_knows_what_came_of_it_a_redriven_follow_up_says_so(place: House) -> None:
    printer = Printer()
    operation = await approved_and_given_up(place, printer)
    first = (await place.session(operation.task_id)).messages[0]
    said = NewMessage((e.TextPart("Something else."),), first.id)
    await place.messages.answer_again(EVERYONES, operation.session_id, first.id, said)  # sets aside what came behind it
    task_id = await place.inbox.redrive(EVERYONES, operation.id, BY)
    await run_all(place, Script(TextPiece("Done."), CallEnded("stop", e.Usage(1, 1))))
    assert printer.printed == ["x"]
    assert any(NO_RESULT in line for line in await place.told(task_id))
    await place.assert_ended_well(task_id)


async def test_a_follow_up_whose_worker_is_lost_goes_on(place: House) -> None:
    await started(place)
    operation = await complete(place)
    hold = asyncio.Event()
    (claim,) = await place.queue.claim(10, 0)
    async with place.turns(Script(TextPiece("Half"), hold)) as turns, asyncio.TaskGroup() as tasks:
        work = tasks.create_task(turns.run(claim, place.retake, Cancellation()))
        await until(lambda: place.told(operation.task_id), lambda lines: lines[-1:] == ["text-delta p3: Half"])
        work.cancel()
    await run_all(place)
    log = await place.told(operation.task_id)
    assert log.count("tool-output-available call_1: {'frames': 3}") == 1
    assert log.count("start") == 1
    assert "reset-step" in log
    await place.assert_ended_well(operation.task_id)


async def test_a_cancelled_turn_takes_its_operation_along_without_a_follow_up(place: House) -> None:
    asked, hold = asyncio.Event(), asyncio.Event()

    async def first(call: RemoteCall) -> None:
        asked.set()
        await hold.wait()

    with_render(place, Services(before=first))
    await place.post(ASKED)
    (claim,) = await place.queue.claim(10, 60)
    cancellation = Cancellation()
    async with place.turns() as turns, asyncio.TaskGroup() as tasks:
        work = tasks.create_task(turns.run(claim, place.retake, cancellation))
        await asked.wait()
        cancellation.request()
        await work
    await run_all(place)
    operation = await only(place)
    assert operation.outcome == Cancelled("cancelled with its turn")
    log = await place.told(operation.task_id)
    assert log[-2:] == ["abort cancelled by owner", "finish interrupted, cancelled: "]
    assert (await place.task(operation.task_id)).status == "cancelled"


async def test_a_person_is_asked_and_the_follow_up_of_a_yes_runs_the_tool(place: House) -> None:
    ran: list[str] = []

    async def think(thought: Any) -> Json:
        ran.append(thought.thought)
        return "thought"

    place.tools = Toolbox([replace(THINK, needs_approval=True, run=think)])
    await place.post('/say Shall I?\n/tool think {"thought": "x"}\n/say Never said.')
    await run_all(place)
    operation = await only(place)
    assert (operation.executor, ran) == ("person", [])
    log = await place.told(operation.turn_id)
    assert log[-4:-2] == ["tool-approval-request", "data-operation"]
    assert log[-1].startswith("finish tool-calls, succeeded: Shall I?")
    await place.assert_ended_well(operation.turn_id)
    await complete(place, Succeeded({"approved": True}))
    await run_all(place)
    assert ran == ["x"]
    log = await place.told(operation.task_id)
    assert [line for line in log if "approval" in line or "output" in line] == [
        "tool-approval-request",
        "tool-approval-response",
        "tool-output-available call_1: thought",
    ]
    await place.assert_ended_well(operation.task_id)


async def asked_for_approval(house: House, services: Services) -> Operation:
    """A person is asked whether a service may be."""
    with_render(house, services, replace(RENDER, needs_approval=True))
    await house.post('/tool render {"scene": 1}\n/say Never said.')
    await run_all(house)
    return await only(house)


async def test_a_service_is_called_after_a_yes_and_what_comes_of_it_has_a_follow_up_of_its_own(place: House) -> None:
    services = Services()
    asked = await asked_for_approval(place, services)
    assert (asked.executor, asked.tool, services.calls) == ("person", "render", [])
    await complete(place, Succeeded({"approved": True}))
    model = Script(TextPiece("It is being rendered."), CallEnded("stop", e.Usage(1, 1)))
    await run_all(place, model)
    begun, _ = await place.all_operations()
    (call,) = services.calls
    assert (call.operation_id, call.arguments) == (begun.id, {"scene": 1})
    assert (begun.executor, begun.turn_id, begun.status) == ("remote", asked.task_id, "pending")
    started = {"status": "started", "operation_id": begun.id, "task_id": begun.task_id}
    log = await place.log(asked.task_id)
    assert [chunk for chunk in log if isinstance(chunk, e.ToolOutputAvailable)] == [
        e.ToolOutputAvailable("call_0", started, preliminary=True)
    ]
    assert "has begun" in model.calls[0][-1].parts[0].text  # type: ignore[union-attr]
    assert isinstance(await place.inbox.complete(Completion(begun.id, DONE, BY)), Accepted)
    await run_all(place, Script(TextPiece("Rendered."), CallEnded("stop", e.Usage(1, 1))))
    assert "tool-output-available call_0: {'frames': 3}" in await place.told(begun.task_id)
    for task_id in (asked.turn_id, asked.task_id, begun.task_id):
        await place.assert_ended_well(task_id)


async def test_what_a_service_answers_at_once_after_a_yes_is_the_result(place: House) -> None:
    services = Services([Answered({"frames": 1})])
    asked = await asked_for_approval(place, services)
    await complete(place, Succeeded({"approved": True}))
    await run_all(place, Script(TextPiece("Rendered."), CallEnded("stop", e.Usage(1, 1))))
    assert "tool-output-available call_0: {'frames': 1}" in await place.told(asked.task_id)
    begun, _ = await place.all_operations()
    assert (begun.outcome, begun.has_follow_up) == (Succeeded({"frames": 1}), False)
    for task_id in (asked.task_id, begun.task_id):
        assert (await place.task(task_id)).status == "succeeded"
    await place.assert_ended_well(asked.task_id)


async def test_after_a_no_no_service_is_called(place: House) -> None:
    services = Services()
    asked = await asked_for_approval(place, services)
    await complete(place, Cancelled())
    await run_all(place)
    assert services.calls == []
    assert await only(place)  # and no other operation
    await place.assert_ended_well(asked.task_id)


async def test_arguments_that_do_not_fit_are_shown_to_no_person(place: House) -> None:
    place.tools = Toolbox([THINK, Tool("wipe", "Wipes.", Wiped, _never, needs_approval=True)])
    await place.post('/tool wipe {"x": "all"}\n/say Well.')
    await run_all(place)
    assert await place.all_operations() == []


async def _never(given: Any) -> Json:
    raise AssertionError


async def test_after_a_no_nothing_runs_and_the_agent_is_told(place: House) -> None:
    place.tools = Toolbox([replace(THINK, needs_approval=True)])
    await place.post('/tool think {"thought": "x"}')
    await run_all(place)
    operation = await complete(place, Cancelled("not now"))
    model = Script(TextPiece("Then not."), CallEnded("stop", e.Usage(1, 1)))
    await run_all(place, model)
    log = await place.log(operation.task_id)
    answer = next(chunk for chunk in log if isinstance(chunk, e.ToolApprovalResponse))
    assert (answer.approved, answer.reason) == (False, "not now")
    assert any(isinstance(chunk, e.ToolOutputDenied) for chunk in log)
    assert "not now" in model.calls[0][-1].parts[0].text  # type: ignore[union-attr]
    await place.assert_ended_well(operation.task_id)


async def test_a_tool_that_is_not_granted_is_none(place: House) -> None:
    services = Services()
    with_render(place, services)
    session = await place.sessions.create(None, SessionSettings(tools=("print",)))
    task_id = await place.post('/tool render {}\n/tool think {"thought": "x"}', session.id)
    await run_all(place)
    log = await place.told(task_id)
    assert any("[code:unknown_tool]" in line for line in log)
    assert any(line.startswith("tool-output-available") for line in log)  # thinking is always granted
    assert services.calls == []


async def test_a_question_is_answered_by_a_person(place: House) -> None:
    place.tools = Toolbox([THINK], [ask(place.desk, Patience(place.sleep))])
    await place.post('/tool ask {"question": "Which one?"}')
    await run_all(place)
    operation = await only(place)
    assert (operation.executor, operation.deadline, operation.arguments) == ("person", None, {"question": "Which one?"})
    assert (await place.told(operation.turn_id))[-1].startswith("finish tool-calls, succeeded")
    await complete(place, Succeeded("The red one."))
    await run_all(place)
    log = await place.told(operation.task_id)
    assert "tool-output-available call_0: The red one." in log
    assert log.index("tool-approval-response") < log.index("tool-output-available call_0: The red one.")
    await place.assert_ended_well(operation.task_id)


async def test_a_timer_ends_when_its_time_has_come(place: House) -> None:
    place.tools = Toolbox([THINK], [timer(place.desk, Patience(place.sleep))])
    await place.post('/tool timer {"seconds": 0.000001, "note": "/say Tea!"}')
    await run_all(place)
    operation = await only(place)
    assert await Operations(place.inbox, place.operations, MemoryDoorbell()).end_overdue(10) == 1
    await run_all(place)
    fold = await place.assert_ended_well(operation.task_id)
    assert fold.call("call_0")["input"]["note"] == "/say Tea!"  # type: ignore[index]


@pytest.mark.parametrize(
    "arguments", ["{}", '{"question": ""}', '{"question": 1}', '{"question": "?", "more": 1}', "[]"]
)
async def test_a_question_that_is_none_begins_nothing(place: House, arguments: str) -> None:
    place.tools = Toolbox([THINK], [ask(place.desk, Patience(place.sleep))])
    task_id = await place.post(f"/tool ask {arguments}")
    await run_all(place)
    assert any("[code:invalid_arguments]" in line for line in await place.told(task_id))
    assert await place.all_operations() == []


async def test_a_mistake_of_ours_in_a_log_that_waits_leaves_the_operation_its_end(place: House) -> None:
    """The task is put off, and not ended: else nobody would hear of the outcome."""
    with_render(place, Services())
    await place.post(ASKED)
    await place.run(await place.claim())
    broken = replace(await only(place), tool="no name \ud800")  # no event can say that
    desk = place.desk

    class Broken:
        told, begin, postpone, begin_job = desk.told, desk.begin, desk.postpone, desk.begin_job

        async def of_task(self, task_id: Any) -> Operation | None:
            return broken

    (claim,) = await place.queue.claim(10, 60)
    await place.run(claim, desk=Broken())
    assert (await place.task(claim.task.id)).status == "waiting"
    assert await place.queue.claim(10, 60) == []  # not at once
    await complete(place)
    await run_all(place)
    await place.assert_ended_well(claim.task.id)


# --- what only shows where two do it at once --------------------------------------------------------------------------


class Wiped(BaseModel):
    """What `wipe` is given."""

    x: int = 0


def with_wipe(house: House) -> list[int]:
    """The house with a tool that needs an approval; answers what it was run with."""
    ran: list[int] = []

    async def wipe(given: Wiped) -> Json:
        ran.append(given.x)
        return "wiped"

    house.tools = Toolbox([THINK, Tool("wipe", "Wipes.", Wiped, wipe, needs_approval=True)])
    return ran


async def test_an_approval_that_comes_while_the_log_is_begun_runs_the_tool(place: House) -> None:
    """Whoever has the waiting task is its holder no more, though its log is not opened by another yet."""
    ran = with_wipe(place)
    await place.post('/tool wipe {"x": 1}')
    await place.run(await place.claim())
    (waiting,) = await place.queue.claim(10, 60)
    await complete(place, Succeeded({"approved": True}))
    await place.run(waiting)
    await run_all(place)
    assert ran == [1]
    await place.assert_ended_well(waiting.task.id)


async def test_nobody_else_answers_for_a_person(place: House) -> None:
    ran = with_wipe(place)
    await place.post('/tool wipe {"x": 1}')
    await run_all(place)
    operation = await only(place)
    for outcome in (Succeeded({"approved": True}), Succeeded(None), Failed("patch_error", "No.")):
        for door in ("amqp", "http"):
            said = Completion(operation.id, outcome, Delivery(door, "anybody"))  # type: ignore[arg-type]
            assert await place.inbox.complete(said) == Refused(NOT_THE_PERSON)
    assert (await only(place)).deliveries == 0
    await complete(place, Succeeded({"approved": False}))  # from within, and no yes
    await run_all(place)
    assert ran == []


async def test_a_result_at_once_for_a_holder_that_was_lost_has_a_follow_up(place: House) -> None:
    services = Services([Answered({"frames": 1})])
    with_render(place, services)
    task_id = await place.post(ASKED)
    claim = await place.claim(0)

    async def taken_over(call: RemoteCall) -> None:
        services.before = None
        for each in await place.queue.claim(10, 60):
            await place.run(each)

    services.before = taken_over
    await place.run(claim)
    await run_all(place)
    operation = await only(place)
    assert (operation.outcome, operation.has_follow_up) == (Succeeded({"frames": 1}), True)
    await place.assert_ended_well(task_id)
    await place.assert_ended_well(operation.task_id)


async def test_work_that_has_ended_is_the_result_of_another_call_for_it(place: House) -> None:
    with_render(place, Services(), replace(RENDER, key_argument="scene"))
    first = await place.post('/tool render {"scene": "a"}')
    await run_all(place)
    operation = await complete(place)
    await run_all(place)
    second = await place.post('/tool render {"scene": "a"}', operation.session_id)
    await run_all(place)
    assert "tool-output-available call_0: {'frames': 3}" in await place.told(second)
    assert await only(place) == operation
    await place.assert_ended_well(first)


async def test_rests_are_not_counted_as_time_that_a_follow_up_took(place: House) -> None:
    operation = await started(place)
    await place.sessions.change(EVERYONES, operation.session_id, SessionChange(SessionSettings(max_seconds=30)))
    await complete(place)
    await run_all(place, Script(ModelCallFailed("rate_limit", is_retryable=False)))
    task = await place.task(operation.task_id)
    assert (task.status, task.started_at) == ("queued", None)


async def test_who_said_something_amid_a_follow_up_that_fails_is_not_left_alone(place: House) -> None:
    operation = await started(place)
    await complete(place)
    place.tools = Toolbox([THINK])

    class Fails:
        provider = "it"
        calls = 0

        async def stream(self, task_id: Any, prompt: Any) -> AsyncGenerator[Piece]:
            self.calls += 1
            if self.calls > 1:
                raise ModelCallFailed("rate_limit", is_retryable=False)
            await place.messages.post(EVERYONES, operation.session_id, NewMessage((e.TextPart("And?"),)))
            yield ToolCallPiece("c9", "think", '{"thought": "x"}')
            yield CallEnded("tool-calls", e.Usage(1, 1))

    await run_all(place, Fails())
    assert (await place.task(operation.task_id)).status == "failed"
    fold = await place.assert_ended_well(operation.task_id)
    assert fold.output().startswith("render is done.")
