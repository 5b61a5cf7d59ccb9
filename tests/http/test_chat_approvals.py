"""What `useChat` posts when its user has answered whether tools may run, and what it is answered with."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from service.adapters.tools_file import read_tools
from service.http.answered import from_the_answer
from service.http.chat import NO_APPROVAL
from service.http.sse import HEARTBEAT
from service.model import events as e
from service.model.caller import EVERYONES
from service.model.encoding import encode, framed, unframed
from service.model.errors import DatabaseUnavailable, LogUnavailable
from service.model.ids import OperationId
from service.model.operation import Operation, OperationFilter
from service.model.position import Position
from service.model.remote import RemoteTool
from service.registry.follow import Begun, Ended, Followed, Frames, Heartbeat
from service.settings import Settings
from service.wiring import open_worker
from tests.adapters.remote_service import Service, wiping
from tests.http.memory import Doors, opened
from tests.http.test_chat import assert_said, assert_streams, assistant, user
from tests.http.test_positions import dechunked
from tests.http.wire import Answer, ask

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOBODYS = "01890000-0000-7000-8000-000000000000"
NOWHERE = "There is no such thing here."
OTHERWISE = "This operation has ended already, and otherwise than this says. How it ended stays."
WRONG = "The body is not what this route takes. messages.0.parts"
NO_ID = f"{WRONG}.0.approval.id: This is no operation's id."
NO_APPROVAL_AT_ALL = f"{WRONG}.0: An answer has an `approval`, with `id` and `approved`."


@dataclass
class Place:
    """A service whose agent asks before it has another one wipe."""

    doors: Doors
    wiper: Service
    tools: tuple[RemoteTool, ...]

    @property
    def wiped(self) -> list[str]:
        """What the other one was told to say afterwards."""
        return [request.body["arguments"]["then"] for request in self.wiper.requests]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """A worker for as long as the block runs."""
        house, stopping = replace(self.doors.house, tools=self.tools), asyncio.Event()
        async with open_worker(house, Settings(_env_file=None)) as worker, asyncio.TaskGroup() as group:
            group.create_task(worker.run(stopping))
            yield
            stopping.set()

    async def post(self, chat_id: str, *messages: Any, until: bytes | None = None, **more: Any) -> Answer:
        body = {"id": chat_id, "trigger": "submit-message", "messages": list(messages), **more}
        return await ask(self.doors.url, "POST", "/api/chat", json.dumps(body).encode(), until=until)

    async def asked(self, *calls: str, chat_id: str = "") -> "Asked":
        """A turn that ends with these calls, about which a person is asked. `chat_id` is a new one unless given."""
        chat_id = chat_id or f"chat-{uuid4()}"
        async with self.working():
            answer = await self.post(chat_id, user("\n".join(f"/tool {call}" for call in calls), f"m-{uuid4()}"))
        said = chunks(answer)
        approvals = [chunk["approvalId"] for chunk in said if chunk["type"] == "tool-approval-request"]
        assert (len(approvals), said[-1]["finishReason"]) == (len(calls), "tool-calls")
        return Asked(self, chat_id, said[0]["messageId"], approvals)

    async def operation(self, operation_id: str) -> Operation:
        operation = await self.doors.operations.read(EVERYONES, OperationId(operation_id))
        assert operation is not None
        return operation

    async def log(self, operation_id: str) -> str:
        """The log of an operation, whose end is waited for."""
        operation = await self.operation(operation_id)
        return dechunked(await ask(self.doors.url, "GET", f"/tasks/{operation.task_id}/stream"))

    async def everything(self) -> Sequence[Operation]:
        return await self.doors.operations.newest(EVERYONES, OperationFilter(), 100, None)


@dataclass(frozen=True)
class Asked:
    """A message that asks a person."""

    place: Place
    chat_id: str
    message_id: str
    approvals: list[str]

    def message(self, *parts: Any) -> dict[str, Any]:
        """As the hook has it: some of its parts are answers."""
        return {"id": self.message_id, "role": "assistant", "parts": [{"type": "step-start"}, *parts]}

    async def answer(self, *parts: Any, until: bytes | None = None) -> Answer:
        return await self.place.post(
            self.chat_id, user("Hi"), self.message(*parts), messageId=self.message_id, until=until
        )


def part(approval_id: Any, approved: Any = True, **more: Any) -> dict[str, Any]:
    """A tool's part that was answered."""
    return {
        "type": "tool-wipe",
        "toolCallId": "call_0",
        "state": "approval-responded",
        "input": {},
        "approval": {"id": approval_id, "approved": approved, **more},
    }


def wipe(then: str) -> str:
    return f"wipe {json.dumps({'then': then})}"


def chunks(answer: Answer) -> list[dict[str, Any]]:
    """What was streamed, which ends as it should."""
    assert_streams(answer)
    *said, done = [line[6:] for line in dechunked(answer).split("\n") if line.startswith("data: ")]
    assert done == "[DONE]"
    return [json.loads(line) for line in said]


def rest(answer: Answer, message_id: str) -> str:
    """What stands behind the start, without heartbeats."""
    assert_streams(answer)
    start = f'data: {{"type":"start","messageId":"{message_id}"}}\n\nretry: 1000\n'
    told = dechunked(answer).replace(": hb\n", "")
    assert told.startswith(start)
    return told.removeprefix(start)


def types(said: list[dict[str, Any]]) -> list[str]:
    return [chunk["type"] for chunk in said]


def from_response(log: str) -> str:
    """A log from the person's answer on."""
    before, frame, rest = log.partition('data: {"type":"tool-approval-response"')
    return before[before.rindex("id: ") :] + frame + rest


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with (
        wiping(tmp_path_factory.mktemp("wiping")) as (wiper, file),
        opened(has_logs=True, heartbeat_seconds=0.1) as doors,
    ):
        yield Place(doors, wiper, read_tools(file))


@pytest_asyncio.fixture(loop_scope="module")
async def asked(place: Place) -> Asked:
    return await place.asked(wipe("/say Wiped."))


# --- what comes of an answer ------------------------------------------------------------------------------------------


async def test_the_message_that_asked_goes_on_behind_a_yes(place: Place, asked: Asked) -> None:
    (approval,) = asked.approvals
    before = len(place.wiped)
    async with place.working():
        answer = await asked.answer(part(approval))
        log = await place.log(approval)
    assert rest(answer, asked.message_id) == from_response(log)
    said = chunks(answer)
    assert [said[1][name] for name in ("type", "approvalId", "approved")] == ["tool-approval-response", approval, True]
    assert types(said).count("start") == 1
    assert [chunk["output"] for chunk in said if chunk["type"] == "tool-output-available"] == ["/say Wiped."]
    assert "".join(chunk["delta"] for chunk in said if chunk["type"] == "text-delta") == "Wiped."
    assert place.wiped[before:] == ["/say Wiped."]
    (kept,) = await place.doors.operations.deliveries(OperationId(approval))
    assert (kept.delivery.door, kept.delivery.by, kept.delivery.id) == ("http", "local", None)


@pytest.mark.parametrize("kind", ["tool-wipe", "dynamic-tool"])
async def test_behind_a_no_nothing_has_run(place: Place, asked: Asked, kind: str) -> None:
    before = len(place.wiped)
    async with place.working():
        answer = await asked.answer(part(asked.approvals[0], False, reason="not now\n/say Then not.") | {"type": kind})
    said = chunks(answer)
    assert said[1] | {"reason": "not now\n/say Then not.", "approved": False} == said[1]
    assert "tool-output-denied" in types(said)
    assert "".join(chunk["delta"] for chunk in said if chunk["type"] == "text-delta") == "Then not."
    assert place.wiped[before:] == []


async def test_two_answers_are_one_stream_with_one_ending(place: Place) -> None:
    asked = await place.asked(wipe("/say One."), wipe("/say Two."))
    async with place.working():
        answer = await asked.answer(*map(part, asked.approvals))
        first, second = [from_response(await place.log(approval)) for approval in asked.approvals]
    without_finish = first[: first.index('data: {"type":"finish",')]
    assert rest(answer, asked.message_id) == without_finish[: without_finish.rindex("id: ")] + second
    assert [types(chunks(answer)).count(each) for each in ("start", "finish")] == [1, 1]


async def test_a_repeat_streams_the_same_again_and_does_nothing(place: Place, asked: Asked) -> None:
    (approval,) = asked.approvals
    before = len(place.wiped)
    async with place.working():
        answers = await asyncio.gather(*(asked.answer(part(approval)) for _ in range(3)))
        answers.append(await asked.answer(part(approval, reason="A yes needs none.")))
        log = from_response(await place.log(approval))
    assert [rest(answer, asked.message_id) for answer in answers] == [log] * 4
    assert len(place.wiped) == before + 1


async def test_of_two_answers_one_may_have_been_given_before(place: Place) -> None:
    asked = await place.asked(wipe("/say One."), wipe("/say Two."))
    one, two = asked.approvals
    async with place.working():
        await asked.answer(part(two))
        said = chunks(await asked.answer(part(one), part(two)))
    # In the order in which it came about.
    assert [chunk["approvalId"] for chunk in said if chunk["type"] == "tool-approval-response"] == [two, one]


async def test_an_earlier_message_can_be_answered(place: Place, asked: Asked) -> None:
    posted = [user("Hi"), asked.message(part(asked.approvals[0])), user("And now?", "m2"), assistant("a9")]
    async with place.working():
        said = chunks(await place.post(asked.chat_id, *posted, messageId=asked.message_id))
    assert (said[0]["messageId"], said[-1]["type"]) == (asked.message_id, "finish")
    assert types(said)[1] == "tool-approval-response"


async def test_a_follow_up_that_waits_for_a_worker_is_waited_for(place: Place, asked: Asked) -> None:
    (approval,) = asked.approvals
    first = await asked.answer(part(approval), until=HEARTBEAT)
    assert b'"start"' in first.body
    assert b"id: " not in first.body
    waiting = asyncio.create_task(asked.answer(part(approval)))
    async with place.working():
        said = chunks(await waiting)
    assert types(said)[:2] == ["start", "tool-approval-response"]


async def test_a_follow_up_that_rests_is_waited_for_behind_what_there_is(place: Place) -> None:
    asked = await place.asked(wipe("/fail validation_error"))
    async with place.working():
        answer = await asked.answer(part(asked.approvals[0]), until=b"tool-output-available")
        assert_streams(answer)
    again = await asked.answer(part(asked.approvals[0]), until=HEARTBEAT)
    assert b"tool-output-available" in again.body
    assert b'"finish"' not in again.body


async def test_who_comes_back_while_the_follow_up_runs_gets_its_own_message_from_the_start(place: Place) -> None:
    asked = await place.asked(wipe("/count 3000 rate=1000"))
    path = f"/api/chat/{asked.chat_id}"
    async with place.working():
        await asked.answer(part(asked.approvals[0]), until=b'"delta"')
        answer = await ask(place.doors.url, "GET", f"{path}/stream", None, until=b'"delta"')
        assert (await ask(place.doors.url, "POST", f"{path}/stop")).status == 204
        said = chunks(await asked.answer(part(asked.approvals[0])))
    operation = await place.operation(asked.approvals[0])
    assert f'"taskId":"{operation.task_id}"'.encode() in answer.body
    assert (types(said)[-2], said[-1]["finishReason"]) == ("abort", "interrupted")


@pytest.mark.parametrize("store", [0, 4], ids=["the logs", "what knows the tasks"])
async def test_an_answer_that_was_taken_is_not_answered_as_if_it_was_not(
    place: Place, asked: Asked, store: int
) -> None:
    logs = place.doors.stores[store]
    logs.error = LogUnavailable()
    try:
        answer = await asked.answer(part(asked.approvals[0]), until=HEARTBEAT)
    finally:
        logs.error = None
    assert answer.status == 200
    assert (await place.operation(asked.approvals[0])).status == "succeeded"


async def test_an_answer_that_could_not_be_taken_is_an_error(place: Place, asked: Asked) -> None:
    operations = place.doors.stores[-1]
    operations.error = DatabaseUnavailable()
    try:
        answer = await asked.answer(part(asked.approvals[0]))
    finally:
        operations.error = None
    assert_said(answer, 503, DatabaseUnavailable().args[0])


# --- what is no answer, or not theirs ---------------------------------------------------------------------------------

MALFORMED: dict[str, tuple[Any, str]] = {
    "no operation's id": (part("op_1"), NO_ID),
    "an id in capitals": (part("01890000-0000-7000-8000-00000000000A"), NO_ID),
    "no approval": ({"type": "tool-wipe", "state": "approval-responded"}, NO_APPROVAL_AT_ALL),
    "an approval of nothing": (part(NOBODYS) | {"approval": None}, NO_APPROVAL_AT_ALL),
    "neither yes nor no": (
        part(NOBODYS, "true"),
        f"{WRONG}.0.approval.approved: This must be true or false.",
    ),
    "an answer without an answer": (
        part(NOBODYS) | {"approval": {"id": NOBODYS}},
        f"{WRONG}.0.approval.approved: This field is needed.",
    ),
    "a reason that is none": (
        part(NOBODYS, False, reason=5),
        f"{WRONG}.0.approval.reason: This must be a string.",
    ),
    "too long a reason": (
        part(NOBODYS, False, reason="x" * 2001),
        f"{WRONG}.0.approval.reason: This takes at most 2000 characters.",
    ),
    "a reason that no store keeps": (
        part(NOBODYS, False, reason="\0"),
        f"{WRONG}.0.approval.reason: This cannot have a NUL character.",
    ),
}


@pytest.mark.parametrize(("wrong", "text"), MALFORMED.values(), ids=MALFORMED)
async def test_what_is_no_answer_is_refused_whole(place: Place, asked: Asked, wrong: Any, text: str) -> None:
    right = part(asked.approvals[0])
    assert_said(await asked.answer(wrong, right), 422, text)
    assert (await place.operation(asked.approvals[0])).status == "pending"


async def test_an_approval_is_answered_once_in_a_message(place: Place, asked: Asked) -> None:
    (approval,) = asked.approvals
    for again in (True, False):
        answer = await asked.answer(part(approval), part(approval, again))
        assert_said(answer, 422, "An approval is answered once in a message.")
    many = await asked.answer(part(approval), *(part(str(uuid4())) for _ in range(100)))
    assert_said(many, 422, f"{WRONG}: This takes at most 100 items.")
    assert (await place.operation(approval)).status == "pending"


async def test_what_is_not_asked_in_this_chat_is_answered_as_if_there_was_nothing(place: Place, asked: Asked) -> None:
    """And nothing beside it is taken, wherever it stands."""
    elsewhere = await place.asked(wipe("/say Elsewhere."))
    anns = await place.doors.begin("wipe", "person", None)
    for other in (elsewhere.approvals[0], anns.id, str(uuid4())):
        for parts in ([part(asked.approvals[0]), part(other)], [part(other, False), part(asked.approvals[0])]):
            assert_said(await asked.answer(*parts), 404, NOWHERE)
    lost = Asked(place, "no-such-chat", asked.message_id, asked.approvals)
    assert_said(await lost.answer(part(asked.approvals[0])), 404, NOWHERE)
    for operation_id in (asked.approvals[0], elsewhere.approvals[0], anns.id):
        assert (await place.operation(operation_id)).deliveries == 0


async def test_a_question_and_work_elsewhere_take_no_yes(place: Place) -> None:
    asked = await place.asked(wipe("/say Wiped."), 'ask {"question": "Tea?"}')
    approval, question = asked.approvals
    for parts in ([part(approval), part(question)], [part(question, False), part(approval)]):
        assert_said(await asked.answer(*parts), 422, NO_APPROVAL)
    async with place.working():
        await place.post(asked.chat_id, user('/tool timer {"seconds": 3600}', "m2"))
    timer = (await place.everything())[0]
    assert_said(await asked.answer(part(approval), part(timer.id)), 422, NO_APPROVAL)
    for operation_id in (approval, question, timer.id):
        assert (await place.operation(operation_id)).deliveries == 0


@pytest.mark.parametrize("first", [True, False])
async def test_the_other_answer_is_conflicting_and_nothing_beside_it_is_taken(place: Place, *, first: bool) -> None:
    asked = await place.asked(wipe("/say One."), wipe("/say Two."))
    one, two = asked.approvals
    await asked.answer(part(two, first), until=HEARTBEAT)
    assert_said(await asked.answer(part(two, not first)), 409, OTHERWISE)
    assert_said(await asked.answer(part(one), part(two, not first)), 409, OTHERWISE)
    assert (await place.operation(one)).deliveries == 0
    kept = await place.doors.operations.deliveries(OperationId(two))
    assert [each.disposition for each in kept] == ["accepted", "conflicting", "conflicting"]


async def test_where_the_chat_was_deleted_there_is_nothing_to_answer(place: Place, asked: Asked) -> None:
    session_id = (await place.operation(asked.approvals[0])).session_id
    waiting = asyncio.create_task(asked.answer(part(asked.approvals[0])))
    await asked.answer(part(asked.approvals[0]), until=HEARTBEAT)
    assert (await ask(place.doors.url, "DELETE", f"/sessions/{session_id}")).status == 204
    async with place.working():
        said = chunks(await waiting)
    assert (types(said)[-2], said[-1]["finishReason"]) == ("abort", "interrupted")
    assert_said(await asked.answer(part(asked.approvals[0])), 404, NOWHERE)


ODD: tuple[Any, ...] = (
    {"type": "tool-wipe", "state": "approval-requested", "approval": {"id": "x"}},
    {"type": "tool-wipe", "state": "output-available", "approval": {"id": 5, "approved": None}, "output": [[]] * 500},
    {"type": "text", "state": "approval-responded", "approval": 5},
    {"type": "toolbox", "state": "approval-responded"},
    {"type": ["tool-wipe"], "state": "approval-responded"},
    {"state": "approval-responded"},
    {"type": "tool-wipe", "state": {"approval-responded": 1}},
    "approval-responded",
    None,
    5,
    {"type": 5, "text": 5},
)


async def test_what_is_no_answer_in_the_message_that_is_named_is_not_looked_at(place: Place, asked: Asked) -> None:
    answered = asked.message(part(asked.approvals[0]))
    elsewhere = answered | {"id": "a0"}
    nothing: list[tuple[list[Any], str]] = [
        ([asked.message(*ODD)], asked.message_id),
        ([asked.message() | {"parts": {"0": part(asked.approvals[0])}}], asked.message_id),
        ([elsewhere, asked.message()], asked.message_id),
        ([elsewhere], asked.message_id),
        ([answered | {"role": "system"}], asked.message_id),
        ([answered | {"role": ["assistant"]}, asked.message()], asked.message_id),
    ]
    for messages, named in nothing:
        said = chunks(await place.post(asked.chat_id, *messages, messageId=named))
        assert [(each["type"], each.get("finishReason")) for each in said] == [
            ("start", None),
            ("finish", "interrupted"),
        ]
        assert said[0]["messageId"] == asked.message_id
    # Nobody says which one is gone on with.
    assert types(chunks(await place.post(asked.chat_id, answered))) == ["start", "finish"]
    assert (await place.operation(asked.approvals[0])).deliveries == 0


async def test_an_answer_is_found_among_whatever_else_there_is(place: Place, asked: Asked) -> None:
    large = {"type": "file", "url": f"data:,{'x' * 1024 * 1024}"}
    odd = part(asked.approvals[0]) | {"text": 5, "toolCallId": None, "input": [[]] * 500}
    async with place.working():
        assert types(chunks(await asked.answer(*ODD, large, odd)))[1] == "tool-approval-response"


# --- how logs are joined ----------------------------------------------------------------------------------------------

RESPONSE = e.ToolApprovalResponse(OperationId("op"), approved=True)
LOG = (e.StartStep(), RESPONSE, e.StartStep(), e.FinishStep(), e.Error("[code:timeout] No."))
"""In which what stands before the answer could be what stands behind it."""


@pytest.mark.parametrize("size", range(1, 6))
async def test_of_a_log_that_is_not_the_last_no_ending_is_told(size: int) -> None:
    """However its events come together."""
    encoded = [encode(each) for each in LOG]

    async def followed() -> AsyncGenerator[Followed]:
        yield Begun(None, None)
        for first in range(0, len(encoded), size):
            frames = framed(1, first + 1, encoded[first : first + size])
            yield Frames(frames, Position(1, min(first + size, len(encoded))))
            yield Heartbeat()
        yield Ended()

    for is_last, told, ends in ((True, encoded[1:], [Ended()]), (False, encoded[1:4], [])):
        items = [item async for item in from_the_answer(followed(), is_last=is_last)]
        events = [event for item in items if isinstance(item, Frames) for event in unframed(item.frames)]
        assert events == [(f"1-{n}".encode(), data) for n, data in enumerate(told, 2)]
        assert [item for item in items if isinstance(item, Ended)] == ends
        assert sum(isinstance(item, Heartbeat) for item in items) == -(-len(encoded) // size)
