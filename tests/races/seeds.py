"""Many seeds of a scenario, in a process of their own."""

import gc
import sys
import traceback
from collections.abc import MutableMapping

import structlog

from tests.races.scenarios import SCENARIOS, run_seed

TEST = "tests/races/test_core.py"

EXPECTED = {"log_tail_lost", "turns_aborted"}
"""What is logged as an error and is no mistake of ours: a store forgot, a worker slept when it was told to stop."""

_heard: set[str] = set()


def begin() -> None:
    """Hear what is logged as an error, and write no line. What is there already is no garbage."""

    def note(_logger: object, _name: str, entry: MutableMapping[str, object]) -> str:
        _heard.add(str(entry["event"]))
        raise structlog.DropEvent

    structlog.configure(processors=[note], wrapper_class=structlog.make_filtering_bound_logger("error"))
    gc.collect()
    gc.freeze()


def fails(scenario: str, first: int, count: int) -> str | None:
    """Run so many seeds from the first on; answers how the first one fails that does, and how to run it again."""
    for seed in range(first, first + count):
        try:
            _heard.clear()
            run_seed(SCENARIOS[scenario], seed)
            assert _heard <= EXPECTED, f"mistakes of ours were logged: {_heard - EXPECTED}"
        except BaseException:  # noqa: BLE001 - the failure of a test, and a deadlock of the loop, in another process
            again = f"TEST_PLAYHEAD_SEED={seed} TEST_PLAYHEAD_SEEDS=1 {sys.executable} -m pytest {TEST} -k {scenario}"
            return f"{traceback.format_exc()}\nseed {seed}; to run it again: {again}"
    return None
