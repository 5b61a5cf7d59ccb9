"""Workers whose stores are away, in virtual time: what they let go and claim, whom they judge, what they tell."""

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import pytest
import structlog

from consumers.outage import DOUBT_LEASES, OUTAGE_SHARE, Answers, Edge
from consumers.tasks import LOG_PATIENCE_SECONDS, POLL_SECONDS, STOP_SECONDS
from service.adapters.memory_database import LAPSED
from service.agent.turn import MAX_LOST_ATTEMPTS
from service.model.errors import DatabaseUnavailable
from service.registry.watch import AWAY_SECONDS, WATCH_SECONDS
from tests.consumers.virtual import LEASE_SECONDS, Line, Speaker, Town, late

LET_GO_SECONDS = WATCH_SECONDS + LOG_PATIENCE_SECONDS + 2 * POLL_SECONDS
"""After so long without its log store a worker has let go what stops at once, and another has found it."""

BACK_SECONDS = AWAY_SECONDS + POLL_SECONDS + 0.1
"""So soon after its log store is back it claims."""


@pytest.fixture(params=range(2))
def town(request: pytest.FixtureRequest) -> Iterator[Town]:
    town = Town(request.param)
    yield town
    town.leave()


def told(logs: Sequence[MutableMapping[str, Any]], *events: str) -> list[str]:
    return [entry["event"] for entry in logs if entry["event"] in events]


# --- a log store that is away -----------------------------------------------------------------------------------------


def test_a_turn_whose_worker_is_cut_off_from_its_logs_is_finished_by_another(town: Town) -> None:
    task_id = town.post()
    line, first, second = Line(), Speaker(1000), Speaker(2)
    town.work(first, line=line)
    town.pass_time(3.5)
    town.work(second)
    line.logs.is_cut = True
    town.pass_time(LOG_PATIENCE_SECONDS)
    assert (first.ended, second.calls) == ([], [])
    town.pass_time(LET_GO_SECONDS - LOG_PATIENCE_SECONDS + 2.1)
    row = town.tasks.rows[task_id]
    assert (row.log_closed, row.task.status, row.epoch, row.lost_attempts) == (True, "succeeded", 2, 0)
    assert first.ended[0] <= second.calls[0] <= first.ended[0] + POLL_SECONDS + 0.1
    assert town.told(task_id)[-1] == "finish stop, succeeded: Well: 0 1 "


def test_a_cancellation_is_not_held_up_by_a_worker_that_is_cut_off_from_its_logs(town: Town) -> None:
    task_id = town.post()
    line = Line()
    town.work(Speaker(1000), line=line)
    town.pass_time(3.5)
    town.work(Speaker(1000))
    line.logs.is_cut = True
    town.cancel(task_id)
    town.pass_time(LET_GO_SECONDS)
    assert town.tasks.rows[task_id].task.status == "cancelled"
    assert town.told(task_id)[-2] == "abort cancelled by owner"


def test_what_is_queued_stays_so_while_no_worker_has_its_logs_and_is_run_when_one_has(town: Town) -> None:
    lines, models = [Line(), Line()], [Speaker(2), Speaker(2)]
    for line, model in zip(lines, models, strict=True):
        town.work(model, line=line)
        line.logs.is_cut = True
    town.pass_time(WATCH_SECONDS + 0.1)
    with structlog.testing.capture_logs() as logs:
        task_id = town.post()
        town.pass_time(2 * LOG_PATIENCE_SECONDS)
    assert logs == []
    assert (town.tasks.rows[task_id].task.status, town.tasks.rows[task_id].epoch) == ("queued", 0)
    lines[0].logs.is_cut = False
    town.pass_time(BACK_SECONDS + 2)
    assert town.tasks.rows[task_id].log_closed
    assert (len(models[0].calls), models[1].calls) == (1, [])


def test_a_log_store_that_is_soon_back_costs_no_turn(town: Town) -> None:
    task_id = town.post()
    line = Line()
    town.work(Speaker(100), line=line)
    town.pass_time(3.5)
    line.logs.is_cut = True
    town.pass_time(LOG_PATIENCE_SECONDS - 0.1)
    line.logs.is_cut = False
    town.pass_time(100)
    assert (town.tasks.rows[task_id].log_closed, town.tasks.rows[task_id].epoch) == (True, 1)


def test_that_a_worker_holds_back_is_told_once_and_that_it_lets_go_and_that_it_goes_on(town: Town) -> None:
    tasks = [town.post() for _ in range(2)]
    line = Line()
    town.work(Speaker(200), line=line)
    town.pass_time(3.5)
    with structlog.testing.capture_logs() as logs:
        line.logs.is_cut = True
        town.pass_time(3 * LET_GO_SECONDS)
        line.logs.is_cut = False
        town.pass_time(BACK_SECONDS)
        assert [town.tasks.rows[task_id].epoch for task_id in tasks] == [2, 2]
        town.pass_time(201)
    events = ("claims_held_back", "turns_without_logs", "tasks_released", "claims_go_on")
    assert told(logs, *events) == list(events)
    (let_go,) = [entry for entry in logs if entry["event"] == "turns_without_logs"]
    assert let_go["task_ids"] == tasks
    assert [town.tasks.rows[task_id].log_closed for task_id in tasks] == [True, True]
    assert [town.tasks.rows[task_id].lost_attempts for task_id in tasks] == [0, 0]


def test_pitfall_25_what_waits_for_its_logs_and_does_not_stop_is_not_let_go(town: Town) -> None:
    """Its lease has to lapse; and as it is told once, it may close what it has open."""
    slow, quick = town.post("slow"), town.post()
    line, first, second = Line(), Speaker(1000, closing_seconds=60), Speaker(0)
    town.work(first, line=line)
    town.pass_time(3.5)
    town.work(second)
    line.logs.is_cut = True
    town.pass_time(LET_GO_SECONDS + STOP_SECONDS)
    assert (len(second.calls), len(first.ended)) == (1, 1)
    assert [town.tasks.rows[task_id].epoch for task_id in (slow, quick)] == [1, 2]
    town.pass_time(LEASE_SECONDS)
    assert [town.tasks.rows[task_id].log_closed for task_id in (slow, quick)] == [True, True]
    assert town.tasks.rows[slow].epoch == 2
    town.pass_time(60 - LEASE_SECONDS)
    assert first.ended[1] == pytest.approx(first.ended[0] + 60, abs=1)


@pytest.mark.parametrize("after", [0.5, 1.1])
def test_a_worker_that_is_told_to_stop_amid_letting_go_lets_go_all_the_same(town: Town, after: float) -> None:
    """Amid the closing, and while the database is told."""
    tasks = [town.post("slow"), town.post()]
    line, model = Line(), Speaker(1000, closing_seconds=1)
    working = town.work(model, line=line)
    town.pass_time(0.5)
    line.logs.is_cut = True
    town.tasks.trouble = lambda verb: late(0.4) if verb == "renew" else None
    while not model.ended:
        town.pass_time(0.05)
    town.pass_time(after)
    assert town.stop(*working) < STOP_SECONDS
    assert [town.tasks.rows[task_id].lease_until for task_id in tasks] == [LAPSED, LAPSED]


# --- a database that is away ------------------------------------------------------------------------------------------


def test_outages_that_are_longer_than_a_lease_cost_a_healthy_turn_no_attempt(town: Town) -> None:
    """Neither where its own worker takes it again nor where another does."""
    task_id = town.post()
    lines = [Line(), Line()]
    for line in lines:
        town.work(Speaker(60), line=line)
    for number in range(MAX_LOST_ATTEMPTS + 2):
        town.pass_time(3 + number)
        for line in lines:
            line.database.is_cut = True
        town.pass_time(LEASE_SECONDS + 1 + 2 * number)
        for line in lines:
            line.database.is_cut = False
    town.pass_time(LEASE_SECONDS + 61)
    row = town.tasks.rows[task_id]
    assert (row.task.status, row.lost_attempts) == ("succeeded", 0)
    assert row.epoch > MAX_LOST_ATTEMPTS


def test_a_lease_that_was_renewed_after_its_turn_was_stopped_is_given_back(town: Town) -> None:
    """A renewal that was given up may have been on its way: when the database wakes up, it takes effect."""
    task_id = town.post()
    line, model = Line(), Speaker(1000)
    town.work(model, line=line)
    town.pass_time(1)
    line.database.is_cut = True
    town.pass_time(LEASE_SECONDS * 2 / 3 + 1)
    assert len(model.ended) == 1
    row = town.tasks.rows[task_id]
    row.lease_until = town.loop.time() + LEASE_SECONDS
    line.database.is_cut = False
    town.pass_time(2 * POLL_SECONDS)
    assert (row.epoch, row.lost_attempts, len(model.calls)) == (2, 0, 2)


def test_a_lease_that_another_has_since_is_not_given_back(town: Town) -> None:
    task_id = town.post()
    line, other = Line(), Speaker(1000)
    town.work(Speaker(1000), line=line)
    town.pass_time(1)
    line.database.is_cut = True
    town.work(other)
    town.pass_time(LEASE_SECONDS + 2 * POLL_SECONDS)
    line.database.is_cut = False
    town.pass_time(2 * POLL_SECONDS)
    assert (town.tasks.rows[task_id].epoch, len(other.calls), other.ended) == (2, 1, [])


def test_who_had_the_database_counts_a_holder_that_had_not(town: Town) -> None:
    """A process that has just begun has missed nothing and counts too: else what ends its workers would never end."""
    task_id = town.post()
    line = Line()
    town.work(Speaker(1000), line=line)
    town.pass_time(1)
    line.database.is_cut = True
    town.pass_time(LEASE_SECONDS - 1)
    town.work(Speaker(1000))
    town.pass_time(2 + POLL_SECONDS)
    assert (town.tasks.rows[task_id].epoch, town.tasks.rows[task_id].lost_attempts) == (2, 1)


@pytest.mark.parametrize(("leases", "lost"), [(DOUBT_LEASES - 1.5, 0), (DOUBT_LEASES + 0.1, 1)])
def test_an_outage_is_remembered_for_two_leases(town: Town, leases: float, lost: int) -> None:
    """The second worker had one, the first has one that begins so long after it."""
    lines = [Line(), Line()]
    town.work(Speaker(1000), line=lines[0])
    task_id = town.post()
    town.pass_time(2)
    town.work(Speaker(1000), line=lines[1])
    town.pass_time(1)
    lines[1].database.is_cut = True
    town.pass_time(LEASE_SECONDS / 2)
    lines[1].database.is_cut = False
    town.pass_time(POLL_SECONDS + (leases - 1) * LEASE_SECONDS)
    lines[0].database.is_cut = True
    town.pass_time(LEASE_SECONDS + POLL_SECONDS + 0.1)
    assert (town.tasks.rows[task_id].epoch, town.tasks.rows[task_id].lost_attempts) == (2, lost)


def test_who_claims_nothing_for_want_of_its_logs_has_not_seen_an_outage_of_the_database_and_counts_nothing(
    town: Town,
) -> None:
    task_id = town.post()
    lines = [Line(), Line()]
    town.work(Speaker(1000), line=lines[0])
    town.pass_time(2)
    town.work(Speaker(1000), line=lines[1])
    lines[1].logs.is_cut = True
    town.pass_time(WATCH_SECONDS + 1)
    for line in lines:
        line.database.is_cut = True
    lines[0].logs.is_cut = True
    town.pass_time(LEASE_SECONDS)
    for line in lines:
        line.database.is_cut = False
    town.pass_time(1)
    lines[1].logs.is_cut = False
    town.pass_time(BACK_SECONDS)
    assert (town.tasks.rows[task_id].epoch, town.tasks.rows[task_id].lost_attempts) == (2, 0)


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds


BOUND = LEASE_SECONDS * OUTAGE_SHARE
DOUBT = LEASE_SECONDS * DOUBT_LEASES


def fail(answers: Answers) -> None:
    with pytest.raises(DatabaseUnavailable), answers.asking():
        raise DatabaseUnavailable


def test_silence_becomes_an_outage_behind_the_bound_and_no_answer_is_missed_that_nobody_asked_for() -> None:
    clock = Hands()
    answers = Answers(LEASE_SECONDS, clock.now)
    clock.seconds += 10 * LEASE_SECONDS
    fail(answers)
    clock.seconds += BOUND
    fail(answers)
    assert answers.have_lasted()
    with answers.asking():
        pass
    clock.seconds += 1
    fail(answers)
    clock.seconds += BOUND + 0.01
    assert not answers.have_lasted()
    with answers.asking():
        assert not answers.have_lasted()
    clock.seconds += DOUBT - 0.01
    assert not answers.have_lasted()
    clock.seconds += 0.01
    assert answers.have_lasted()


def test_an_answer_to_one_statement_is_one_to_all_that_wait() -> None:
    clock = Hands()
    answers = Answers(LEASE_SECONDS, clock.now)
    with answers.asking():
        clock.seconds += BOUND
        with answers.asking():
            pass
        clock.seconds += BOUND
    assert answers.have_lasted()


# --- what is told -----------------------------------------------------------------------------------------------------


def test_an_outage_of_the_database_is_told_when_it_begins_and_when_it_is_over(town: Town) -> None:
    town.post()
    line = Line()
    town.work(Speaker(1000), line=line)
    town.pass_time(3.5)
    for seconds in (8, 30):
        with structlog.testing.capture_logs() as logs:
            line.database.is_cut = True
            town.pass_time(seconds)
            line.database.is_cut = False
            town.pass_time(LEASE_SECONDS + 2)
        for name in ("claim", "renewal"):
            (failed,) = [entry for entry in logs if entry["event"] == f"{name}_failed"]
            (goes_on,) = [entry for entry in logs if entry["event"] == f"{name}_goes_on"]
            assert (failed["log_level"], failed["cause"]) == ("warning", "DatabaseUnavailable")
            assert (goes_on["log_level"], goes_on["after_seconds"]) == ("info", pytest.approx(seconds, abs=3))
            assert logs.index(failed) < logs.index(goes_on)


def test_a_mistake_of_ours_amid_an_outage_is_told_too_once() -> None:
    clock = Hands()
    edge = Edge("thing_failed", "thing_goes_on", clock.now)
    with structlog.testing.capture_logs() as logs:
        for error in (DatabaseUnavailable(), TimeoutError(), KeyError("k"), KeyError("k"), DatabaseUnavailable()):
            clock.seconds += 1
            with edge.round():
                raise error
        clock.seconds += 1
        for _ in range(2):
            with edge.round():
                pass
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("thing_failed", "warning"),
        ("thing_failed", "error"),
        ("thing_goes_on", "info"),
    ]
    assert logs[1]["exc_info"]
    assert logs[2]["after_seconds"] == 5
