"""The whole core, thousands of times: workers die and wake up, readers move, stores forget; see `scenarios`.

`TEST_PLAYHEAD_SEEDS` says how many seeds each scenario has, `TEST_PLAYHEAD_SEED` which is the first.
"""

import gc
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import structlog

from tests.races.core import Parts
from tests.races.planted import (
    ClosedComesFirst,
    EndsOverTheMailbox,
    EndsTwice,
    EndsWhatIsNotHis,
    FinishesBeforeItCommits,
    GoesOnWriting,
    PromotesOnce,
    PromotesWhatIsNotHis,
    ReadsBeforeItOpens,
    ReadsThenSubscribes,
    ShowsBeforeItStores,
    StoresTwice,
    Unfenced,
    deaf_hub,
)
from tests.races.scenarios import SCENARIOS, run_seed
from tests.races.seeds import begin, fails

FIRST_SEED = int(os.environ.get("TEST_PLAYHEAD_SEED", "0"))
SEEDS = int(os.environ.get("TEST_PLAYHEAD_SEEDS", "400"))


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, list[Future[str | None]]]]:
    """All seeds of all scenarios, a half of each at a time, on all cores at once."""
    halves = [(FIRST_SEED, SEEDS - SEEDS // 2), (FIRST_SEED + SEEDS - SEEDS // 2, SEEDS // 2)]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), initializer=begin) as pool:
        yield {name: [pool.submit(fails, name, *half) for half in halves] for name in SCENARIOS}


@pytest.mark.timeout(60 + SEEDS // 20)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_all_ends_well_whatever_happens(scenario: str, running: dict[str, list[Future[str | None]]]) -> None:
    for half in running[scenario]:
        failure = half.result()
        assert failure is None, failure


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """No line is written of what goes wrong here on purpose."""
    configured = structlog.get_config()
    begin()
    yield
    gc.unfreeze()
    structlog.configure(**configured)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_seed_does_the_same_again(scenario: str) -> None:
    for seed in range(20):
        runs = [run_seed(SCENARIOS[scenario], seed) for _ in range(2)]
        first, again = ([*sorted(core.store.ever_stored), core.loop.now] for core in runs)
        assert first == again


def assert_seen(scenario: str, parts: Parts, *, share: float) -> None:
    """A planted mistake is seen by about this share of the seeds, or more: so by one of the first, at any rate."""
    seeds = round(6 / share)
    for seed in range(seeds):
        try:
            run_seed(SCENARIOS[scenario], seed, parts)
        except AssertionError:
            return
    pytest.fail(f"none of {seeds} seeds has seen it")


def test_pitfall_01_read_then_subscribe_is_seen() -> None:
    assert_seen("hand_over", Parts(follower=ReadsThenSubscribes), share=0.04)


def test_pitfall_10_what_is_shown_before_it_is_stored_is_seen() -> None:
    assert_seen("take_over", Parts(store=ShowsBeforeItStores), share=0.1)


def test_pitfall_11_a_lost_connection_of_the_hub_that_nobody_minds_is_seen() -> None:
    assert_seen("hand_over", Parts(hub=deaf_hub), share=0.4)


def test_pitfall_19_a_second_end_that_counts_is_seen() -> None:
    assert_seen("finish", Parts(tasks=EndsTwice), share=0.03)


def test_pitfall_22_a_log_without_a_fence_is_seen() -> None:
    assert_seen("take_over", Parts(store=Unfenced), share=0.15)


def test_pitfall_24_a_retry_that_stores_twice_is_seen() -> None:
    assert_seen("finish", Parts(store=StoresTwice), share=0.2)


def test_pitfall_25_a_cancelled_turn_that_writes_on_is_seen() -> None:
    assert_seen("cancel", Parts(steps=GoesOnWriting), share=0.1)


def test_pitfall_61_a_log_that_is_read_before_it_is_opened_is_seen() -> None:
    assert_seen("take_over", Parts(turns=ReadsBeforeItOpens), share=0.03)


def test_pitfall_62_closed_said_before_duplicate_is_seen() -> None:
    assert_seen("finish", Parts(store=ClosedComesFirst), share=0.03)


def test_pitfall_69_a_finish_before_the_commit_is_seen() -> None:
    assert_seen("finish", Parts(turns=FinishesBeforeItCommits), share=0.5)


def test_pitfall_70_an_end_by_who_lost_the_task_is_seen() -> None:
    assert_seen("finish", Parts(tasks=EndsWhatIsNotHis), share=0.05)


def test_pitfall_22_messages_taken_in_by_who_lost_the_task_are_seen() -> None:
    assert_seen("steer", Parts(tasks=PromotesWhatIsNotHis), share=0.02)


def test_pitfall_42_an_end_that_does_not_look_into_the_mailbox_is_seen() -> None:
    assert_seen("steer", Parts(tasks=EndsOverTheMailbox), share=0.2)


def test_messages_that_are_answered_once_when_they_are_taken_in_are_seen() -> None:
    assert_seen("steer", Parts(tasks=PromotesOnce), share=0.05)
