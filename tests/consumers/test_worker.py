"""A worker in virtual time: when it claims, how long it may work, how it stops."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence

import pytest
import structlog

from consumers.tasks import DRAIN_SECONDS, POLL_SECONDS, STOP_SECONDS
from service.agent.model_call import MAX_SILENCE_SECONDS
from service.model.errors import DatabaseUnavailable
from service.model.events import Usage
from service.model.generation import CallEnded, Piece, TextPiece, Utterance
from service.model.ids import TaskId
from tests.consumers.virtual import LEASE_SECONDS, Town

MAY_WORK_SECONDS = LEASE_SECONDS * 2 / 3
LOOK_SECONDS = LEASE_SECONDS / 30
RENEW_SECONDS = LEASE_SECONDS / 5


class Speaker:
    """A model that speaks for so long, a word a second; where it is asked `slow` it takes so long to stop.

    `calls` says when each call began, `ended` when it was over.
    """

    provider = "the speaker"

    def __init__(self, seconds: int, *, closing_seconds: float = 0, silent: bool = False) -> None:
        self._seconds = seconds
        self._closing_seconds = closing_seconds
        self._silent = silent
        self.calls: list[float] = []
        self.ended: list[float] = []

    async def stream(self, task_id: TaskId, conversation: Sequence[Utterance]) -> AsyncGenerator[Piece]:
        now = asyncio.get_running_loop().time
        self.calls.append(now())
        try:
            yield TextPiece("Well: ")
            for second in range(self._seconds):
                await asyncio.sleep(1)
                if not self._silent:
                    yield TextPiece(f"{second} ")
            yield CallEnded("stop", Usage(1, 1))
        finally:
            if getattr(conversation[0].parts[0], "text", "") == "slow":
                await asyncio.sleep(self._closing_seconds)
            self.ended.append(now())


@pytest.fixture(params=range(5))
def town(request: pytest.FixtureRequest) -> Iterator[Town]:
    town = Town(request.param)
    yield town
    town.leave()


def away() -> "asyncio.Future[None]":
    raise DatabaseUnavailable


def silence() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


def late(seconds: float) -> "asyncio.Future[None]":
    return asyncio.ensure_future(asyncio.sleep(seconds))


# --- claiming ---------------------------------------------------------------------------------------------------------


def test_a_ring_is_followed_at_once_and_a_lost_one_within_a_poll(town: Town) -> None:
    model = Speaker(0)
    town.work(model)
    town.pass_time(POLL_SECONDS / 2)
    town.tasks.post()
    town.loop.run(town.bell.ring())
    town.pass_time(POLL_SECONDS / 10)
    town.tasks.post()
    town.pass_time(POLL_SECONDS)
    assert [call <= limit for call, limit in zip(model.calls, (0.6, 1.6), strict=True)] == [True, True]
    assert all(row.log_closed for row in town.tasks.rows.values())


def test_no_more_is_claimed_than_there_is_room_for_and_the_rest_as_soon_as_there_is(town: Town) -> None:
    for _ in range(5):
        town.tasks.post()
    model = Speaker(3)
    town.work(model, capacity=2)
    town.pass_time(9.5)
    assert model.calls == pytest.approx([0, 0, 3, 3, 6], abs=0.01)
    assert all(row.log_closed for row in town.tasks.rows.values())


def test_a_database_that_is_away_is_asked_again(town: Town) -> None:
    town.tasks.trouble = lambda verb: away() if verb == "claim" else None
    task_id = town.tasks.post()
    town.work(Speaker(0))
    town.pass_time(LEASE_SECONDS * 2)  # the claim took effect, its answer was lost: the lease has to lapse first
    assert town.tasks.rows[task_id].task.status == "running"
    town.tasks.trouble = lambda _: None
    town.pass_time(LEASE_SECONDS + POLL_SECONDS)
    assert town.tasks.rows[task_id].log_closed


# --- leases -----------------------------------------------------------------------------------------------------------


def test_a_turn_that_takes_longer_than_its_lease_stays_its_workers(town: Town) -> None:
    task_id = town.tasks.post()
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
    task_id = town.tasks.post()
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
    town.tasks.trouble = lambda _: None
    town.pass_time(LEASE_SECONDS)
    assert town.tasks.rows[task_id].epoch == 2
    assert sent + LEASE_SECONDS <= model.calls[1] <= sent + LEASE_SECONDS + POLL_SECONDS + 0.01


def test_a_renewal_counts_from_when_it_was_sent(town: Town) -> None:
    town.tasks.post()
    model = Speaker(100)
    town.tasks.trouble = lambda verb: late(2) if verb == "renew" else None
    town.work(model)
    town.pass_time(RENEW_SECONDS + 2.5)
    town.tasks.trouble = lambda verb: away() if verb == "renew" else None
    town.pass_time(MAY_WORK_SECONDS)
    limit = RENEW_SECONDS + MAY_WORK_SECONDS
    assert limit <= model.ended[0] <= limit + LOOK_SECONDS + 0.01


def test_a_claim_counts_from_when_it_was_asked_for(town: Town) -> None:
    town.tasks.post()
    model = Speaker(100)
    town.tasks.trouble = lambda verb: late(MAY_WORK_SECONDS - 1) if verb == "claim" else away()
    town.work(model)
    town.pass_time(LEASE_SECONDS)
    assert model.ended[0] <= MAY_WORK_SECONDS + LOOK_SECONDS + 0.01


def test_who_is_stopped_is_told_once_and_may_close_what_it_has_open(town: Town) -> None:
    town.tasks.post("slow")
    model = Speaker(100, closing_seconds=3)
    town.tasks.trouble = lambda verb: away() if verb == "renew" else None
    town.work(model)
    town.pass_time(MAY_WORK_SECONDS + LOOK_SECONDS + 3.1)
    assert model.ended[0] >= MAY_WORK_SECONDS + 3


def test_a_model_that_says_nothing_any_more_ends_its_turn_as_failed(town: Town) -> None:
    task_id = town.tasks.post()
    town.work(Speaker(10_000, silent=True))
    town.pass_time(MAX_SILENCE_SECONDS - 1)
    assert town.tasks.rows[task_id].task.status == "running"
    town.pass_time(2)
    task = town.tasks.rows[task_id].task
    assert (task.status, task.error_type) == ("failed", "timeout")
    lines = town.told(task_id)
    assert (lines[-4], lines[-3]) == ("finish-step", "task failed timeout")
    assert lines[-1] == "finish error, failed: Well: "


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_an_idle_worker_stops_at_once(town: Town) -> None:
    working = town.work(Speaker(0))
    town.pass_time(0.3)
    assert town.stop(*working) < 0.01


def test_a_worker_that_is_told_to_stop_finishes_what_runs_and_takes_nothing_new(town: Town) -> None:
    task_id = town.tasks.post()
    working = town.work(Speaker(6))
    town.pass_time(1)
    working[1].set()
    town.pass_time(0)
    new = town.tasks.post()
    town.loop.run(town.bell.ring())
    assert town.stop(*working) == pytest.approx(5, abs=0.1)
    assert town.told(task_id)[-1].startswith("finish stop, succeeded")
    assert town.tasks.rows[new].epoch == 0


def test_what_takes_too_long_is_let_go_and_another_goes_on_at_once(town: Town) -> None:
    tasks = [town.tasks.post() for _ in range(3)]
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
    slow, quick = town.tasks.post("slow"), town.tasks.post("quick")
    first, second = Speaker(100, closing_seconds=STOP_SECONDS + 30), Speaker(0)
    _, stop = town.work(first)
    town.pass_time(1)
    town.work(second)
    stop.set()
    town.pass_time(DRAIN_SECONDS + STOP_SECONDS + 1)
    assert len(second.calls) == 1
    assert [town.tasks.rows[task_id].epoch for task_id in (slow, quick)] == [1, 2]


@pytest.mark.parametrize("trouble", [away, silence], ids=["away", "mute"])
def test_a_database_that_is_away_does_not_hold_up_a_stop(town: Town, trouble: object) -> None:
    task_id = town.tasks.post()
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
