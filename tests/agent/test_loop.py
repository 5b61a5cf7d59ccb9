"""A turn of several steps: what tools give, what comes in between the steps, and where it ends."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import orjson
import pytest
import structlog
from pydantic import BaseModel

from service.adapters import memory_messages
from service.adapters.demo_model import DemoModel
from service.agent import loop
from service.agent.asking import MAX_CALLS
from service.agent.cancellation import Cancellation
from service.agent.context import NO_RESULT
from service.agent.ports import Tool
from service.agent.tools import MAX_INPUT_BYTES, MAX_OUTPUT_BYTES, MAX_OUTPUT_CHARACTERS, THINK, TOOLS_AT_ONCE, Toolbox
from service.model import events as e
from service.model.caller import EVERYONES
from service.model.errors import DatabaseUnavailable
from service.model.fold import Part
from service.model.generation import CallEnded, Piece, ReasoningPiece, TextPiece, ToolCallPiece, ToolUse
from service.model.ids import SessionId, TaskId
from service.model.session import MAILBOX_MESSAGES, SessionSettings
from tests.agent.faults import Death, Once, Watched
from tests.agent.house import LAPSED, House, MemoryHouse, Script, die_at, dies, until

STOPPED = CallEnded("stop", e.Usage(1, 1))
ASKED = CallEnded("tool-calls", e.Usage(1, 1))


@pytest.fixture
def memory() -> MemoryHouse:
    return MemoryHouse()


def think(call_id: str = "c1", thought: str = "Hm") -> ToolCallPiece:
    return ToolCallPiece(call_id, "think", f'{{"thought": "{thought}"}}')


class Steps(Script):
    """A model whose calls are scripts of their own, one after another; the last one from then on."""

    def __init__(self, *scripts: tuple[Piece | Callable[[], object] | asyncio.Event | Exception, ...]) -> None:
        super().__init__()
        self._scripts = list(scripts)

    async def stream(self, task_id: TaskId, prompt: Any) -> Any:
        self._steps = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        async for piece in super().stream(task_id, prompt):
            yield piece


class Nothing(BaseModel):
    """No arguments."""


def tool(name: str, run: Callable[[], object]) -> Tool[Nothing]:
    """A tool that does this; what it gives may have to be awaited."""

    async def act(given: Nothing) -> Any:
        result = run()
        return await result if asyncio.iscoroutine(result) else result

    return Tool(name, "", Nothing, act)


def posting(house: House, session_id: SessionId, *texts: str) -> Tool[Nothing]:
    """A tool that posts these messages, in the midst of a step."""

    async def post() -> str:
        for text in texts:
            await house.post(text, session_id)
        return "posted"

    return tool("post", post)


# --- tools ------------------------------------------------------------------------------------------------------------


async def test_a_turn_of_two_steps(house: House) -> None:
    text = '/say Let me see.\n/tool think {"thought": "Hm"}\n/say So'
    task_id = await house.post(text)
    await house.run(await house.claim())
    assert (await house.told(task_id))[3:] == [
        "start-step",
        "text-start p1",
        "text-delta p1: Let me see.",
        "text-end p1",
        "tool-input-start call_1 think",
        'tool-input-delta call_1: {"thought": "Hm"}',
        "tool-input-available call_1 think: {'thought': 'Hm'}",
        "call-ended tool-calls 10+3",
        "tool-output-available call_1: ok",
        "finish-step",
        "start-step",
        "text-start p4",
        "text-delta p4: So",
        "text-end p4",
        "call-ended stop 10+1",
        "finish-step",
        "finish stop, succeeded: So",
    ]
    fold = await house.assert_ended_well(task_id)
    assert (await house.task(task_id)).usage == fold.usage == e.Usage(20, 4)


async def test_the_model_is_given_its_calls_with_their_results_and_so_are_later_turns(memory: MemoryHouse) -> None:
    first = await memory.post("Hi")
    model = Steps((TextPiece("Let me see."), think("a"), think("b", "Ha"), ASKED), (TextPiece("So."), STOPPED))
    await memory.run(await memory.claim(), model)
    await memory.assert_ended_well(first)
    uses = tuple(ToolUse(i, "think", {"thought": t}, "ok") for i, t in (("a", "Hm"), ("b", "Ha")))
    said = [("user", (e.TextPart("Hi"),)), ("assistant", (e.TextPart("Let me see."), *uses))]
    assert [(u.role, u.parts) for u in model.calls[1]] == said
    await memory.post("And?", (await memory.session(first)).entry.id)
    later = Script(STOPPED)
    await memory.run(await memory.claim(), later)
    said += [("assistant", (e.TextPart("So."),)), ("user", (e.TextPart("And?"),))]
    assert [(u.role, u.parts) for u in later.calls[0]] == said
    assert [(d.name, d.schema["required"]) for d in later.prompts[0].tools] == [("think", ["thought"])]


async def test_a_turn_that_has_said_all_that_can_be_kept_makes_one_more_step_without_tools(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MAX_TURN_BYTES", 2000)
    task_id = await house.post("Hi")
    asking = [(TextPiece("x" * 600), think(f"c{n}"), ASKED) for n in range(5)]
    model = Steps(*asking)
    await house.run(await house.claim(), model)
    assert [len(prompt.tools) for prompt in model.prompts] == [1, 1, 1, 0]
    assert (await house.told(task_id))[-1].startswith("finish length, succeeded")
    await house.assert_ended_well(task_id)


REFUSED = {
    "unknown": ("nothing", "{}", "tool-input-error", "unknown_tool"),
    "no JSON": ("think", '{"thought": ', "tool-input-error", "invalid_arguments"),
    "no object": ("think", "[]", "tool-input-error", "invalid_arguments"),
    "nested too deep": ("think", '{"thought": ' + "[" * 500 + "]" * 500 + "}", "tool-input-error", "invalid_arguments"),
    "one level too deep": ("think", "[" * 65 + "]" * 65, "tool-input-error", "invalid_arguments"),
    "too deep for who reads a log": (
        "think",
        '[{"a":' * 125 + "1" + "}]" * 125,
        "tool-input-error",
        "invalid_arguments",
    ),
    "too deep for a message": ("think", "[" * 253 + "]" * 253, "tool-input-error", "invalid_arguments"),
    "too deep for an event": ("think", "[" * 254 + "]" * 254, "tool-input-error", "invalid_arguments"),
    "half a surrogate pair": ("think", r'{"thought": "\ud83d"}', "tool-input-error", "invalid_arguments"),
    "missing": ("think", "", "tool-input-error", "invalid_arguments"),
    "too much": ("think", '{"thought": 1}', "tool-input-error", "invalid_arguments"),
    "too large": ("think", "x" * (MAX_INPUT_BYTES + 1), "tool-input-error", "arguments_too_large"),
    "grows": ("think", f"[{'1e15,' * 26_000}1]", "tool-input-error", "arguments_too_large"),
    "breaks": ("break", "{}", "tool-output-error", "tool_failed"),
    "no JSON comes out": ("odd", "{}", "tool-output-error", "tool_failed"),
    "takes too long": ("slow", "{}", "tool-output-error", "timeout"),
    "what comes out is nested too deep": ("deep", "{}", "tool-output-error", "output_too_large"),
    "a name that is none": ("\n/" * 100, "{}", "tool-input-error", "unknown_tool"),
}


def _break() -> None:
    raise RuntimeError("secret")


@pytest.mark.parametrize(("name", "arguments", "told", "error_type"), REFUSED.values(), ids=REFUSED.keys())
async def test_whatever_is_asked_for_has_one_result_and_the_turn_goes_on(
    memory: MemoryHouse, name: str, arguments: str, told: str, error_type: str
) -> None:
    memory.tools = Toolbox(
        [
            THINK,
            tool("break", _break),
            tool("odd", object),
            replace(tool("slow", asyncio.Event().wait), deadline_seconds=0.01),
            tool("deep", lambda: orjson.loads("[" * 253 + "]" * 253)),
        ]
    )
    task_id = await memory.post("Hi")
    call = ToolCallPiece("c1", name, arguments)
    model = Steps((call, think("c2"), ASKED), (TextPiece("Well."), STOPPED))
    with structlog.testing.capture_logs() as logs:
        await memory.run(await memory.claim(), model)
    await memory.assert_ended_well(task_id)
    lines = await memory.told(task_id)
    assert [line for line in lines if line.startswith(f"{told} c1: [code:{error_type}] ")]
    assert "tool-output-available c2: ok" in lines
    assert "secret" not in "".join(lines)
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["tool_crashed"] * (
        error_type == "tool_failed"
    )
    ((_, step),) = [model.calls[1]]
    assert [(use.call_id, str(use.output)[:5]) for use in step.parts if isinstance(use, ToolUse)] == [
        ("c1", "[code"),
        ("c2", "ok"),
    ]


LONG = {
    "text": "a" + "x" * MAX_OUTPUT_CHARACTERS + "z",
    "what takes six bytes a character": "a" + "\x01" * 99_000 + "z",
    "what takes three": "a" + "\u20ac" * 99_000 + "z",
    "structure": {"a": ["x" * 1000] * 300, "z": 1},
}


@pytest.mark.parametrize("output", LONG.values(), ids=LONG.keys())
async def test_of_a_long_output_there_are_head_and_tail_and_it_says_so(memory: MemoryHouse, output: e.Json) -> None:
    memory.tools = Toolbox([tool("much", lambda: output)])
    task_id = await memory.post("Hi")
    model = Steps((ToolCallPiece("c1", "much", "{}"), ASKED), (STOPPED,))
    await memory.run(await memory.claim(), model)
    await memory.assert_ended_well(task_id)
    (told,) = [chunk for chunk in await memory.log(task_id) if isinstance(chunk, e.ToolOutputAvailable)]
    assert told.truncated
    whole = output if isinstance(output, str) else orjson.dumps(output).decode()
    head, notice, tail = re.split(r"\n(\[[0-9]+ characters are left out\.\])\n", told.output)
    assert whole.startswith(head)
    assert whole.endswith(tail)
    assert notice == f"[{len(whole) - len(head) - len(tail)} characters are left out.]"
    assert MAX_OUTPUT_BYTES / 16 < len(orjson.dumps(told.output)) <= MAX_OUTPUT_BYTES
    assert len(told.output) <= MAX_OUTPUT_CHARACTERS + 100
    ((_, step),) = [model.calls[1]]
    assert [use.output for use in step.parts if isinstance(use, ToolUse)] == [told.output]


async def test_tools_run_side_by_side_so_many_at_once_and_each_result_is_told_as_it_comes(memory: MemoryHouse) -> None:
    running, most, release = 0, 0, [asyncio.Event() for _ in range(TOOLS_AT_ONCE + 2)]
    begun = asyncio.Event()

    class Number(BaseModel):
        n: int

    async def wait(given: Number) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == TOOLS_AT_ONCE:
            begun.set()
        await release[given.n].wait()
        running -= 1
        return given.n

    memory.tools = Toolbox([Tool("wait", "", Number, wait)])
    task_id = await memory.post("Hi")
    calls = [ToolCallPiece(f"c{n}", "wait", f'{{"n": {n}}}') for n in range(len(release))]
    claim = await memory.claim()
    async with memory.turns(Steps((*calls, ASKED), (STOPPED,))) as turns, asyncio.TaskGroup() as tasks:
        tasks.create_task(turns.run(claim, memory.retake, Cancellation()))
        await begun.wait()
        first = TOOLS_AT_ONCE - 1
        release[first].set()
        await until(lambda: memory.told(task_id), lambda lines: lines[-1] == f"tool-output-available c{first}: {first}")
        for each in release:
            each.set()
    fold = await memory.assert_ended_well(task_id)
    assert [part["output"] for part in fold.parts if part["type"] == "tool-wait"] == list(range(len(release)))
    assert most == TOOLS_AT_ONCE


async def test_a_turn_that_is_cancelled_ends_its_tools_before_itself(memory: MemoryHouse) -> None:
    ended: list[str] = []
    begun = asyncio.Event()

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("tool")

    memory.tools = Toolbox([tool("hang", hang)])
    task_id = await memory.post("Hi")
    cancellation = Cancellation()
    claim = await memory.claim()
    async with memory.turns(Steps((ToolCallPiece("c1", "hang", "{}"), ASKED), (STOPPED,))) as turns:
        work = asyncio.create_task(turns.run(claim, memory.retake, cancellation))
        await begun.wait()
        cancellation.request()
        await work
        ended.append("turn")
    assert ended == ["tool", "turn"]
    assert (await memory.told(task_id))[-1].startswith("finish interrupted, cancelled")


@pytest.mark.parametrize("ids", [("c1", "c1"), ("", ""), ("c 1", "é" * 30), ("call_1", "call_1")])
async def test_pitfall_46_calls_of_one_turn_have_ids_of_their_own(memory: MemoryHouse, ids: tuple[str, str]) -> None:
    task_id = await memory.post("Hi")
    await memory.run(await memory.claim(), Steps((think(ids[0]), ASKED), (think(ids[1]), ASKED), (STOPPED,)))
    fold = await memory.assert_ended_well(task_id)
    calls = [part["toolCallId"] for part in fold.parts if part["type"] == "tool-think"]
    assert len(set(calls)) == 2
    assert all(calls)


async def test_arguments_may_come_piece_by_piece_and_mixed(memory: MemoryHouse) -> None:
    task_id = await memory.post("Hi")
    whole = [think("a", "one"), think("b", "two")]
    pieces = [replace(each, arguments=each.arguments[i : i + 5]) for i in range(0, 20, 5) for each in whole]
    await memory.run(await memory.claim(), Steps((TextPiece("So:"), *pieces, ASKED), (STOPPED,)))
    fold = await memory.assert_ended_well(task_id)
    inputs = [part["input"] for part in fold.parts if part["type"] == "tool-think"]
    assert inputs == [{"thought": "one"}, {"thought": "two"}]


async def test_a_model_that_asks_for_very_much_at_once_is_ended(memory: MemoryHouse) -> None:
    task_id = await memory.post("Hi")
    calls = (think(f"c{n}") for n in count())
    await memory.run(await memory.claim(), Steps(tuple(next(calls) for _ in range(MAX_CALLS + 9)), (STOPPED,)))
    fold = await memory.assert_ended_well(task_id)
    assert sum(part["type"] == "tool-think" for part in fold.parts) == MAX_CALLS


async def test_how_the_session_is_set_reaches_the_model(memory: MemoryHouse) -> None:
    session = await memory.sessions.create(None, SessionSettings(model="other", system_prompt="Be brief."))
    await memory.post("Hi", session.id)
    model = Script(STOPPED)
    await memory.run(await memory.claim(), model)
    assert (model.prompts[0].model, model.prompts[0].system) == ("other", "Be brief.")


# --- what comes in between --------------------------------------------------------------------------------------------


async def test_what_is_posted_amid_a_step_comes_in_before_the_next(house: House) -> None:
    session = await house.sessions.create(None)
    house.tools = Toolbox([THINK, posting(house, session.id, "/say one", "/tool think {}", "/say two")])
    task_id = await house.post("/tool post\n/say zero", session.id)
    await house.run(await house.claim())
    lines = [line.partition(" call_")[0] for line in await house.told(task_id)]
    assert [line for line in lines if line.partition("-")[0] not in ("text", "tool", "call")][3:] == [
        "start-step",
        "finish-step",
        *(f"steering-message: {text}" for text in ("/say one", "/tool think {}", "/say two")),
        "start-step",
        "finish-step",
        "start-step",
        "finish-step",
        "finish stop, succeeded: two",
    ]
    await house.assert_ended_well(task_id)
    assert [m.role for m in (await house.session(task_id)).messages] == ["user"] * 4 + ["assistant"]
    assert (await house.session(task_id)).pending == ()
    assert await house.queue.claim(1, 1) == []


async def test_the_model_is_given_what_came_in_where_it_came(memory: MemoryHouse) -> None:
    session = await memory.sessions.create(None)
    memory.tools = Toolbox([posting(memory, session.id, "one", "two")])
    task_id = await memory.post("Hi", session.id)
    ask = ToolCallPiece("a", "post", "")
    model = Steps((ask, ASKED), (TextPiece("More."), ask, ASKED), (STOPPED,))
    await memory.run(await memory.claim(), model)
    await memory.assert_ended_well(task_id)
    seen = [getattr(u.parts[0], "text", "tool") for u in model.calls[2]]
    assert seen == ["Hi", "tool", "one", "two", "More.", "one", "two"]


async def test_nothing_comes_in_where_no_step_follows(memory: MemoryHouse) -> None:
    session = await memory.sessions.create(None)
    task_id = await memory.post("Hi", session.id)
    claim = await memory.claim()
    await memory.post("And?", session.id)
    await memory.run(claim, Script(TextPiece("So."), STOPPED))
    await memory_ended(memory, task_id)
    (following,) = await memory.queue.claim(9, 60)
    assert (await memory.conversation(task_id)) == ["user: Hi", "assistant: So.", "user: And?"]
    assert following.task.id != task_id


async def memory_ended(house: House, task_id: TaskId) -> None:
    """Its log has ended, whatever else its session does."""
    assert (await house.log(task_id))[-1].type == "finish"


# --- where it ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, None])
async def test_who_asks_for_ever_is_asked_once_more_without_tools(memory: MemoryHouse, limit: int | None) -> None:
    session = await memory.sessions.create(None, SessionSettings(max_iterations=limit))
    task_id = await memory.post("Hi", session.id)
    model = Steps((TextPiece("More."), think(), ASKED))
    await memory.run(await memory.claim(), model)
    steps = limit or 25
    assert [bool(prompt.tools) for prompt in model.prompts] == [True] * steps + [False]
    lines = await memory.told(task_id)
    assert [line for line in lines if "limit" in line] == ["data-iteration-limit"]
    assert lines[-1] == "finish stop, succeeded: More."
    await memory.assert_ended_well(task_id)


@pytest.mark.parametrize("text", ["/tool wait", "/say So\n/wait 3600", "/wait 3600"])
async def test_a_turn_that_takes_longer_than_it_may_has_failed(memory: MemoryHouse, text: str) -> None:
    session = await memory.sessions.create(None, SessionSettings(max_seconds=0.02))
    memory.tools = Toolbox([tool("wait", asyncio.Event().wait)])
    task_id = await memory.post(text, session.id)
    await memory.run(await memory.claim())
    await memory.assert_ended_well(task_id)
    task = await memory.task(task_id)
    assert (task.status, task.error_type) == ("failed", "timeout")
    assert bool(await memory.conversation(task_id)) is (text != "/wait 3600")  # of which nothing was said


async def test_whoever_takes_over_has_the_seconds_that_are_left(memory: MemoryHouse) -> None:
    session = await memory.sessions.create(None, SessionSettings(max_seconds=60))
    task_id = await memory.post("/tool think {}\n/say So", session.id)
    await die_at(memory, "promote", is_behind=True)
    claim = await memory.claim()
    began = claim.task.started_at
    assert began is not None
    late = replace(claim, task=replace(claim.task, started_at=began - timedelta(seconds=60)))
    await memory.run(late)
    assert (await memory.task(task_id)).error_type == "timeout"


async def test_a_cancellation_amid_a_tool_gives_its_call_a_result(memory: MemoryHouse) -> None:
    cancellation = Cancellation()

    async def wait() -> None:
        cancellation.request()
        await asyncio.Event().wait()

    memory.tools = Toolbox([tool("wait", wait)])
    task_id = await memory.post("/tool wait\n/say never")
    async with memory.turns() as turns:
        await turns.run(await memory.claim(), memory.retake, cancellation)
    assert (await memory.told(task_id))[-4:] == [
        "tool-output-error call_0: [code:cancelled] Cancelled.",
        "finish-step",
        "abort cancelled by owner",
        "finish interrupted, cancelled: ",
    ]
    await memory.assert_ended_well(task_id)


async def test_a_cancellation_is_seen_between_two_steps_and_leaves_the_mailbox_as_it_is(memory: MemoryHouse) -> None:
    session, cancellation = await memory.sessions.create(None), Cancellation()
    memory.tools = Toolbox([posting(memory, session.id, "later"), tool("cancel", cancellation.request)])
    task_id = await memory.post("/tool post\n/tool cancel\n/say never", session.id)
    async with memory.turns() as turns:
        await turns.run(await memory.claim(), memory.retake, cancellation)
    assert (await memory.task(task_id)).status == "cancelled"
    assert (await memory.conversation(task_id))[-1] == "user: later"
    (following,) = await memory.queue.claim(9, 60)
    assert following.task.id != task_id


async def test_pitfall_45_calls_that_were_cut_off_have_results_for_later_turns(memory: MemoryHouse) -> None:
    task_id = await memory.post("Hi")
    half = ToolCallPiece("c2", "think", '{"thou')
    await memory.run(await memory.claim(), Steps((think("c1"), half, RuntimeError("secret"))))
    assert (await memory.task(task_id)).status == "failed"
    await memory.assert_ended_well(task_id)
    lines = await memory.told(task_id)
    assert [line for line in lines if "output-error" in line] == [
        f"tool-output-error {c}: {NO_RESULT}" for c in ("c1", "c2")
    ]
    await memory.post("And?", (await memory.session(task_id)).entry.id)
    later = Script(STOPPED)
    await memory.run(await memory.claim(), later)
    assert [u.role for u in later.calls[0]] == ["user", "user"]


# --- another holder goes on -------------------------------------------------------------------------------------------


WAITING = ["/tool think {}\n/say m1", *(f"/say m{n}" for n in range(2, MAILBOX_MESSAGES + 1))]
"""A full mailbox; whoever begins a turn with its first message takes in all others."""

CALLS = {"open", "append", "promote", "end", "finish", "close"}


async def texts_in_logs(house: House, session_id: SessionId) -> list[str]:
    """What the logs of a session tell that was said to it, in their order."""
    said = []
    for task in await house.tasks.of_session(EVERYONES, session_id, 100, 0) or ():
        await house.assert_ended_well(task.id)
        told = [line.partition(": ") for line in await house.told(task.id)]
        said += [text for kind, _, text in told if kind in ("data-input", "steering-message")]
    return said


@pytest.mark.parametrize("is_behind", [False, True], ids=["in front", "behind"])
@pytest.mark.parametrize(
    ("text", "before"),
    [
        *(("/tool think {}\n/say a\n/tool think {}\n/say b", before) for before in (None, "append", "promote", "end")),
        *(("/say a", before) for before in (None, "append", "end")),
    ],
)
async def test_pitfall_42_wherever_a_holder_dies_what_waited_is_told_once_and_in_its_order(
    text: str, before: str | None, is_behind: bool
) -> None:
    """Every call that a turn makes to either store while its mailbox is full, enumerated.

    The holder that dies is the first, or the second after one that died behind its first call of `before`.
    """
    seen: set[str] = set()
    for at in range(100):
        house = MemoryHouse()
        session = await house.sessions.create(None)
        await house.post(text, session.id)
        for waiting in WAITING:
            await house.post(waiting, session.id)
        if before is not None:
            await die_at(house, before, is_behind=True)
        death = Death(at=at, is_behind=is_behind)
        claim, *next_turn = sorted(await house.queue.claim(2, LAPSED), key=lambda each: each.task.number)
        await house.queue.renew(next_turn, 0)
        if not await dies(house, claim, death, None):
            break
        seen.add(death.calls[at])
        while claims := await house.queue.claim(1, 60):
            await house.run(claims[0])
        assert await texts_in_logs(house, session.id) == [text, *WAITING], death.calls
        now = await house.sessions.read(EVERYONES, session.id)
        assert now is not None
        assert [m.parts[0]["text"] for m in now.messages if m.role == "user"] == [text, *WAITING]
        assert now.pending == ()
        assert not now.entry.busy
    expected = CALLS | ({"read", "steps"} if before else set())
    expected -= {"end", "append", "promote", "steps"} if before == "end" else set()
    assert seen == expected - (set() if "/tool" in text else {"promote"})


async def test_a_call_that_had_ended_is_not_made_again_and_its_results_are_found(memory: MemoryHouse) -> None:
    task_id = await memory.post("Hi")
    first = Steps((think("c1"), think("c2"), ASKED), (STOPPED,))
    await die_at(memory, "promote", is_behind=False, model=first)
    second = Script(TextPiece("So."), STOPPED)
    await memory.run(await memory.claim(), second)
    assert len(second.calls) == 1
    fold = await memory.assert_ended_well(task_id)
    assert [part["output"] for part in fold.parts if part["type"] == "tool-think"] == ["ok", "ok"]


async def test_whoever_takes_over_knows_what_was_asked_however_much_came_in_behind_it(
    memory: MemoryHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await memory.sessions.create(None)
    memory.tools = Toolbox([posting(memory, session.id, "And this")])
    task_id = await memory.post("Hi", session.id)
    asks = ToolCallPiece("c1", "post", "{}")
    claim = await memory.claim(LAPSED)
    async with memory.turns(Steps((asks, ASKED), (asyncio.Event(),))) as turns, asyncio.TaskGroup() as tasks:
        work = tasks.create_task(turns.run(claim, memory.retake, Cancellation()))
        await until(lambda: memory.told(task_id), lambda lines: lines[-2:-1] == ["steering-message: And this"])
        work.cancel()
    monkeypatch.setattr(memory_messages, "HISTORY_BYTES", 1)  # the newest message alone
    model = Script(STOPPED)
    await memory.run(await memory.claim(), model)
    said = [(u.role, u.parts) for u in model.calls[0]]
    uses = (ToolUse("c1", "post", {}, "posted"),)
    assert said == [("user", (e.TextPart("Hi"),)), ("assistant", uses), ("user", (e.TextPart("And this"),))]
    await memory.assert_ended_well(task_id)


@pytest.mark.parametrize("is_repeatable", [True, False])
async def test_whoever_takes_over_amid_the_tools_runs_those_without_results_that_may_run_again(
    memory: MemoryHouse, is_repeatable: bool
) -> None:
    runs: list[str] = []
    hold = asyncio.Event()
    both = tool("one", lambda: runs.append("one")), tool("two", lambda: runs.append("two") or hold.wait())
    memory.tools = Toolbox([replace(each, is_repeatable=is_repeatable) for each in both])
    task_id = await memory.post("/tool one\n/tool two\n/say So")
    claim = await memory.claim(LAPSED)
    async with memory.turns() as turns, asyncio.TaskGroup() as tasks:
        work = tasks.create_task(turns.run(claim, memory.retake, Cancellation()))
        await until(lambda: memory.told(task_id), lambda lines: lines[-1:] == ["tool-output-available call_0: None"])
        work.cancel()
    hold.set()
    await memory.run(await memory.claim())
    assert runs == ["one", "two", *(["two"] if is_repeatable else [])]
    lines = await memory.told(task_id)
    assert (f"tool-output-error call_1: {NO_RESULT}" in lines) is not is_repeatable
    assert "reset-step" not in lines
    assert lines[-1] == "finish stop, succeeded: So"
    await memory.assert_ended_well(task_id)


@pytest.mark.parametrize("is_behind", [False, True], ids=["in front", "behind"])
async def test_pitfall_45_wherever_a_holder_dies_a_tool_that_must_not_run_twice_has_one_result_and_ran_once_at_most(
    is_behind: bool,
) -> None:
    """Every call that the turn makes to either store, enumerated: S2, S3 and S4 among them."""
    seen, ran = set[str](), set[int]()
    for at in range(100):
        house, runs = MemoryHouse(), list[str]()
        house.tools = Toolbox([tool("pay", lambda runs=runs: runs.append("paid") or "paid")])
        task_id = await house.post("/tool pay\n/say So")
        death = Death(at=at, is_behind=is_behind)
        if not await dies(house, await house.claim(LAPSED), death, None):
            break
        seen.add(death.calls[at])
        while claims := await house.queue.claim(1, 60):
            await house.run(claims[0])
        fold = await house.assert_ended_well(task_id)
        results = [part["state"] for part in fold.parts if part["type"] == "tool-pay"]
        assert results in (["output-available"], ["output-error"]), death.calls
        assert len(runs) == 1 or (runs, results) == ([], ["output-error"]), death.calls
        ran.add(len(runs))
    assert seen == CALLS | {"begin_call"}
    assert ran == ({0, 1} if is_behind else {1})


@pytest.mark.parametrize("keep", range(18))
async def test_what_came_in_is_told_again_where_its_log_was_lost(keep: int) -> None:
    """The conversation has it; so it has a place in what the log says then, whatever is left of it."""
    house = MemoryHouse()
    session = await house.sessions.create(None)
    house.tools = Toolbox([posting(house, session.id, "/say one")])
    task_id = await house.post("/tool post\n/say zero", session.id)
    await die_at(house, "end", is_behind=False)
    house.logs.lose(task_id, keep)  # type: ignore[attr-defined]
    house.tools = Toolbox([THINK])
    await house.run(await house.claim(), Script(TextPiece("So."), STOPPED))
    lines = await house.told(task_id)
    assert lines.count("steering-message: /say one") == 1
    assert (await house.conversation(task_id))[:2] == ["user: /tool post\n/say zero", "user: /say one"]
    assert (await house.task(task_id)).status == "succeeded"


async def test_an_input_whose_turn_took_more_in_is_not_given_back(memory: MemoryHouse) -> None:
    session = await memory.sessions.create(None)
    memory.tools = Toolbox([posting(memory, session.id, "/say one")])
    task_id = await memory.post("/tool post\n/say zero", session.id)
    await die_at(memory, "end", is_behind=False)
    memory.logs.lose(task_id, 0)  # type: ignore[attr-defined]
    await memory.run(await memory.claim(), Script(RuntimeError("secret")))
    assert (await memory.task(task_id)).status == "failed"
    assert [line.partition(":")[0] for line in (await memory.conversation(task_id))[:2]] == ["user", "user"]


async def test_a_mailbox_that_cannot_be_asked_for_a_moment_changes_nothing(memory: MemoryHouse) -> None:
    for is_behind in (False, True):
        session = await memory.sessions.create(None)
        memory.tools = Toolbox([posting(memory, session.id, "/say one")])
        task_id = await memory.post("/tool post\n/say zero", session.id)

        def away() -> None:
            raise DatabaseUnavailable

        fault = Once(verb="promote", act=away, is_behind=is_behind)
        await memory.run(await memory.claim(), DemoModel(), step_store=Watched(memory.step_store, fault))
        assert fault.done
        assert (await memory.told(task_id)).count("steering-message: /say one") == 1
        await memory.assert_ended_well(task_id)


async def _amid_its_third_step(house: House, runs: list[str]) -> TaskId:
    """A turn whose holder is gone, after two steps with a message behind each: all parts that a step may have."""
    session = await house.sessions.create(None)

    async def note(given: Nothing) -> str:
        runs.append("note")
        await house.post(f"message {len(runs)}", session.id)
        return "noted"

    house.tools = Toolbox([THINK, Tool("note", "", Nothing, note)])
    task_id = await house.post("Hi", session.id)
    model = Steps(
        (ReasoningPiece("Hm"), TextPiece("Let me see."), think("c1"), ToolCallPiece("c2", "note", "{}"), ASKED),
        (TextPiece("More."), ToolCallPiece("c3", "no such", "{}"), ToolCallPiece("c4", "note", "{}"), ASKED),
        (TextPiece("So"), asyncio.Event()),
    )
    claim = await house.claim(LAPSED)
    async with house.turns(model) as turns, asyncio.TaskGroup() as tasks:
        work = tasks.create_task(turns.run(claim, house.retake, Cancellation()))
        await until(lambda: house.told(task_id), lambda lines: bool(lines) and lines[-1].endswith(": So"))
        work.cancel()
    return task_id


async def test_pitfall_69_of_steps_that_were_done_nothing_is_asked_or_run_again_wherever_the_log_was_cut() -> None:
    """A store that came back without its tail, or empty: what the database kept of each step is told again."""
    whole, runs = MemoryHouse(), list[str]()
    cuts = len(await whole.log(await _amid_its_third_step(whole, runs)))
    assert len(runs) == 2
    for keep in range(cuts + 1):
        house, runs = MemoryHouse(), []
        task_id = await _amid_its_third_step(house, runs)
        house.logs.lose(task_id, keep)  # type: ignore[attr-defined]
        if keep == 0:
            house.logs.forget(task_id)  # type: ignore[attr-defined]
        model = Script(TextPiece("So there."), STOPPED)
        await house.run(await house.claim(), model)
        fold = await house.assert_ended_well(task_id)
        assert (len(model.calls), len(runs)) == (1, 2), keep
        assert [_short(part) for part in fold.parts] == [
            *("step-start", "Hm", "Let me see.", "think output-available", "note output-available"),
            *("step-start", "More.", "no_such output-error", "note output-available"),
            *("step-start", "So there."),
        ]
        assert [(each.message.parts[0], each.place) for each in fold.promoted] == [
            (e.TextPart("message 1"), 5),
            (e.TextPart("message 2"), 9),
        ]


def _short(part: Part) -> str:
    kind: str = part["type"]
    return str(part.get("text") or f"{kind.removeprefix('tool-')} {part.get('state', '')}".strip())


async def test_a_turn_goes_on_by_itself_where_its_store_is_emptied_between_two_steps(memory: MemoryHouse) -> None:
    task_id = await memory.post("Hi")
    model = Steps(
        (TextPiece("Let me see."), think("c1"), ASKED),
        (lambda: memory.logs.forget(task_id), TextPiece("So"), STOPPED),  # type: ignore[attr-defined]
        (TextPiece("So."), STOPPED),
    )
    await memory.run(await memory.claim(), model)
    fold = await memory.assert_ended_well(task_id)
    assert [_short(part) for part in fold.parts] == [
        *("step-start", "Let me see.", "think output-available", "step-start", "So.")
    ]
    assert len(model.calls) == 3
