"""A worker in virtual time: when it claims, how long it may work, how it stops."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, MutableMapping, Sequence
from contextlib import aclosing
from typing import Any

import pytest
import structlog

from consumers.tasks import ABORT_SECONDS, CANCEL_POLL_SECONDS, DRAIN_SECONDS, POLL_SECONDS, STOP_SECONDS
from service.adapters.memory_database import LAPSED
from service.agent.model_call import MAX_SILENCE_SECONDS
from service.agent.retry import FIRST_WAIT_SECONDS, MAX_RETRIES
from service.model.failures import ModelCallFailed
from service.model.generation import Piece, Prompt
from service.model.ids import TaskId
from service.model.operation import Completion, Delivery, NewOperation, Succeeded
from service.model.task import CancelRequested, TaskDue
from tests.consumers import virtual
from tests.consumers.virtual import LEASE_SECONDS, Speaker, Town, away, late, mistake, silence

MAY_WORK_SECONDS = LEASE_SECONDS * 2 / 3
LOOK_SECONDS = LEASE_SECONDS / 30
RENEW_SECONDS = CANCEL_POLL_SECONDS


@pytest.fixture(params=range(5))
def town(request: pytest.FixtureRequest) -> Iterator[Town]:
    town = Town(request.param)
    yield town
    town.leave()


# --- claiming ---------------------------------------------------------------------------------------------------------


def test_a_ring_is_followed_at_once_and_a_lost_one_within_a_poll(town: Town) -> None:
    model = Speaker(0)
    town.work(model)
    town.pass_time(POLL_SECONDS / 2)
    town.post()
    town.loop.run(town.bell.ring(TaskDue()))
    town.pass_time(POLL_SECONDS / 10)
    town.post()
    town.pass_time(POLL_SECONDS)
    assert [call <= limit for call, limit in zip(model.calls, (0.6, 1.6), strict=True)] == [True, True]
    assert all(row.log_closed for row in town.tasks.rows.values())


def test_no_more_is_claimed_than_there_is_room_for_and_the_rest_as_soon_as_there_is(town: Town) -> None:
    for _ in range(5):
        town.post()
    model = Speaker(3)
    town.work(model, capacity=2)
    town.pass_time(9.5)
    assert model.calls == pytest.approx([0, 0, 3, 3, 6], abs=0.01)
    assert all(row.log_closed for row in town.tasks.rows.values())


def test_a_database_that_is_away_is_asked_again(town: Town) -> None:
    town.tasks.trouble = lambda verb: away() if verb == "claim" else None
    task_id = town.post()
    town.work(Speaker(0))
    town.pass_time(LEASE_SECONDS * 2)  # the claim took effect, its answer was lost: the lease has to lapse first
    assert town.tasks.rows[task_id].task.status == "running"
    town.tasks.trouble = lambda _: None
    town.pass_time(LEASE_SECONDS + POLL_SECONDS)
    assert town.tasks.rows[task_id].log_closed


class OnceRefused(Speaker):
    """Whose third call fails for good."""

    async def stream(self, task_id: TaskId, prompt: Prompt) -> AsyncGenerator[Piece]:
        async with aclosing(super().stream(task_id, prompt)) as pieces:
            async for piece in pieces:
                if len(self.calls) == 3:
                    raise ModelCallFailed("validation_error", is_retryable=False)
                yield piece


def test_what_waits_for_a_session_begins_as_soon_as_it_is_free(town: Town) -> None:
    """Follow-ups, behind a turn, behind one that ends, and behind one that rests. Then nothing is looked for but once a
    poll."""
    claims: list[str] = []
    town.tasks.trouble = lambda verb: claims.append(verb) if verb == "claim" else None  # type: ignore[func-returns-value]
    town.post()
    (turn,) = town.loop.run(town.tasks.claim(1, LEASE_SECONDS))
    for call_id in ("c1", "c2", "c3"):
        begun = town.loop.run(town.desk.begin(turn, NewOperation(call_id, "render", "remote", {}, None)))
        ended = Completion(begun.operation.id, Succeeded(None), Delivery("http", "local"))
        town.loop.run(town.desk.complete(ended))
    town.loop.run(town.tasks.renew([turn], 0))
    model = OnceRefused(0)
    town.work(model)
    town.pass_time(POLL_SECONDS / 2)
    assert model.calls == [0, 0, 0, 0]
    assert sorted(row.task.status for row in town.tasks.rows.values()) == ["queued", *["succeeded"] * 3]
    claims.clear()
    town.pass_time(POLL_SECONDS * 10)
    assert len(claims) == 10


# --- leases -----------------------------------------------------------------------------------------------------------


def test_a_turn_that_takes_longer_than_its_lease_stays_its_workers(town: Town) -> None:
    task_id = town.post()
    model, other = Speaker(100), Speaker(0)
    town.work(model)
    town.pass_time(0.1)
    town.work(other)
    town.pass_time(110)
    assert (len(model.calls), other.calls) == (1, [])
    assert town.tasks.rows[task_id].log_closed
    assert town.tasks.rows[task_id].epoch == 1


@pytest.mark.parametrize(
    "trouble", [away, silence, lambda: late(LEASE_SECONDS / 6 + 0.1)], ids=["away", "mute", "slow"]
)
def test_pitfall_21_who_cannot_renew_stops_before_another_may_begin(town: Town, trouble: object) -> None:
    """No store can delay it; and the other takes over when the lease has lapsed, not before."""
    task_id = town.post()
    model = Speaker(100)
    town.work(model)
    town.pass_time(RENEW_SECONDS * 2 + 0.5)
    town.tasks.trouble = lambda verb: trouble() if verb == "renew" else None  # type: ignore[operator]
    sent = RENEW_SECONDS * 2  # the last renewal that was answered
    with structlog.testing.capture_logs() as logs:
        town.pass_time(MAY_WORK_SECONDS + LOOK_SECONDS)
    assert [entry["event"] for entry in logs].count("lease_lapsed") == 1
    assert sent + MAY_WORK_SECONDS <= model.ended[0] <= sent + MAY_WORK_SECONDS + LOOK_SECONDS + 0.01
    assert town.tasks.rows[task_id].lease_until > model.ended[0]
    town.pass_time(LEASE_SECONDS)
    assert town.tasks.rows[task_id].epoch == 2
    assert sent + LEASE_SECONDS <= model.calls[1] <= sent + LEASE_SECONDS + POLL_SECONDS + 0.01


def test_two_renewals_that_get_no_answer_cost_no_lease(town: Town) -> None:
    task_id = town.post()
    answers = iter([silence, silence])
    town.tasks.trouble = lambda verb: next(answers, lambda: None)() if verb == "renew" else None
    town.work(Speaker(30))
    with structlog.testing.capture_logs() as logs:
        town.pass_time(32)
    assert [entry["event"] for entry in logs if entry["log_level"] != "info"] == ["renewal_failed"]
    assert [entry["after_seconds"] for entry in logs if entry["event"] == "renewal_goes_on"] == [6.0]
    assert (town.tasks.rows[task_id].log_closed, town.tasks.rows[task_id].epoch) == (True, 1)


def test_a_renewal_counts_from_when_it_was_sent(town: Town) -> None:
    town.post()
    model = Speaker(100)
    town.tasks.trouble = lambda verb: late(2) if verb == "renew" else None
    town.work(model)
    town.pass_time(RENEW_SECONDS + 2.5)
    town.tasks.trouble = lambda verb: away() if verb == "renew" else None
    town.pass_time(MAY_WORK_SECONDS)
    limit = RENEW_SECONDS + MAY_WORK_SECONDS
    assert limit <= model.ended[0] <= limit + LOOK_SECONDS + 0.01


def test_a_claim_counts_from_when_it_was_asked_for(town: Town) -> None:
    town.post()
    model = Speaker(100)
    town.tasks.trouble = lambda verb: late(MAY_WORK_SECONDS - 1) if verb == "claim" else away()
    town.work(model)
    town.pass_time(LEASE_SECONDS)
    assert model.ended[0] <= MAY_WORK_SECONDS + LOOK_SECONDS + 0.01


def test_a_claim_whose_time_is_up_when_its_answer_comes_is_not_begun(town: Town) -> None:
    """It lapses; and nothing of it is kept, or there would be no room for the next claim."""
    task_id = town.post()
    answers = iter([MAY_WORK_SECONDS])
    verbs: list[str] = []

    def trouble(verb: str) -> "asyncio.Future[None] | None":
        verbs.append(verb)
        return late(next(answers, 0)) if verb == "claim" else None

    town.tasks.trouble = trouble
    model = Speaker(0)
    with structlog.testing.capture_logs() as logs:
        town.work(model, capacity=1)
        town.pass_time(LEASE_SECONDS - 0.1)
    assert (model.calls, set(verbs)) == ([], {"claim"})
    assert [entry["task_ids"] for entry in logs if entry["event"] == "claims_came_late"] == [[task_id]]
    town.pass_time(POLL_SECONDS + 0.2)
    assert town.tasks.rows[task_id].log_closed
    assert town.tasks.rows[task_id].epoch == 2


def test_a_turn_that_is_stopped_before_its_first_step_is_not_held_on(town: Town) -> None:
    """The clock goes on by a lease at the moment at which it is claimed: a machine that was asleep."""
    slept = 0.0

    def monotonic() -> float:
        nonlocal slept
        task = asyncio.current_task()
        if task is not None and task.get_name() == "lapsed":
            slept = LEASE_SECONDS
        return town.loop.time() + slept

    tasks = [town.post() for _ in range(4)]
    town.tasks.trouble = lambda verb: late(LOOK_SECONDS) if verb == "claim" and town.loop.time() < 0.1 else None
    town.work(Speaker(0), capacity=4, monotonic=monotonic)
    town.pass_time(LEASE_SECONDS + 2 * POLL_SECONDS)
    assert [town.tasks.rows[task_id].log_closed for task_id in tasks] == [True] * 4


def test_the_lease_of_a_turn_that_is_being_stopped_is_not_renewed(town: Town) -> None:
    """The database is back while the turn still closes what it has open; then another takes it over in time."""
    task_id = town.post("slow")
    model, other = Speaker(100, closing_seconds=30), Speaker(0)
    town.tasks.trouble = lambda verb: away() if verb == "renew" else None
    town.work(model, capacity=1)
    town.pass_time(MAY_WORK_SECONDS + LOOK_SECONDS + 0.1)
    town.tasks.trouble = lambda _: None
    town.work(other)
    town.pass_time(LEASE_SECONDS + POLL_SECONDS - town.loop.time())
    assert model.ended == []
    assert (len(other.calls), town.tasks.rows[task_id].epoch) == (1, 2)


def test_who_is_stopped_is_told_once_and_may_close_what_it_has_open(town: Town) -> None:
    town.post("slow")
    model = Speaker(100, closing_seconds=3)
    town.tasks.trouble = lambda verb: away() if verb == "renew" else None
    town.work(model)
    town.pass_time(MAY_WORK_SECONDS + LOOK_SECONDS + 3.1)
    assert model.ended[0] >= MAY_WORK_SECONDS + 3


@pytest.mark.parametrize("rings", [True, False])
def test_a_task_that_is_to_be_cancelled_ends_within_seconds(town: Town, rings: bool) -> None:
    """At once where the ring is heard, with the next renewal where it is not."""
    task_id, other_id = town.post(), town.post()
    town.work(Speaker(100))
    town.pass_time(5.5)
    town.cancel(task_id)
    if rings:
        town.loop.run(town.bell.ring(CancelRequested(task_id)))
    town.pass_time(0.1 if rings else CANCEL_POLL_SECONDS)
    assert town.tasks.rows[task_id].task.status == "cancelled"
    assert town.told(task_id)[-2] == "abort cancelled by owner"
    assert town.tasks.rows[other_id].task.status == "running"


def test_a_renewal_that_fails_delays_no_cancellation_however_long_the_lease(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(virtual, "LEASE_SECONDS", 3600.0)
    task_id = town.post()
    answers = iter([away])
    town.tasks.trouble = lambda verb: next(answers, lambda: None)() if verb == "renew" else None
    town.work(Speaker(100))
    town.pass_time(CANCEL_POLL_SECONDS + 0.1)
    town.cancel(task_id)
    town.pass_time(CANCEL_POLL_SECONDS)
    assert town.tasks.rows[task_id].task.status == "cancelled"


def test_a_queued_task_that_is_to_be_cancelled_is_ended_by_a_worker_that_is_told(town: Town) -> None:
    town.work(Speaker(100))
    town.pass_time(0.5)
    task_id = town.post()
    town.cancel(task_id)
    town.loop.run(town.bell.ring(CancelRequested(task_id)))
    town.pass_time(0.1)
    assert town.tasks.rows[task_id].task.status == "cancelled"
    assert "start-step" not in town.told(task_id)


def test_pitfall_25_a_cancelled_turn_is_held_until_its_model_has_let_go(town: Town) -> None:
    """It ends only then: nobody says "ended" while something of it can still write."""
    task_id = town.post("slow")
    model = Speaker(100, closing_seconds=2)
    town.work(model)
    town.pass_time(5.5)
    town.cancel(task_id)
    town.loop.run(town.bell.ring(CancelRequested(task_id)))
    town.pass_time(1.9)
    assert town.tasks.rows[task_id].task.status == "running"
    town.pass_time(0.2)
    assert town.tasks.rows[task_id].task.status == "cancelled"
    assert len(model.ended) == 1


def test_a_model_that_says_nothing_any_more_ends_its_turn_as_failed(town: Town) -> None:
    task_id = town.post()
    town.work(Speaker(10_000, silent=True))
    town.pass_time(MAX_SILENCE_SECONDS - 1)
    assert town.tasks.rows[task_id].task.status == "running"
    town.pass_time(2 + MAX_RETRIES * (MAX_SILENCE_SECONDS + FIRST_WAIT_SECONDS * 2**MAX_RETRIES))
    task = town.tasks.rows[task_id].task
    assert (task.status, task.error_type) == ("failed", "timeout")
    lines = town.told(task_id)
    assert (lines[-4], lines[-3]) == ("finish-step", "task failed timeout")
    assert lines[-1] == "finish error, failed: Well: "


# --- what is told -----------------------------------------------------------------------------------------------------


def ends_told(logs: Sequence[MutableMapping[str, Any]]) -> list[tuple[str, int, str, float]]:
    ends = [entry for entry in logs if entry["event"] == "turn_ended"]
    assert all(entry["log_level"] == "info" for entry in ends)
    return [
        (entry["task_id"], entry["epoch"], entry["how"], pytest.approx(entry["seconds"], abs=0.1)) for entry in ends
    ]


def test_each_turn_that_ends_has_a_line_with_how_and_how_long_it_took(town: Town) -> None:
    with structlog.testing.capture_logs() as logs:
        said = town.post()
        town.work(Speaker(3), capacity=1)
        town.pass_time(4)
        cancelled = town.post()
        town.pass_time(2.5)
        town.cancel(cancelled)
        town.loop.run(town.bell.ring(CancelRequested(cancelled)))
        town.pass_time(1)
        given_up = town.post()
        town.messages.history = lambda _: mistake()  # type: ignore[method-assign,assignment,return-value]
        town.pass_time(2)
    assert ends_told(logs) == [(said, 1, "succeeded", 3), (cancelled, 1, "cancelled", 1.5), (given_up, 2, "failed", 0)]


def test_whoever_appends_an_ending_that_is_owed_tells_of_the_end(town: Town) -> None:
    """Once, and as it was decided: the worker before was cut off between the decision and the closing."""
    task_id = town.post()
    town.tasks.trouble = lambda verb: silence() if verb in ("close", "renew") else None
    town.work(Speaker(3))
    with structlog.testing.capture_logs() as logs:
        town.pass_time(LEASE_SECONDS - 1)
        assert ends_told(logs) == []
        town.tasks.trouble = lambda _: None
        town.pass_time(2 * POLL_SECONDS)
    assert ends_told(logs) == [(task_id, 2, "succeeded", 0)]


# --- mistakes of ours -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["claim", "renew"])
def test_an_odd_error_at_a_loops_edge_ends_nobodys_turn(town: Town, verb: str) -> None:
    """It is told, with where it came from, and the loop goes on."""
    town.post()
    model = Speaker(6)
    town.work(model)
    town.pass_time(1)
    town.tasks.trouble = lambda asked: mistake() if asked == verb else None
    with structlog.testing.capture_logs() as logs:
        town.pass_time(3)
    failed = [entry for entry in logs if entry["event"] == {"claim": "claim_failed", "renew": "renewal_failed"}[verb]]
    assert failed
    assert all(entry["exc_info"] for entry in failed)
    town.tasks.trouble = lambda _: None
    late_one = town.post()
    town.pass_time(12)
    assert len(model.calls) == 2
    assert [row.epoch for row in town.tasks.rows.values()] == [1, 1]
    assert town.tasks.rows[late_one].log_closed


def test_a_doorbell_that_breaks_ends_nobodys_turn_and_is_listened_to_again(town: Town) -> None:
    town.post()
    model = Speaker(3)
    town.work(model)
    town.pass_time(0.3)
    town.bell.broken = RuntimeError("a mistake of ours")
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            town.loop.run(town.bell.ring(TaskDue()))
            town.pass_time(POLL_SECONDS + 0.05)
    assert [entry["event"] for entry in logs].count("doorbell_failed") == 1
    town.bell.broken = None
    town.pass_time(POLL_SECONDS + 0.05)
    town.post()
    town.loop.run(town.bell.ring(TaskDue()))
    asked = town.loop.time()
    town.pass_time(4)
    assert model.calls[1] == pytest.approx(asked, abs=0.01)
    assert all(row.log_closed and row.epoch == 1 for row in town.tasks.rows.values())


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_an_idle_worker_stops_at_once(town: Town) -> None:
    working = town.work(Speaker(0))
    town.pass_time(0.3)
    assert town.stop(*working) < 0.01


def test_a_worker_that_is_told_to_stop_finishes_what_runs_and_takes_nothing_new(town: Town) -> None:
    task_id = town.post()
    working = town.work(Speaker(6))
    town.pass_time(1)
    working[1].set()
    town.pass_time(0)
    new = town.post()
    town.loop.run(town.bell.ring(TaskDue()))
    assert town.stop(*working) == pytest.approx(5, abs=0.1)
    assert town.told(task_id)[-1].startswith("finish stop, succeeded")
    assert town.tasks.rows[new].epoch == 0


def test_what_takes_too_long_is_let_go_and_another_goes_on_at_once(town: Town) -> None:
    tasks = [town.post() for _ in range(3)]
    first, second = Speaker(100), Speaker(2)
    stopping = town.work(first)
    town.pass_time(1)
    town.work(second)
    town.pass_time(1)
    assert town.stop(*stopping) == pytest.approx(DRAIN_SECONDS, abs=0.01)
    stopped_at = town.loop.time()
    town.pass_time(3)
    assert second.calls == pytest.approx([stopped_at] * 3, abs=0.01)
    for task_id in tasks:
        lines = town.told(task_id)
        assert [line for line in lines if line.startswith("data-attempt")] == ["data-attempt 1", "data-attempt 2"]
        assert lines[-1] == "finish stop, succeeded: Well: 0 1 "


def test_pitfall_25_what_has_not_stopped_is_not_let_go(town: Town) -> None:
    """While it still closes what it has open, nobody else begins: its lease has to lapse. Others do not wait for it."""
    slow, quick = town.post("slow"), town.post("quick")
    first, second = Speaker(100, closing_seconds=STOP_SECONDS + 30), Speaker(0)
    _, stop = town.work(first)
    town.pass_time(1)
    town.work(second)
    stop.set()
    town.pass_time(DRAIN_SECONDS + STOP_SECONDS + 1)
    assert len(second.calls) == 1
    assert [town.tasks.rows[task_id].epoch for task_id in (slow, quick)] == [1, 2]


@pytest.mark.parametrize("deaf", [False, True], ids=["is interrupted", "is left"])
def test_what_does_not_stop_does_not_hold_up_the_stop_and_is_named(town: Town, deaf: bool) -> None:
    """It is interrupted; what takes no notice of that either is left. Its lease lapses in both cases."""
    task_id = town.post("slow")
    model = Speaker(100, closing_seconds=60, deaf=deaf)
    stopping = town.work(model)
    town.pass_time(1)
    with structlog.testing.capture_logs() as logs:
        took = town.stop(*stopping)
    assert took <= DRAIN_SECONDS + STOP_SECONDS + ABORT_SECONDS + 0.01
    assert [entry["still_running"] for entry in logs if entry["event"] == "turns_aborted"] == [
        [task_id] if deaf else []
    ]
    assert [entry["task_ids"] for entry in logs if entry["event"] == "turns_aborted"] == [[task_id]]
    assert [town.loop.time()] * (not deaf) == pytest.approx(model.ended, abs=ABORT_SECONDS)
    town.work(Speaker(0))
    town.pass_time(LEASE_SECONDS + POLL_SECONDS)
    assert (town.tasks.rows[task_id].log_closed, town.tasks.rows[task_id].epoch) == (True, 2)
    town.pass_time(60)  # by then it has ended by itself
    assert town.told(task_id)[-1].startswith("finish stop, succeeded")


def test_a_worker_that_is_cancelled_leaves_nothing_running(town: Town) -> None:
    tasks = [town.post("slow"), town.post()]
    model = Speaker(100, closing_seconds=1)
    working, _ = town.work(model)
    town.pass_time(1)
    working.cancel()
    town.loop.run(asyncio.wait([working]))
    assert working.cancelled()
    assert model.ended == pytest.approx([1, 2], abs=0.01)  # the one may close what it has open
    assert [town.tasks.rows[task_id].lease_until for task_id in tasks] == [LAPSED, LAPSED]


def test_a_drain_does_not_tell_a_second_time_who_was_told_to_stop(town: Town) -> None:
    """A second time would interrupt how it closes what it has open."""
    town.post("slow")
    model = Speaker(100, closing_seconds=STOP_SECONDS - 0.1)
    town.tasks.trouble = lambda verb: away() if verb == "renew" else None
    _, stop = town.work(model)
    told = MAY_WORK_SECONDS
    town.pass_time(told + LOOK_SECONDS + 0.2 - DRAIN_SECONDS)  # so that the drain ends amid the closing
    stop.set()
    town.pass_time(DRAIN_SECONDS + STOP_SECONDS)
    assert model.ended[0] >= told + STOP_SECONDS - 0.1


@pytest.mark.parametrize("trouble", [away, silence], ids=["away", "mute"])
def test_a_database_that_is_away_does_not_hold_up_a_stop(town: Town, trouble: object) -> None:
    task_id = town.post()
    stopping = town.work(Speaker(100))
    town.pass_time(1)
    stopping[1].set()
    town.pass_time(DRAIN_SECONDS - 2)
    town.tasks.trouble = lambda verb: trouble() if verb == "renew" else None  # type: ignore[operator]
    with structlog.testing.capture_logs() as logs:
        assert town.stop(*stopping) <= 2 + LEASE_SECONDS / 6 + 0.01
    assert "release_failed" in [entry["event"] for entry in logs]
    assert town.bell.rung_at == []
    town.tasks.trouble = lambda _: None
    town.work(Speaker(0))
    town.pass_time(LEASE_SECONDS + POLL_SECONDS)
    assert town.tasks.rows[task_id].log_closed
