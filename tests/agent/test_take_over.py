"""Another holder goes on: from half an answer, from wherever the first can die, and after a store's loss."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import structlog

from service.adapters.demo_model import DemoModel
from service.adapters.memory_log import MemoryLogStore
from service.adapters.postgres import Database
from service.agent.cancellation import Cancellation
from service.model import events as e
from service.model.caller import EVERYONES
from service.model.encoding import encode, framed
from service.model.errors import DatabaseUnavailable, LogUnavailable
from service.model.failures import ModelCallFailed
from service.model.fold import LogFold
from service.model.generation import CallEnded, TextPiece
from service.model.ids import Epoch, TaskId
from service.model.log import AppendResult, Batch, Invalid
from service.model.position import BEGINNING, Position
from service.operations.patience import STORE_RETRY_SECONDS
from tests.agent.faults import Death, Fault, Once, Pause, Watched
from tests.agent.house import LAPSED, House, Script, die_at, dies, half_an_answer, until

ENDED = CallEnded("stop", e.Usage(1, 2))
CANCELLED = "Never mind"
"""A message whose task is cancelled while it is queued."""


@dataclass
class Clock:
    """A clock that is set by hand."""

    ms: int


def whole_answer() -> Script:
    return Script(TextPiece("A whole "), TextPiece("answer."), ENDED)


async def stored(house: House, database: Database) -> list[object]:
    """Everything in both stores that a fenced holder must leave as it is."""
    rows = [
        [tuple(row) for row in await database.fetch(statement)]
        for statement in (
            "SELECT id, status, usage, ending::text, log_closed FROM tasks ORDER BY id",
            "SELECT id, role, parts::text FROM messages ORDER BY seq",
            "SELECT task_id, epoch, lease_until FROM leases ORDER BY task_id",
        )
    ]
    logs = [(await house.logs.read(TaskId(str(row[0])), BEGINNING, 1000)) for row in rows[0]]
    return [rows, logs]


# --- half an answer ---------------------------------------------------------------------------------------------------


async def test_half_an_answer_is_reset_and_said_again_whole(house: House) -> None:
    task_id = await half_an_answer(house)
    claim = await house.claim()
    await house.run(claim, whole_answer())
    assert await house.told(task_id) == [
        "start",
        "data-input: Hi",
        "data-attempt 1",
        "start-step",
        "text-start p1",
        "text-delta p1: Half",
        "data-attempt 2",
        "reset-step",
        "text-start p1",
        "text-delta p1: A whole answer.",
        "text-end p1",
        "call-ended stop 1+2",
        "finish-step",
        "finish stop, succeeded: A whole answer.",
    ]
    await house.assert_ended_well(task_id)
    assert await house.conversation(task_id) == ["user: Hi", "assistant: A whole answer."]


async def test_an_input_that_once_produced_output_is_not_bounced(house: House) -> None:
    """The user saw half an answer: taking the question back would contradict that."""
    task_id = await half_an_answer(house)

    model = Script(_refuse)
    await house.run(await house.claim(), model)
    lines = await house.told(task_id)
    assert [line.split()[0] for line in lines[6:]] == [
        *("data-attempt", "reset-step", "finish-step", "task", "error", "finish")
    ]
    await house.assert_ended_well(task_id)
    assert (await house.conversation(task_id))[0] == "user: Hi"


def _refuse() -> None:

    raise ModelCallFailed("rate_limit", is_retryable=False)


async def test_three_holders_one_answer(house: House) -> None:
    task_id = await half_an_answer(house)
    second = await house.claim(LAPSED)
    model = Script(TextPiece("Other half"), asyncio.Event())
    async with house.turns(model) as turns, asyncio.TaskGroup() as tasks:
        work = tasks.create_task(turns.run(second, house.retake, Cancellation()))
        await until(lambda: house.told(task_id), lambda lines: lines[-1] == "text-delta p1: Other half")
        work.cancel()
    await house.run(await house.claim(), whole_answer())
    assert [line for line in await house.told(task_id) if line.startswith("data-attempt")] == [
        f"data-attempt {epoch}" for epoch in (1, 2, 3)
    ]
    await house.assert_ended_well(task_id)
    assert await house.conversation(task_id) == ["user: Hi", "assistant: A whole answer."]


async def test_a_model_call_that_had_ended_is_not_made_again(house: House) -> None:
    task_id = await house.post("Hi")
    await die_at(house, "end", is_behind=False, model=whole_answer())
    second = Script(TextPiece("Never asked."), ENDED)
    await house.run(await house.claim(), second)
    assert second.calls == []
    await house.assert_ended_well(task_id)
    assert await house.conversation(task_id) == ["user: Hi", "assistant: A whole answer."]


# --- a holder that has lost its task ----------------------------------------------------------------------------------


async def test_pitfall_22_a_turn_whose_task_was_taken_writes_nothing_more(house: House) -> None:
    task_id = await house.post("Hi")
    first = await house.claim(LAPSED)
    paused = asyncio.Event()
    model = Script(TextPiece("Half"), paused, TextPiece(" an answer"), ENDED)
    async with house.turns(model) as turns, asyncio.TaskGroup() as tasks:
        work = tasks.create_task(turns.run(first, house.retake, Cancellation()))
        await model.began.wait()
        await house.run(await house.claim(), whole_answer())
        before = await stored(house, house.database)
        paused.set()
        await work  # it leaves by itself
    assert await stored(house, house.database) == before
    await house.assert_ended_well(task_id)


@pytest.mark.parametrize("verb", ["read", "append", "end", "finish", "close"])
async def test_pitfall_70_a_worker_that_was_paused_before_a_write_changes_nothing(house: House, verb: str) -> None:
    # A log that is empty is not read.
    task_id = await (half_an_answer(house) if verb == "read" else house.post("Hi"))
    first = await house.claim(LAPSED)
    pause = Pause(verb=verb)
    ports = {"logs": Watched(house.logs, pause), "queue": Watched(house.queue, pause)}
    async with house.turns(Script(TextPiece("Mine."), ENDED), **ports) as turns, asyncio.TaskGroup() as tasks:
        work = tasks.create_task(turns.run(first, house.retake, Cancellation()))
        await pause.arrived.wait()
        await house.run(await house.claim(), whole_answer())
        before = await stored(house, house.database)
        pause.go_on.set()
        await work
    assert await stored(house, house.database) == before
    await house.assert_ended_well(task_id)
    said = "Mine." if verb in {"finish", "close"} or (verb == "end") else "A whole answer."
    assert await house.conversation(task_id) == ["user: Hi", f"assistant: {said}"]


async def test_pitfall_70_a_worker_that_was_paused_before_its_end_does_not_end_its_successor_s_turn(
    house: House,
) -> None:
    task_id = await house.post("Hi")
    first = await house.claim(LAPSED)
    pause, go_on = Pause(verb="end"), asyncio.Event()
    successor = Script(TextPiece("A whole "), go_on, TextPiece("answer."), ENDED)
    # The first holder's model call is not in the log for its successor: that store lost it.
    async with (
        house.turns(Script(TextPiece("Mine."), ENDED), queue=Watched(house.queue, pause)) as turns,
        house.turns(successor) as other_turns,
        asyncio.TaskGroup() as tasks,
    ):
        paused = tasks.create_task(turns.run(first, house.retake, Cancellation()))
        await pause.arrived.wait()
        memory(house).lose(task_id, 3)
        running = tasks.create_task(other_turns.run(await house.claim(), house.retake, Cancellation()))
        await successor.began.wait()
        pause.go_on.set()
        await paused
        assert (await house.task(task_id)).status == "running"
        go_on.set()
        await running
    await house.assert_ended_well(task_id)
    assert await house.conversation(task_id) == ["user: Hi", "assistant: A whole answer."]


async def test_pitfall_61_the_log_is_opened_before_it_is_read(house: House) -> None:
    await half_an_answer(house)
    fault = Fault()
    await house.run(await house.claim(), whole_answer(), logs=Watched(house.logs, fault))
    assert fault.calls[:2] == ["open", "read"]


# --- death at every call ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_behind", [False, True], ids=["in front", "behind"])
@pytest.mark.parametrize("before", [None, "append", "end", "finish"])
@pytest.mark.parametrize(
    ("text", "conversation"),
    [
        ("/reason Hm\n/say Hello there", ["user: /reason Hm\n/say Hello there", "assistant: [Hm]Hello there"]),
        ("/fail timeout", []),
        ("/say So far\n/fail timeout", ["user: /say So far\n/fail timeout", "assistant: So far"]),
        (CANCELLED, [f"user: {CANCELLED}"]),
    ],
    ids=["succeeds", "is bounced", "fails amid the answer", "cancelled"],
)
async def test_pitfalls_26_69_whatever_call_a_holder_dies_at_the_end_is_the_same(
    house: House, text: str, conversation: list[str], before: str | None, is_behind: bool
) -> None:
    """Every call that a turn makes to either store, enumerated: F1 to F4 among them.

    The holder that dies is the first, or the second after one that died behind its first call of `before`.
    """
    seen: set[str] = set()
    for at in range(100):
        task_id = await house.post(text)
        if text == CANCELLED:
            await house.tasks.cancel(EVERYONES, task_id)
        if before is not None:
            await die_at(house, before, is_behind=True)
        death = Death(at=at, is_behind=is_behind)
        if not await dies(house, await house.claim(LAPSED), death, None):
            break
        seen.add(death.calls[at])
        for claim in await house.queue.claim(10, 60):  # none where nothing was left to do
            await house.run(claim)
        await house.assert_ended_well(task_id)
        assert await house.conversation(task_id) == conversation, death.calls
        assert await house.queue.claim(1, 1) == []
    assert (
        seen
        == {
            None: {"open", "append", "end", "finish", "close"},
            "append": {"open", "read", "steps", "append", "end", "finish", "close"},
            "end": {"open", "read", "finish", "close"},
            "finish": {"open", "read", "close"},
        }[before]
    )


# --- stores that fail for a moment ------------------------------------------------------------------------------------


async def posted(house: House, verb: str) -> TaskId:
    """A task whose holder will call this verb: only a log that was begun by another is read."""
    task_id = await house.post("/say Hello")
    if verb == "read":
        await die_at(house, "append", is_behind=True)
    return task_id


def _raise(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize("is_behind", [False, True], ids=["nothing happened", "the reply was lost"])
@pytest.mark.parametrize("verb", ["open", "read", "append", "end", "finish", "close"])
async def test_pitfall_24_a_store_that_is_away_for_a_moment_changes_nothing(
    house: House, verb: str, is_behind: bool
) -> None:
    task_id = await posted(house, verb)
    error = DatabaseUnavailable() if verb in {"end", "close"} else LogUnavailable()
    fault = Once(verb=verb, act=_raise(error), is_behind=is_behind)
    ports = {"logs": Watched(house.logs, fault), "queue": Watched(house.queue, fault)}
    await house.run(await house.claim(), **ports)
    assert fault.done
    await house.assert_ended_well(task_id)
    assert await house.conversation(task_id) == ["user: /say Hello", "assistant: Hello"]
    attempts = [line for line in await house.told(task_id) if line.startswith("data-attempt")]
    assert attempts == ["data-attempt 1", "data-attempt 2"][: 2 if verb == "read" else 1]


@pytest.mark.parametrize("verb", ["open", "read", "history", "end", "close"])
async def test_that_a_turn_waits_for_a_store_is_told_once_and_that_it_goes_on(house: House, verb: str) -> None:
    task_id = await posted(house, verb)
    error = LogUnavailable if verb in {"open", "read"} else DatabaseUnavailable

    class Away(Fault):
        async def before(self, name: str) -> None:
            await super().before(name)
            if name == verb and self.calls.count(verb) <= 2:
                raise error from ConnectionResetError("postgresql://u:hunter2@host")

    away, messages = Away(), house.messages
    house.messages = Watched(messages, away)
    with structlog.testing.capture_logs() as logs:
        await house.run(await house.claim(), logs=Watched(house.logs, away), queue=Watched(house.queue, away))
    house.messages = messages
    assert away.calls.count(verb) >= 3
    assert house.waits == [STORE_RETRY_SECONDS] * 2
    name = error.__name__
    waits = {"task_id": task_id, "because": name, "cause": "ConnectionResetError", "log_level": "warning"}
    assert [entry for entry in logs if entry["event"] in {"turn_waits", "turn_goes_on"}] == [
        {"event": "turn_waits", **waits},
        {"event": "turn_goes_on", "task_id": task_id, "because": name, "log_level": "info"},
    ]
    await house.assert_ended_well(task_id)


@pytest.mark.parametrize("is_behind", [False, True], ids=["in front", "behind"])
@pytest.mark.parametrize("verb", ["open", "read", "end", "close"])
async def test_pitfall_19_a_mistake_at_a_port_ends_the_task_once(house: House, verb: str, is_behind: bool) -> None:
    """Whatever was decided before the mistake stands; what was not is a failure; the log has one end of it."""
    task_id = await posted(house, verb)
    fault = Once(verb=verb, act=_raise(RuntimeError("a mistake")), is_behind=is_behind)
    ports = {"logs": Watched(house.logs, fault), "queue": Watched(house.queue, fault)}
    await house.run(await house.claim(), **ports)
    decided = verb == "close" or (verb == "end" and is_behind)
    task = await house.task(task_id)
    assert (task.status, task.error_type) == (("succeeded", None) if decided else ("failed", "unexpected_error"))
    await house.assert_ended_well(task_id)


async def test_a_turn_whose_events_make_no_log_is_given_up(house: House) -> None:
    """A mistake of ours: it is not repeated for as long as the task is held."""
    task_id = await house.post("/say Hello")

    class Strict(Watched):
        async def append(self, batches: Sequence[Batch]) -> Sequence[AppendResult]:
            if batches[0].epoch == 1:
                return [Invalid()] * len(batches)
            results: Sequence[AppendResult] = await house.logs.append(batches)
            return results

    await house.run(await house.claim(), logs=Strict(house.logs, Fault()))
    task = await house.task(task_id)
    assert (task.status, task.error_type) == ("failed", "unexpected_error")
    await house.assert_ended_well(task_id)


# --- a store that loses what it had ----------------------------------------------------------------------------------


def memory(house: House) -> MemoryLogStore:
    assert isinstance(house.logs, MemoryLogStore)
    return house.logs


@pytest.mark.parametrize("keep", range(7))
async def test_a_tail_that_the_writer_still_has_is_restored(house: House, keep: int) -> None:
    task_id = await house.post("Hi")
    said = asyncio.Event()
    model = Script(TextPiece("One "), said, lambda: memory(house).lose(task_id, keep), TextPiece("two."), ENDED)
    async with house.turns(model) as turns, asyncio.TaskGroup() as tasks:
        work = tasks.create_task(turns.run(await house.claim(), house.retake, Cancellation()))
        await until(lambda: house.told(task_id), lambda lines: lines[-1:] == ["text-delta p1: One "])
        said.set()
        await work
    await house.assert_ended_well(task_id)
    assert [line for line in await house.told(task_id) if line.startswith(("data-attempt", "reset"))] == [
        "data-attempt 1"
    ]
    assert await house.conversation(task_id) == ["user: Hi", "assistant: One two."]


@pytest.mark.parametrize("keep", range(6))
async def test_a_loss_amid_the_answer_that_nobody_can_restore_takes_a_new_epoch(house: House, keep: int) -> None:
    """The second holder never had what the first one wrote: it takes a third epoch and says the answer again."""
    task_id = await half_an_answer(house)  # six events
    said = asyncio.Event()
    model = Script(TextPiece("One "), said, lambda: memory(house).lose(task_id, keep), TextPiece("two."), ENDED)
    async with house.turns(model) as turns, asyncio.TaskGroup() as tasks:
        work = tasks.create_task(turns.run(await house.claim(), house.retake, Cancellation()))
        await until(lambda: house.told(task_id), lambda lines: lines[-1:] == ["text-delta p1: One "])
        said.set()
        await work
    await house.assert_ended_well(task_id)
    assert "data-attempt 3" in await house.told(task_id)
    assert await house.conversation(task_id) == ["user: Hi", "assistant: One two."]


async def test_after_a_loss_time_goes_on_above_what_was_lost_though_the_clock_was_set_back(house: House) -> None:
    task_id = await half_an_answer(house)  # six events
    said = asyncio.Event()
    clock = Clock(ms=4_102_444_800_000)  # in 2100

    def lose_and_set_back() -> None:
        memory(house).lose(task_id, 3)
        clock.ms = 1_000

    model = Script(TextPiece("One "), said, lose_and_set_back, TextPiece("two."), ENDED)
    async with house.turns(model, clock_ms=lambda: clock.ms) as turns, asyncio.TaskGroup() as tasks:
        work = tasks.create_task(turns.run(await house.claim(), house.retake, Cancellation()))
        await until(lambda: house.told(task_id), lambda lines: lines[-1:] == ["text-delta p1: One "])
        highest = (await house.positions(task_id))[-1]
        said.set()
        await work
    kept, new = (await house.positions(task_id))[:3], (await house.positions(task_id))[3:]
    assert highest.ms == 4_102_444_800_000 > kept[-1].ms
    assert all(position.ms > highest.ms for position in new)
    await house.assert_ended_well(task_id)


@pytest.mark.parametrize("keep", range(14))
async def test_a_loss_after_the_end_was_decided_still_ends_the_log(house: House, keep: int) -> None:
    """Behind F2 the answer is stored: it is not said again, and the log is one that a reader can follow."""
    task_id = await half_an_answer(house)
    fault = Once(verb="end", act=lambda: memory(house).lose(task_id, keep), is_behind=True)
    await house.run(await house.claim(), whole_answer(), queue=Watched(house.queue, fault))
    lines = await house.told(task_id)
    assert lines[-1] == "finish stop, succeeded: A whole answer."
    assert await house.conversation(task_id) == ["user: Hi", "assistant: A whole answer."]
    _assert_readable(await house.log(task_id))


@pytest.mark.parametrize("keep", range(10))
async def test_a_loss_after_a_holder_died_behind_the_decision_still_ends_the_log(house: House, keep: int) -> None:
    task_id = await house.post("/say Hello")
    await die_at(house, "end", is_behind=True)
    memory(house).lose(task_id, keep)
    await house.run(await house.claim())
    assert (await house.told(task_id))[-1] == "finish stop, succeeded: Hello"
    _assert_readable(await house.log(task_id))


@pytest.mark.parametrize("keep", range(6))
async def test_a_loss_after_a_failure_was_decided_still_ends_the_log(house: House, keep: int) -> None:
    task_id = await house.post("/fail rate_limit")
    await die_at(house, "end", is_behind=True)
    memory(house).lose(task_id, keep)
    await house.run(await house.claim())
    assert (await house.told(task_id))[-1] == "finish error, failed: "
    _assert_readable(await house.log(task_id))


def _assert_readable(chunks: list[e.Chunk | e.Unknown]) -> None:

    fold = LogFold()
    for chunk in chunks:
        fold.apply(chunk)
    assert fold.finish is not None


# --- a log that makes no sense ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_closed", [False, True], ids=["open", "closed"])
async def test_a_task_whose_log_makes_no_sense_is_ended_as_failed(house: House, is_closed: bool) -> None:
    task_id = await house.post("Hi")
    joint = framed(1, 1, [encode(e.FinishStep())])
    await house.logs.open(task_id, Epoch(0), BEGINNING)
    await house.logs.append([Batch(task_id, Epoch(0), BEGINNING, Position(1, 1), joint, is_closed)])
    model = whole_answer()
    await house.run(await house.claim(), model)
    task = await house.task(task_id)
    assert (task.status, task.error_type) == ("failed", "unexpected_error")
    assert model.calls == []
    assert await house.queue.claim(1, 1) == []
    assert (await house.logs.head(task_id)).closed
    lines = await house.told(task_id)
    assert [line.split()[0] for line in lines[1:]] == ([] if is_closed else ["task", "error", "finish"])


async def test_what_was_said_before_a_mistake_is_kept_as_its_log_tells_it(house: House) -> None:
    """The part that the first holder left open is closed, in the log and in the message."""
    task_id = await half_an_answer(house)
    messages = house.messages
    house.messages = Watched(messages, Once(verb="history", act=_raise(RuntimeError("a mistake"))))
    await house.run(await house.claim(), whole_answer())
    house.messages = messages
    await house.assert_ended_well(task_id)
    assert await house.conversation(task_id) == ["user: Hi", "assistant: Half"]


# --- a turn that is left ----------------------------------------------------------------------------------------------


async def test_pitfall_25_of_a_turn_that_was_stopped_nothing_more_is_written(house: House) -> None:
    """What its writer had taken already is the last; whatever else it had handed in is not sent."""
    task_id = await house.post("first")
    pause = Pause(verb="append")
    more, said = asyncio.Event(), asyncio.Event()
    model = Script(TextPiece("Half"), more, TextPiece(" and more"), said.set, asyncio.Event())
    async with house.turns(model, logs=Watched(house.logs, pause)) as turns, asyncio.TaskGroup() as tasks:
        work = tasks.create_task(turns.run(await house.claim(), house.retake, Cancellation()))
        await pause.arrived.wait()
        more.set()
        await said.wait()
        work.cancel()
        await asyncio.wait([work])
        pause.go_on.set()
        other_id = await house.post("another")
        other = tasks.create_task(turns.run(await house.claim(), house.retake, Cancellation()))
        await until(lambda: house.told(other_id), lambda lines: lines[-1:] == ["text-delta p1: Half and more"])
        other.cancel()
    assert (await house.told(task_id))[-1] == "text-delta p1: Half"


# --- a database that was set back -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["/say Hello", "/fail rate_limit"])
async def test_a_log_that_is_closed_while_its_task_still_runs_is_believed(house: House, text: str) -> None:
    """The database lost the end and its closing; the log tells both."""
    database = house.database
    task_id = await house.post(text)
    await house.run(await house.claim(), DemoModel())
    before = (await house.task(task_id)).status, await house.conversation(task_id)
    await database.fetch("UPDATE tasks SET status = 'running', ending = NULL, log_closed = false, error_type = NULL")
    await database.fetch("DELETE FROM messages WHERE role = 'assistant'")
    await database.fetch("UPDATE leases SET lease_until = '-infinity'")
    await house.run(await house.claim(), DemoModel())
    assert ((await house.task(task_id)).status, await house.conversation(task_id)) == before
    assert await database.fetch("SELECT FROM tasks WHERE NOT log_closed") == []
