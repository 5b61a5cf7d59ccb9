"""Whether and when a failed call is tried again, and what a turn with such calls leaves."""

from collections.abc import AsyncIterator

import pytest

from service.adapters.openai_model import OpenAIModel
from service.agent.retry import FIRST_WAIT_SECONDS, MAX_RETRIES, MAX_RETRY_AFTER_SECONDS, SPREAD, seconds_before
from service.model import events as e
from service.model.failures import MESSAGES, RETRYABLE, ModelCallFailed
from service.model.generation import TextPiece
from tests.adapters.upstream import Script as Answer
from tests.adapters.upstream import Upstream, answer, refusal
from tests.agent.house import House, Script


def middle() -> float:
    return 0.5


# --- the decision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error_type", [*MESSAGES, "unknown"])
def test_what_may_be_gone_is_tried_again_and_nothing_else(error_type: str) -> None:
    wait = seconds_before(1, ModelCallFailed(error_type), middle)
    assert (wait is not None) == (error_type in RETRYABLE)


def test_waits_grow_and_there_are_so_many_and_no_more() -> None:
    failure = ModelCallFailed("timeout")
    assert [seconds_before(n, failure, middle) for n in range(1, MAX_RETRIES + 2)] == [0.5, 1, 2, 4, 8, None]


@pytest.mark.parametrize(("drawn", "share"), [(0.0, 1 - SPREAD), (1.0, 1 + SPREAD)])
def test_waits_are_spread(drawn: float, share: float) -> None:
    assert seconds_before(1, ModelCallFailed("timeout"), lambda: drawn) == FIRST_WAIT_SECONDS * share


@pytest.mark.parametrize(
    ("asked", "wait"),
    [(0.1, 0.5), (7.0, 7.0), (MAX_RETRY_AFTER_SECONDS, MAX_RETRY_AFTER_SECONDS), (MAX_RETRY_AFTER_SECONDS + 1, None)],
)
def test_what_the_provider_asks_for_is_respected_or_not_waited_for(asked: float, wait: float | None) -> None:
    assert seconds_before(1, ModelCallFailed("rate_limit", retry_after_seconds=asked), middle) == wait


def test_a_date_to_come_back_at_does_not_make_a_failure_for_good_a_passing_one() -> None:
    assert seconds_before(1, ModelCallFailed("validation_error", retry_after_seconds=1), middle) is None


# --- in a turn --------------------------------------------------------------------------------------------------------


async def test_a_call_that_fails_at_first_is_made_again_and_the_log_says_so(house: House) -> None:
    task_id = await house.post("/fail rate_limit times=2\n/say Hello")
    await house.run(await house.claim())
    assert (await house.told(task_id))[2:] == [
        "data-attempt 1",
        "start-step",
        "data-retry 2 rate_limit",
        "reset-step",
        "data-retry 3 rate_limit",
        "reset-step",
        "text-start p1",
        "text-delta p1: Hello",
        "text-end p1",
        "call-ended stop 5+1",
        "finish-step",
        "finish stop, succeeded: Hello",
    ]
    assert house.waits == [0.5, 1]
    await house.assert_ended_well(task_id)


async def test_what_a_failed_try_said_is_dropped_by_readers_and_kept_out_of_the_answer(house: House) -> None:
    task_id = await house.post("/say Half\n/fail timeout times=1\n/say and whole")
    await house.run(await house.claim())
    chunks = await house.log(task_id)
    waits = [chunk.data.wait_seconds for chunk in chunks if isinstance(chunk, e.DataRetry)]
    assert waits == [0.5]
    await house.assert_ended_well(task_id)
    assert (await house.conversation(task_id))[1] == "assistant: Half\nand whole"


async def test_a_call_that_fails_as_often_as_it_is_tried_fails_its_task(house: House) -> None:
    model = Script(ModelCallFailed("service_unavailable"))
    task_id = await house.post("Hi")
    await house.run(await house.claim(), model)
    assert len(model.calls) == 1 + MAX_RETRIES
    assert len(house.waits) == MAX_RETRIES
    await house.assert_ended_well(task_id)
    task = await house.task(task_id)
    assert (task.status, task.error_type) == ("failed", "service_unavailable")
    assert await house.conversation(task_id) == []  # it is bounced back: no try made the model say anything


async def test_an_input_that_some_try_answered_in_part_is_not_bounced_back(house: House) -> None:
    said_once = iter([TextPiece("Half")])

    class Model(Script):
        async def stream(self, task_id, prompt):  # type: ignore[no-untyped-def]
            self.prompts.append(prompt)
            for piece in said_once:
                yield piece
            raise ModelCallFailed("timeout")

    task_id = await house.post("Hi")
    await house.run(await house.claim(), Model())
    await house.assert_ended_well(task_id)
    assert await house.conversation(task_id) == ["user: Hi", "assistant: "]


# --- of a real endpoint -----------------------------------------------------------------------------------------------


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream(key="sk-ours") as opened:
        yield opened


PASSING = {
    "408": (refusal(408), 0.5),
    "409": (refusal(409), 0.5),
    "429": (refusal(429), 0.5),
    "429 for a while": (refusal(429, retry_after="3"), 3.0),
    "500": (refusal(500), 0.5),
    "503 with nonsense": (refusal(503, retry_after="soon"), 0.5),
    "503 until yesterday": (refusal(503, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"), 0.5),
    "529": (refusal(529), 0.5),
}


@pytest.mark.parametrize(("first", "wait"), PASSING.values(), ids=PASSING.keys())
async def test_an_endpoint_that_refuses_once_is_asked_again_when_it_says(
    house: House, upstream: Upstream, first: Answer, wait: float
) -> None:
    upstream.play(first, answer("Hello"))
    task_id = await house.post("Hi")
    async with OpenAIModel(upstream.url, "sk-ours", "m") as model:
        await house.run(await house.claim(), model)
    assert house.waits == [wait]
    assert (await house.conversation(task_id))[1] == "assistant: Hello"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_an_endpoint_that_refuses_for_good_is_not_asked_again(
    house: House, upstream: Upstream, status: int
) -> None:
    upstream.play(refusal(status, retry_after="1"))
    await house.post("Hi")
    async with OpenAIModel(upstream.url, "sk-ours", "m") as model:
        await house.run(await house.claim(), model)
    assert house.waits == []
    assert len(upstream.requests) == 1


async def test_a_holder_after_the_first_may_try_as_often_again(house: House) -> None:
    task_id = await house.post("Hi")
    await house.queue.renew([await house.claim()], 0)
    model = Script(ModelCallFailed("timeout"))
    await house.run(await house.claim(), model)
    assert len(model.calls) == 1 + MAX_RETRIES
    await house.assert_ended_well(task_id)
