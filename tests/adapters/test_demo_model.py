"""The demo model: what it is told, it does."""

import asyncio
from collections.abc import Sequence

import pytest

from service.adapters.demo_model import MAX_REMEMBERED_FAILURES, DemoModel
from service.agent.ports import Model
from service.model.events import FilePart, TextPart, Usage
from service.model.failures import ModelCallFailed
from service.model.generation import (
    CallEnded,
    Piece,
    Prompt,
    ReasoningPiece,
    TextPiece,
    ToolCallPiece,
    ToolDescription,
    Utterance,
)
from service.model.ids import TaskId

TASK = TaskId("01890000-0000-7000-8000-000000000000")
OTHER_TASK = TaskId("01890000-0000-7000-8000-000000000001")


class Timeline:
    """A clock that only sleeping moves on; it oversleeps by `late` seconds. Lets others run, as a real sleep does."""

    def __init__(self, *, late: float = 0) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self._late = late

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds + (self._late if seconds > 0 else 0)
        await asyncio.sleep(0)


def demo(timeline: Timeline | None = None) -> DemoModel:
    timeline = timeline or Timeline()
    return DemoModel(sleep=timeline.sleep, clock=timeline.clock)


def user(text: str) -> Utterance:
    return Utterance("user", (TextPart(text),))


def asked(*texts: str) -> Prompt:
    return Prompt(tuple(map(user, texts)), tools=(ToolDescription("think", "", {}),))


async def ask(model: Model, text: str, task: TaskId = TASK) -> list[Piece]:
    return [piece async for piece in model.stream(task, asked(text))]


def words(pieces: Sequence[Piece]) -> list[str]:
    return [piece.text for piece in pieces if isinstance(piece, TextPiece)]


async def outcome(model: Model, text: str, task: TaskId = TASK) -> str:
    try:
        return "".join(words(await ask(model, text, task)))
    except ModelCallFailed as failure:
        return f"failed: {failure.error_type}"


TOLD: dict[str, list[Piece]] = {
    "/say hello  big world": [TextPiece("hello  "), TextPiece("big "), TextPiece("world")],
    "/say\thello\r\nnot for me\n /say indented\n/wait 0": [TextPiece("hello")],
    "/say a\n/say b": [TextPiece("a"), TextPiece("\n"), TextPiece("b")],
    "/reason a b\n/say c": [ReasoningPiece("a "), ReasoningPiece("b"), TextPiece("c")],
    "/say a\n/reason b\n/reason c\n/say d": [
        TextPiece("a"),
        ReasoningPiece("b"),
        ReasoningPiece("\n"),
        ReasoningPiece("c"),
        TextPiece("d"),
    ],
    "/count 3": [TextPiece("1 "), TextPiece("2 "), TextPiece("3 ")],
    "/count 3 size=4 rate=0.5": [TextPiece("1.. "), TextPiece("2.. "), TextPiece("3.. ")],
    "/say half \ud83d": [TextPiece("half "), TextPiece("\ufffd")],
    "/wait 1": [],
}


@pytest.mark.parametrize("told", TOLD)
async def test_acts_are_done_in_their_order(told: str) -> None:
    *said, end = await ask(demo(), told)
    assert said == TOLD[told]
    assert isinstance(end, CallEnded)


async def test_the_same_input_gives_the_same_pieces_and_usage() -> None:
    told = "/say one two\n/count 3\n/reason hm"
    first = await ask(demo(), told)
    assert first == await ask(demo(), told)
    assert first[-1] == CallEnded("stop", Usage(7, 6))


async def test_it_reads_what_this_turn_answers_alone() -> None:
    picture = FilePart("image/png", "https://example.org/x.png")
    earlier = (user("/say old"), Utterance("assistant", (TextPart("/say mine"),)))
    prompt = Prompt((Utterance("user", (TextPart("/say new"), picture)),), earlier)
    assert words([piece async for piece in demo().stream(TASK, prompt)]) == ["new"]


def step(*texts: str) -> Utterance:
    """A step that was made before, whatever came of it."""
    return Utterance("assistant", tuple(map(TextPart, texts)))


ASKS = ToolCallPiece("call_1", "think", '{"thought": "a b"}')
TOOLS = '/say a\n/tool think  {"thought": "a b"}\n/tool other\n/say b\n/say c\n/tool think [\n/tool think {}'


async def steps(*turn: Utterance, tools: bool = True) -> list[Piece]:
    given = (ToolDescription("think", "", {}),) if tools else ()
    return [piece async for piece in demo().stream(TASK, Prompt(turn, tools=given))]


async def test_neighbouring_tools_are_one_step_and_what_follows_is_the_next() -> None:
    assert await steps(user(TOOLS)) == [
        TextPiece("a"),
        ASKS,
        ToolCallPiece("call_2", "other", "{}"),
        CallEnded("tool-calls", Usage(19, 1)),
    ]
    assert (await steps(user(TOOLS), step()))[:-1] == [
        TextPiece("b"),
        TextPiece("\n"),
        TextPiece("c"),
        ToolCallPiece("call_5", "think", "["),
        ToolCallPiece("call_6", "think", "{}"),
    ]
    assert await steps(user(TOOLS), step(), step()) == [CallEnded("stop", Usage(19, 0))]


async def test_what_comes_in_between_steps_is_done_behind_the_rest() -> None:
    told = user("/tool think {}\n/say a")
    assert words(await steps(told, step(), user("/say b"), user("Hm")))[:3] == ["a", "\n", "b"]
    more = user("/say b\n/tool think 1")
    assert (await steps(told, step(), more, user("/say c")))[-2] == ToolCallPiece("call_3", "think", "1")
    assert words(await steps(told, step(), more, step(), user("/say c"))) == ["c"]


async def test_without_tools_all_that_is_left_is_said() -> None:
    said = "".join(words(await steps(user(TOOLS), step(), tools=False)))
    assert said == "b\nc\n" + "\n".join(["I have no tools now, so I did not ask for think."] * 2)


async def test_without_acts_it_says_what_it_is_and_repeats_the_input() -> None:
    pieces = words(await ask(demo(), "Is it\nraining?"))
    said = "".join(pieces)
    assert "demo model" in said
    assert "no AI" in said
    for act in ("/say", "/count", "/reason", "/wait", "/fail"):
        assert act in said
    assert said.endswith("You said: Is it\nraining?")
    assert max(len(piece.split()) for piece in pieces) == 1


@pytest.mark.parametrize("turn", [(), (Utterance("user", ()),)])
async def test_no_input_is_answered_too(turn: tuple[Utterance, ...]) -> None:
    pieces = [piece async for piece in demo().stream(TASK, Prompt(turn))]
    assert "nothing that I can read" in "".join(words(pieces))


@pytest.mark.parametrize(
    ("told", "because"),
    [
        ("/dance", "do not know /dance"),
        ("/", "do not know /"),
        ("/say", "no text"),
        ("/reason  ", "no text"),
        ("/count", "whole number from 1 to 1000000"),
        ("/count many", "whole number"),
        ("/count 0", "whole number"),
        ("/count 1000001", "whole number"),
        ("/count 1.5", "whole number"),
        ("/count ٣", "whole number"),
        ("/count 3 rate=0", "the rate"),
        ("/count 3 rate=nan", "the rate"),
        ("/count 3 rate=-1", "the rate"),
        ("/count 3 size=65537", "the size"),
        ("/count 100 size=3", "from 4 to 65536"),
        ("/count 3 speed=2", "speed=2 does not belong"),
        ("/count 3 rate=1 rate=2", "rate=2 does not belong"),
        ("/wait", "the seconds"),
        ("/wait 3601", "from 0 to 3600"),
        ("/wait inf", "the seconds"),
        ("/wait -1", "the seconds"),
        ("/fail", "an error type"),
        ("/fail Timeout", "an error type"),
        (f"/fail {'x' * 65}", "an error type"),
        ("/fail timeout\u2028times=0", "the number of times"),
        ("/fail timeout times=0", "the number of times"),
        ("/fail timeout twice", "twice does not belong"),
        ("/tool\r", "there is no text"),
    ],
)
async def test_what_it_cannot_do_is_answered_in_words(told: str, because: str) -> None:
    said = await outcome(demo(), f"{told}\n/say after")
    assert because in said
    assert "\r" not in said
    assert said.endswith("\nafter")


async def test_a_wait_is_silent() -> None:
    timeline = Timeline()
    assert words(await ask(demo(timeline), "/wait 12.5\n/say x")) == ["x"]
    assert timeline.slept == [12.5]


async def test_pieces_of_a_count_have_exactly_that_size() -> None:
    pieces = words(await ask(demo(), "/count 1200 size=100"))
    assert [len(piece.encode()) for piece in pieces] == [100] * 1200
    assert [int(piece.strip(". ")) for piece in pieces] == list(range(1, 1201))


async def test_a_rate_does_not_drift_when_each_sleep_is_late() -> None:
    timeline = Timeline(late=0.03)
    started = timeline.now
    times = [timeline.now - started async for _ in demo(timeline).stream(TASK, asked("/count 1000 rate=10"))]
    assert all(index / 10 <= at < index / 10 + 0.031 for index, at in enumerate(times[:-1]))


@pytest.mark.parametrize("told", ["/count 1000", "/say " + "x " * 1000, "/say x\n" * 1000])
async def test_others_run_while_it_speaks(told: str) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    await ask(DemoModel(), told)
    beside.cancel()
    assert turns >= 15


async def test_a_long_word_comes_in_pieces_that_fit_an_event() -> None:
    long = "\U0001f600" * 40_000
    pieces = words(await ask(demo(), f"/say {long}"))
    assert "".join(pieces) == long
    assert max(len(piece.encode()) for piece in pieces) <= 64 * 1024


async def test_fail_without_times_fails_always() -> None:
    model = demo()
    assert [await outcome(model, "/fail rate_limit") for _ in range(3)] == ["failed: rate_limit"] * 3


async def test_fail_with_times_fails_so_often_for_each_task() -> None:
    model = demo()
    told = "/fail timeout times=2\n/fail http_error times=1\n/say done"
    expected = ["failed: timeout", "failed: timeout", "failed: http_error", "done", "done"]
    assert [await outcome(model, told) for _ in range(5)] == expected
    assert await outcome(model, told, OTHER_TASK) == "failed: timeout"


async def test_what_was_said_before_a_failure_was_said() -> None:
    said: list[Piece] = []

    async def listen() -> None:
        async for piece in demo().stream(TASK, asked("/say so far\n/fail timeout\n/say never")):
            said.append(piece)  # noqa: PERF401 - a comprehension would lose them

    with pytest.raises(ModelCallFailed) as failure:
        await listen()
    assert failure.value.error_type == "timeout"
    assert words(said) == ["so ", "far"]


async def test_the_memory_of_failures_is_bounded() -> None:
    model = DemoModel()
    told = "/fail timeout times=1"
    for task in ("a", "b", *map(str, range(MAX_REMEMBERED_FAILURES - 2))):
        assert await outcome(model, told, TaskId(task)) == "failed: timeout"
    assert await outcome(model, told, TaskId("a")) == ""  # used again, so that b is the least recent
    assert await outcome(model, told, TaskId("d")) == "failed: timeout"
    assert await outcome(model, told, TaskId("a")) == ""
    assert await outcome(model, told, TaskId("b")) == "failed: timeout"
    assert len(model._failures) == MAX_REMEMBERED_FAILURES
