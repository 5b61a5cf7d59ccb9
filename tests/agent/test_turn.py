"""What a turn leaves: the whole log of each case in its order, the conversation, and the task's row."""

import io
import logging
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog

from service.adapters.demo_model import DemoModel
from service.adapters.openai_model import OpenAIModel
from service.adapters.redis_client import connect
from service.adapters.redis_log import RedisLogStore
from service.agent.ending import MAX_OUTPUT_CHARACTERS
from service.agent.recorder import MAX_DELTA_CHARACTERS
from service.cli.logs import rendering
from service.model import events as e
from service.model.encoding import MAX_EVENT_BYTES, encode, framed
from service.model.failures import MESSAGES, ModelCallFailed, message_for
from service.model.generation import CallEnded, ReasoningPiece, TextPiece
from service.model.ids import Epoch
from service.model.log import Batch
from service.model.position import BEGINNING, Position
from service.model.task import Claim, End, Ended
from service.sessions.ports import TaskQueue
from tests.adapters.upstream import SECRET, Reasoning, Silence, Upstream, answer, refusal
from tests.adapters.upstream import Script as Answer
from tests.agent.faults import Once, Watched
from tests.agent.house import LEASE, ForGood, House, Script
from tests.sessions.databases import say

IDLE_SECONDS = 0.2


# --- it goes well -----------------------------------------------------------------------------------------------------


async def test_a_turn_that_succeeds(house: House) -> None:
    task_id = await house.post("/say Hello there")
    await house.run(await house.claim())
    assert await house.told(task_id) == [
        "start",
        "data-input: /say Hello there",
        "data-attempt 1",
        "start-step",
        "text-start p1",
        "text-delta p1: Hello there",
        "text-end p1",
        "call-ended stop 3+2",
        "finish-step",
        "finish stop, succeeded: Hello there",
    ]
    await house.assert_ended_well(task_id)
    assert await house.conversation(task_id) == ["user: /say Hello there", "assistant: Hello there"]
    task = await house.task(task_id)
    assert (task.status, task.usage, task.error_type) == ("succeeded", e.Usage(3, 2), None)


async def test_reasoning_and_text_are_parts_in_their_order(house: House) -> None:
    task_id = await house.post("/reason Hm\n/say So\n/reason But\n/say no")
    await house.run(await house.claim())
    assert await house.told(task_id) == [
        "start",
        "data-input: /reason Hm\n/say So\n/reason But\n/say no",
        "data-attempt 1",
        "start-step",
        "reasoning-start p1",
        "reasoning-delta p1: Hm",
        "reasoning-end p1",
        "text-start p2",
        "text-delta p2: So",
        "text-end p2",
        "reasoning-start p3",
        "reasoning-delta p3: But",
        "reasoning-end p3",
        "text-start p4",
        "text-delta p4: no",
        "text-end p4",
        "call-ended stop 8+4",
        "finish-step",
        "finish stop, succeeded: Sono",
    ]
    await house.assert_ended_well(task_id)
    assert await house.conversation(task_id) == [
        "user: /reason Hm\n/say So\n/reason But\n/say no",
        "assistant: [Hm]So[But]no",
    ]


async def test_a_model_that_says_nothing_has_succeeded_with_nothing(house: House) -> None:
    task_id = await house.post("Hi")
    await house.run(await house.claim(), Script(CallEnded("content-filter", e.Usage(9, 0))))
    assert (await house.told(task_id))[3:] == [
        "start-step",
        "call-ended content-filter 9+0",
        "finish-step",
        "finish content-filter, succeeded: ",
    ]
    await house.assert_ended_well(task_id)


async def test_the_next_turn_knows_what_was_said(house: House) -> None:
    first = await house.post("/reason Hm\n/say Hello")
    await house.run(await house.claim())
    session = await house.session(first)
    model = Script(TextPiece("Again."), CallEnded("stop", e.Usage(1, 1)))
    second = await house.post("And now?", session.entry.id)
    await house.run(await house.claim(), model)
    await house.assert_ended_well(second)
    ((question, reply, again),) = model.calls
    assert (question.role, question.parts) == ("user", (e.TextPart("/reason Hm\n/say Hello"),))
    assert (reply.role, reply.parts) == ("assistant", (e.TextPart("Hello"),))
    assert (again.role, again.parts) == ("user", (e.TextPart("And now?"),))


async def test_of_a_very_long_conversation_the_model_is_given_the_newest_messages(house: House) -> None:
    session = await house.sessions.create(None)
    await say(house.database, session.id, [10] * 3 + [1024 * 1024] * 10)
    task_id = await house.post("And now?", session.id)
    model = Script(TextPiece("Yes."), CallEnded("stop", e.Usage(1, 1)))
    await house.run(await house.claim(), model)
    (given,) = model.calls
    assert [len(utterance.parts) for utterance in given] == [1] * 4  # a fourth MiB would fit only without the question
    assert given[-1].parts == (e.TextPart("And now?"),)
    assert (await house.task(task_id)).status == "succeeded"


async def test_a_turn_over_a_real_log_store(house: House, redis_url: str) -> None:
    redis = connect(redis_url)
    try:
        house.logs = RedisLogStore(redis)
        task_id = await house.post("/reason Hm\n/count 500\n/say \x00 end")
        await house.run(await house.claim())
        fold = await house.assert_ended_well(task_id)
        assert fold.output().endswith("500 \n\x00 end")
    finally:
        await redis.aclose()


# --- it fails before the model said anything: the input goes back -----------------------------------------------------


ERROR_TYPES = [*MESSAGES, "unknown", "llm_parse_error"]


@pytest.mark.parametrize("error_type", ERROR_TYPES)
async def test_an_input_that_reached_nobody_is_bounced_back(house: House, error_type: str) -> None:
    task_id = await house.post(f"/fail {error_type}")
    await house.run(await house.claim(), ForGood(DemoModel()))
    asks_for_key = ["data-authentication-required demo"] if error_type == "authentication_error" else []
    assert await house.told(task_id) == [
        "start",
        f"data-input: /fail {error_type}",
        "data-attempt 1",
        "start-step",
        f"data-bounce-back {error_type}: /fail {error_type}",
        *asks_for_key,
        "finish-step",
        f"task failed {error_type}",
        f"error [code:{error_type}] {message_for(error_type)}",
        "finish error, failed: ",
    ]
    await house.assert_ended_well(task_id)
    task = await house.task(task_id)
    assert (task.status, task.error_type) == ("failed", error_type)
    session = await house.session(task_id)
    assert session.messages == ()
    again = await house.post("/say Hello", session.entry.id)  # the session is as before the message
    await house.run(await house.claim())
    await house.assert_ended_well(again)
    assert await house.conversation(again) == ["user: /say Hello", "assistant: Hello"]


async def test_only_the_message_of_this_turn_is_taken_back(house: House) -> None:
    first = await house.post("/say Hello")
    await house.run(await house.claim())
    second = await house.post("/fail timeout", (await house.session(first)).entry.id)
    await house.run(await house.claim())
    await house.assert_ended_well(second)
    assert await house.conversation(second) == ["user: /say Hello", "assistant: Hello"]


@pytest.mark.parametrize("text", ["\x00" * 32_767, "\U0001f680" * 32_768, "x" * 131_072])
async def test_the_largest_inputs_fit_their_log_and_come_back_whole(house: House, text: str) -> None:
    task_id = await house.post(text)
    await house.run(await house.claim(), Script(_failure("rate_limit")))
    chunks = await house.log(task_id)
    assert [c.data.content for c in chunks if isinstance(c, e.DataBounceBack)] == [text]
    assert [c.data.parts for c in chunks if isinstance(c, e.DataInput)] == [(e.TextPart(text),)]
    await house.assert_ended_well(task_id)


# --- it fails after the model said something: what was said is kept ---------------------------------------------------


@pytest.mark.parametrize("error_type", ERROR_TYPES)
async def test_a_failure_amid_the_answer_keeps_what_was_said(house: House, error_type: str) -> None:
    text = f"/reason Hm\n/say So far\n/fail {error_type}"
    task_id = await house.post(text)
    await house.run(await house.claim(), ForGood(DemoModel()))
    assert await house.told(task_id) == [
        "start",
        f"data-input: {text}",
        "data-attempt 1",
        "start-step",
        "reasoning-start p1",
        "reasoning-delta p1: Hm",
        "reasoning-end p1",
        "text-start p2",
        "text-delta p2: So far",
        "text-end p2",
        "finish-step",
        f"task failed {error_type}",
        f"error [code:{error_type}] {message_for(error_type)}",
        "finish error, failed: So far",
    ]
    await house.assert_ended_well(task_id)
    assert await house.conversation(task_id) == [f"user: {text}", "assistant: [Hm]So far"]
    task = await house.task(task_id)
    assert (task.status, task.error_type) == ("failed", error_type)


async def test_reasoning_alone_is_output_too(house: House) -> None:
    task_id = await house.post("/reason Hm\n/fail timeout")
    await house.run(await house.claim())
    await house.assert_ended_well(task_id)
    assert await house.conversation(task_id) == ["user: /reason Hm\n/fail timeout", "assistant: [Hm]"]


async def test_pitfall_72_behind_an_error_stands_only_the_finish(house: House) -> None:
    for text in ("/fail timeout", "/say So far\n/fail timeout"):
        task_id = await house.post(text)
        await house.run(await house.claim())
        assert [line.split()[0] for line in await house.told(task_id)][-2:] == ["error", "finish"]


# --- a real endpoint --------------------------------------------------------------------------------------------------


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream(key="sk-ours") as opened:
        yield opened


@pytest.fixture
async def endpoint(upstream: Upstream) -> AsyncIterator[OpenAIModel]:
    async with OpenAIModel(upstream.url, "sk-ours", "m", connect_seconds=1, idle_seconds=IDLE_SECONDS) as model:
        yield model


async def test_an_answer_of_an_endpoint(house: House, upstream: Upstream, endpoint: OpenAIModel) -> None:
    upstream.play(Answer((Reasoning("Hm"), *answer("Hel", "lo", usage=(11, 2)).steps)))
    task_id = await house.post("Hi")
    await house.run(await house.claim(), endpoint)
    assert (await house.told(task_id))[3:] == [
        "start-step",
        "reasoning-start p1",
        "reasoning-delta p1: Hm",
        "reasoning-end p1",
        "text-start p2",
        "text-delta p2: Hello",
        "text-end p2",
        "call-ended stop 11+2",
        "finish-step",
        "finish stop, succeeded: Hello",
    ]
    await house.assert_ended_well(task_id)
    assert upstream.requests[0].body["messages"] == [{"role": "user", "content": "Hi"}]


REFUSED = {
    "refused by its key": (refusal(401), "authentication_error"),
    "forbidden": (refusal(403), "authentication_error"),
    "too many requests": (refusal(429), "rate_limit"),
    "broken": (refusal(500), "http_error"),
    "a proxy's page": (refusal(502, html=True), "http_error"),
    "away": (refusal(503), "service_unavailable"),
    "a gateway's time-out": (refusal(504), "timeout"),
    "silent from the beginning": (Answer((Silence(),)), "timeout"),
}


@pytest.mark.parametrize(("script", "error_type"), REFUSED.values(), ids=REFUSED.keys())
async def test_an_endpoint_that_refuses_bounces_the_input_at_once(
    house: House, upstream: Upstream, endpoint: OpenAIModel, script: Answer, error_type: str
) -> None:
    upstream.play(script)
    task_id = await house.post("Hi")
    await house.run(await house.claim(), ForGood(endpoint))
    lines = await house.told(task_id)
    asks_for_key = ["data-authentication-required"] if error_type == "authentication_error" else []
    assert [line.split()[0] for line in lines[3:]] == [
        *("start-step", "data-bounce-back", *asks_for_key, "finish-step"),
        *("task", "error", "finish"),
    ]
    await house.assert_ended_well(task_id)
    assert (await house.task(task_id)).error_type == error_type
    assert (await house.session(task_id)).messages == ()
    assert len(upstream.requests) == 1
    assert SECRET not in "".join(lines)
    assert "sk-ours" not in "".join(lines)


BROKEN = {
    "silent (pitfall 53)": ("stall 3", "timeout", "0 1 2 "),
    "reset": ("cut 3", "request_error", "0 1 2 "),
    "closed": ("close 3", "request_error", "0 1 2 "),
    "ended too early": ("end 3", "request_error", "0 1 2 "),
    "an error object": ("error 429", "rate_limit", "So far "),
    "garbage": ("garbage", "invalid_response", "So far "),
}


@pytest.mark.parametrize(("text", "error_type", "said"), BROKEN.values(), ids=BROKEN.keys())
async def test_an_endpoint_that_breaks_amid_the_answer_keeps_what_it_said(
    house: House, endpoint: OpenAIModel, text: str, error_type: str, said: str
) -> None:
    task_id = await house.post(text)
    await house.run(await house.claim(), ForGood(endpoint))
    lines = await house.told(task_id)
    assert [line.split()[0] for line in lines[4:]] == [
        *("text-start", "text-delta", "text-end", "finish-step"),
        *("task", "error", "finish"),
    ]
    fold = await house.assert_ended_well(task_id)
    # What was on its way when the connection was reset may be gone.
    assert said.startswith(fold.output()) if text.startswith("cut") else fold.output() == said
    assert (await house.task(task_id)).error_type == error_type
    assert (await house.conversation(task_id))[0] == f"user: {text}"
    assert SECRET not in "".join(lines)


# --- mistakes of our own ----------------------------------------------------------------------------------------------


MISTAKES = {
    "before anything was said": Script(RuntimeError("secret")),
    "amid the text": Script(TextPiece("So far"), RuntimeError("secret")),
    "amid the reasoning": Script(ReasoningPiece("Hm"), RuntimeError("secret")),
}


@pytest.mark.parametrize("model", MISTAKES.values(), ids=MISTAKES.keys())
async def test_an_exception_that_nobody_expected_ends_the_task_as_failed(house: House, model: Script) -> None:
    task_id = await house.post("Hi")
    with structlog.testing.capture_logs() as logs:
        await house.run(await house.claim(), model)
    task = await house.task(task_id)
    assert (task.status, task.error_type) == ("failed", "unexpected_error")
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["turn_crashed"]
    assert "secret" not in "".join(await house.told(task_id))
    lines = await house.told(task_id)
    assert [line.split()[0] for line in lines[-3:]] == ["task", "error", "finish"]


@pytest.mark.parametrize("model", MISTAKES.values(), ids=MISTAKES.keys())
async def test_the_log_of_a_crashed_turn_can_be_read_to_its_end(house: House, model: Script) -> None:
    """A reader of the stream gives up on an error amid an open part; what it saw is what is kept."""
    task_id = await house.post("Hi")
    await house.run(await house.claim(), model)
    await house.assert_ended_well(task_id)


# --- large answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["\x00", "x", "\U0001f680", '"'])
async def test_a_huge_answer_is_shortened_in_the_log_and_whole_in_the_session(house: House, character: str) -> None:
    piece = character * 65_536
    task_id = await house.post("Hi")
    await house.run(await house.claim(), Script(*[TextPiece(piece)] * 8, CallEnded("length", e.Usage(1, 9))))
    fold = await house.assert_ended_well(task_id)
    assert fold.finish is not None
    finish = fold.finish.message_metadata
    assert finish.truncated
    half = character * (MAX_OUTPUT_CHARACTERS // 2)
    assert finish.output == f"{half}\n…\n{half}"
    answers = (await house.session(task_id)).messages[1].parts
    assert [part["text"] for part in answers if part["type"] == "text"] == [piece * 8]
    chunks = await house.log(task_id)
    assert "".join(c.delta for c in chunks if isinstance(c, e.TextDelta)) == piece * 8
    assert all(len(encode(chunk)) <= MAX_EVENT_BYTES for chunk in chunks if not isinstance(chunk, e.Unknown))
    assert MAX_DELTA_CHARACTERS * 6 < MAX_EVENT_BYTES


@pytest.mark.parametrize(("length", "shortened"), [(MAX_OUTPUT_CHARACTERS, None), (MAX_OUTPUT_CHARACTERS + 1, True)])
async def test_an_answer_is_shortened_only_beyond_the_bound(house: House, length: int, shortened: bool | None) -> None:
    task_id = await house.post("Hi")
    await house.run(await house.claim(), Script(TextPiece("x" * length), CallEnded("stop", e.Usage(1, 9))))
    fold = await house.assert_ended_well(task_id)
    assert fold.finish is not None
    assert fold.finish.message_metadata.truncated is shortened


async def test_a_model_that_never_stops_is_stopped(house: House) -> None:
    pieces = [TextPiece("x" * 1_048_576)] * 18
    task_id = await house.post("Hi")
    await house.run(await house.claim(), Script(*pieces, CallEnded("stop", e.Usage(1, 9))))
    fold = await house.assert_ended_well(task_id)
    assert fold.finish is not None
    assert fold.finish.finish_reason == "length"
    assert len(fold.output()) == 17 * 1_048_576


async def test_a_failed_turn_with_a_huge_answer_keeps_it_too(house: House) -> None:
    task_id = await house.post("Hi")
    await house.run(await house.claim(), Script(TextPiece("\x01" * 65_536), _failure("timeout")))
    fold = await house.assert_ended_well(task_id)
    assert len(fold.output()) == 65_536


async def test_an_answer_with_every_odd_character_is_the_same_everywhere(house: House) -> None:
    text = "".join(map(chr, range(0xD800))) + "\ue000\ufffe\uffff\U0010ffff\r\n\u2028"
    task_id = await house.post("Hi")
    await house.run(await house.claim(), Script(TextPiece(text), CallEnded("stop", e.Usage(1, 9))))
    assert (await house.assert_ended_well(task_id)).output() == text


@pytest.fixture(params=[True, False], ids=["people", "JSON"])
def lines(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What the house logs, as it would land on stderr."""
    written, configured = io.StringIO(), structlog.get_config()
    structlog.configure(
        processors=rendering(for_people=request.param), logger_factory=structlog.PrintLoggerFactory(written)
    )
    yield written
    structlog.configure(**configured)


def _crash(text: str) -> None:
    try:
        raise KeyError(text)
    except KeyError as error:
        raise ExceptionGroup(text, [RuntimeError(text)]) from error


class _KeepsNoAnswer:
    """A database that takes every end but one with an answer, as where that is more than it can hold."""

    def __init__(self, queue: TaskQueue) -> None:
        self._queue = queue
        self.claim, self.renew, self.retake, self.close = queue.claim, queue.renew, queue.retake, queue.close

    async def end(self, claim: Claim, end: End) -> Ended:
        if end.answer is not None:
            raise ValueError
        return await self._queue.end(claim, end)


async def test_a_turn_whose_answer_cannot_be_kept_ends_without_it(house: House) -> None:
    """Else every holder would fail with it, and its session be busy for ever."""
    task_id = await house.post("/say Hello")
    await house.run(await house.claim(), queue=_KeepsNoAnswer(house.queue))
    task = await house.task(task_id)
    assert (task.status, task.error_type) == ("failed", "unexpected_error")
    assert await house.conversation(task_id) == ["user: /say Hello"]
    assert isinstance((await house.log(task_id))[-1], e.Finish)
    assert await house.queue.claim(10, LEASE) == []


async def test_no_log_line_of_a_turn_repeats_what_was_said(
    house: House, lines: io.StringIO, caplog: pytest.LogCaptureFixture
) -> None:
    said = "hush-hush"
    models = {
        "turn_failed": Script(_failure("timeout")),
        "turn_crashed": Script(TextPiece(said), lambda: _crash(said)),
        "turn_given_up": Script(TextPiece(said), CallEnded("stop", e.Usage(1, 1))),
    }
    with caplog.at_level(logging.DEBUG):
        await house.post(f"/say {said}")
        await house.run(await house.claim())
        for action, model in models.items():
            await house.post(f"/say {said}")
            ports = {}
            if action == "turn_given_up":
                ports = {"queue": Watched(house.queue, Once(verb="end", act=lambda: _crash(said)))}
            await house.run(await house.claim(), model, **ports)
            assert action in lines.getvalue()
        for data in (f'{{"type":"text-delta","delta":"{said}"}}', f'{{"type":"{said}'):
            task_id = await house.post(f"/say {said}")
            await house.logs.open(task_id, Epoch(0), BEGINNING)
            broken = framed(1, 1, [data.encode()])
            await house.logs.append([Batch(task_id, Epoch(0), BEGINNING, Position(1, 1), broken, terminal=False)])
            await house.run(await house.claim())
    assert lines.getvalue().count("log_not_understood") == 2
    assert "KeyError" in lines.getvalue()
    assert said not in lines.getvalue()
    assert said not in caplog.text
    assert (await house.logs.read((await house.post("x")), BEGINNING, 1)).events == []


def _failure(error_type: str) -> Exception:

    return ModelCallFailed(error_type)
