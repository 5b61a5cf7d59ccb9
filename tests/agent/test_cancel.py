"""A task whose owner wants it cancelled ends as cancelled, wherever it stands; what was said is kept."""

import asyncio
from functools import partial

import pytest

from service.agent.cancellation import Cancellation
from service.agent.turn import MAX_LOST_ATTEMPTS
from service.model import events as e
from service.model.caller import EVERYONES
from service.model.failures import ModelCallFailed
from service.model.generation import CallEnded, TextPiece
from service.model.task import Claim
from tests.agent.faults import Once, Pause, Watched
from tests.agent.house import LAPSED, House, Script, half_an_answer, until

ENDED = CallEnded("stop", e.Usage(1, 2))
CANCELLED = ["abort cancelled by owner", "finish interrupted, cancelled: "]


async def run(house: House, claim: Claim, model: Script, cancellation: Cancellation) -> None:
    async with house.turns(model) as turns:
        await turns.run(claim, house.retake, cancellation)


async def test_a_turn_that_streams_ends_with_what_it_has_said(house: House) -> None:
    task_id = await house.post("Hi")
    cancellation = Cancellation()
    model = Script(TextPiece("Half"), cancellation.request, asyncio.Event())
    await run(house, await house.claim(), model, cancellation)
    assert await house.told(task_id) == [
        "start",
        "data-input: Hi",
        "data-attempt 1",
        "start-step",
        "text-start p1",
        "text-delta p1: Half",
        "text-end p1",
        "finish-step",
        "abort cancelled by owner",
        "finish interrupted, cancelled: Half",
    ]
    await house.assert_ended_well(task_id)
    assert await house.conversation(task_id) == ["user: Hi", "assistant: Half"]
    assert (await house.task(task_id)).status == "cancelled"


async def test_a_turn_whose_model_is_silent_ends_too_and_the_input_stays(house: House) -> None:
    task_id = await house.post("Hi")
    cancellation = Cancellation()
    await run(house, await house.claim(), Script(cancellation.request, asyncio.Event()), cancellation)
    assert (await house.told(task_id))[3:] == ["start-step", "finish-step", *CANCELLED]
    await house.assert_ended_well(task_id)
    assert (await house.conversation(task_id))[0] == "user: Hi"


async def test_a_turn_that_waits_before_a_retry_ends_too(house: House) -> None:
    task_id = await house.post("Hi")
    cancellation = Cancellation()

    async def wait(seconds: float) -> None:
        cancellation.request()
        await asyncio.Event().wait()

    house.sleep = wait
    await run(house, await house.claim(), Script(ModelCallFailed("rate_limit")), cancellation)
    assert (await house.told(task_id))[3:] == ["start-step", "data-retry 2 rate_limit", "finish-step", *CANCELLED]
    await house.assert_ended_well(task_id)


async def test_a_queued_task_is_ended_without_being_run(house: House) -> None:
    task_id = await house.post("Hi")
    await house.tasks.cancel(EVERYONES, task_id)
    claim = await house.claim()
    assert claim.task.status == "queued"
    model = Script(TextPiece("Never"), ENDED)
    await run(house, claim, model, Cancellation())
    assert model.calls == []
    assert await house.told(task_id) == ["start", "data-input: Hi", "data-attempt 1", *CANCELLED]
    await house.assert_ended_well(task_id)
    assert await house.conversation(task_id) == ["user: Hi"]


async def test_whoever_takes_over_a_task_that_is_to_be_cancelled_calls_no_model(house: House) -> None:
    task_id = await half_an_answer(house)
    await house.tasks.cancel(EVERYONES, task_id)
    model = Script(TextPiece("Never"), ENDED)
    await run(house, await house.claim(), model, Cancellation())
    assert model.calls == []
    assert (await house.told(task_id))[-4:-1] == ["text-end p1", "finish-step", "abort cancelled by owner"]
    await house.assert_ended_well(task_id)
    assert await house.conversation(task_id) == ["user: Hi", "assistant: Half"]


async def test_pitfall_19_a_cancellation_that_comes_behind_the_end_changes_nothing(house: House) -> None:
    """However late in the turn: in front of the write that decides the end, or behind it."""
    for is_behind in (False, True):
        task_id = await house.post("Hi")
        cancellation = Cancellation()
        late = Once(verb="end", act=cancellation.request, is_behind=is_behind)
        async with house.turns(Script(TextPiece("Whole"), ENDED), queue=Watched(house.queue, late)) as turns:
            await turns.run(await house.claim(), house.retake, cancellation)
        assert late.done
        assert (await house.told(task_id))[-1] == "finish stop, succeeded: Whole"
        await house.assert_ended_well(task_id)


async def test_pitfall_25_a_cancelled_turn_that_waits_for_room_in_its_log_says_what_its_log_says(house: House) -> None:
    """The store is away while the model speaks on: what did not fit is in neither, and the end waits for the store."""
    task_id = await house.post("Hi")
    cancellation = Cancellation()
    pause = Pause(verb="append")
    model = Script(*[TextPiece("x" * 65_536)] * 40, ENDED)
    async with house.turns(model, logs=Watched(house.logs, pause)) as turns, asyncio.TaskGroup() as tasks:
        work = tasks.create_task(turns.run(await house.claim(), house.retake, cancellation))
        await pause.arrived.wait()
        for _ in range(1000):
            await asyncio.sleep(0)
        cancellation.request()
        for _ in range(1000):
            await asyncio.sleep(0)
        pause.go_on.set()
        await work
    fold = await house.assert_ended_well(task_id)
    assert 0 < len(fold.output()) < 40 * 65_536


async def test_it_is_asked_for_once_and_for_good() -> None:
    cancellation = Cancellation()
    cancellation.request()
    cancellation.request()
    for _ in range(2):
        with pytest.raises(Exception, match="cancelled by its owner"):
            async with cancellation.scope():
                raise AssertionError("never gets here")


async def test_a_holder_that_is_stopped_meanwhile_is_stopped() -> None:
    cancellation = Cancellation()
    inside = asyncio.Event()

    async def work() -> None:
        async with cancellation.scope():
            inside.set()
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    await inside.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working


# --- a task whose holders are lost ------------------------------------------------------------------------------------


async def lose(house: House, times: int) -> None:
    """So many holders take the one task that is due, say half an answer, and are never heard of again."""
    for _ in range(times):
        claim = await house.claim(LAPSED)
        async with house.turns(Script(TextPiece("Half"), asyncio.Event())) as turns, asyncio.TaskGroup() as tasks:
            work = tasks.create_task(turns.run(claim, house.retake, Cancellation()))
            begun = f"data-attempt {claim.epoch}"
            await until(partial(house.told, claim.task.id), lambda lines, begun=begun: begun in lines[:-1])
            await until(partial(house.told, claim.task.id), lambda lines: lines[-1] == "text-delta p1: Half")
            work.cancel()


async def test_claims_of_which_nothing_came_are_no_lost_attempts(house: House) -> None:
    """Their answers were lost on the way, or came too late: nobody ever ran it."""
    task_id = await house.post("Hi")
    for _ in range(2 * MAX_LOST_ATTEMPTS):
        await house.claim(LAPSED)
    await run(house, await house.claim(), Script(TextPiece("Whole"), ENDED), Cancellation())
    assert (await house.conversation(task_id))[1] == "assistant: Whole"


async def test_a_task_with_which_holder_after_holder_is_lost_ends_as_failed(house: House) -> None:
    task_id = await house.post("Hi")
    await lose(house, MAX_LOST_ATTEMPTS)
    claim = await house.claim()
    assert claim.lost_attempts == MAX_LOST_ATTEMPTS
    model = Script(TextPiece("Never"), ENDED)
    await run(house, claim, model, Cancellation())
    assert model.calls == []
    lines = await house.told(task_id)
    assert [line for line in lines if line.startswith("data-attempt")] == [f"data-attempt {n}" for n in (1, 2, 3, 4)]
    assert [line.split(":")[0] for line in lines[-5:]] == [
        *("text-end p1", "finish-step", "task failed worker_lost", "error [code", "finish error, failed")
    ]
    await house.assert_ended_well(task_id)
    assert await house.conversation(task_id) == ["user: Hi", "assistant: Half"]


async def test_a_task_that_lost_as_many_and_is_to_be_cancelled_is_cancelled(house: House) -> None:
    task_id = await house.post("Hi")
    await lose(house, MAX_LOST_ATTEMPTS)
    await house.tasks.cancel(EVERYONES, task_id)
    model = Script(TextPiece("Never"), ENDED)
    await run(house, await house.claim(), model, Cancellation())
    assert model.calls == []
    assert (await house.told(task_id))[-2:] == [*CANCELLED[:1], f"{CANCELLED[1]}Half"]
    await house.assert_ended_well(task_id)


async def test_a_task_that_lost_fewer_is_run(house: House) -> None:
    task_id = await house.post("Hi")
    await lose(house, MAX_LOST_ATTEMPTS - 1)
    await run(house, await house.claim(), Script(TextPiece("Whole"), ENDED), Cancellation())
    assert (await house.conversation(task_id))[1] == "assistant: Whole"
