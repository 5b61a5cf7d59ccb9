"""`python -m tests.bench [--quick] [--profile] [M1 M3 …]`."""

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from service.cli.logs import rendering
from tests.bench import (
    appending,
    archiving,
    browsing,
    completing,
    crowded,
    fanout,
    idle,
    latency,
    replaying,
    resident,
    starting,
    storm,
    turns,
)
from tests.bench.ground import Ground, open_ground
from tests.bench.profile import PROFILES
from tests.bench.table import Row, printed

LIMIT_SECONDS: Final = 900.0
"""However slow the machine is, it stops by itself."""

WORKLOADS: Final[dict[str, Callable[[Ground], Awaitable[list[Row]]]]] = {
    "M1": appending.run,
    "M2": idle.run,
    "M3": fanout.run,
    "M4": latency.run,
    "M5": replaying.run,
    "M6": storm.run,
    "M7": crowded.run,
    "M8": resident.run,
    "M10": completing.run,
    "M11": archiving.run,
    "M13": turns.run,
    "M14": starting.run,
    "M15": browsing.run,
}

SLOW: Final = frozenset({"M8", "M14"})
"""Not part of --quick unless named."""


async def measure(names: list[str], *, quick: bool) -> None:
    """Run workloads and print their rows together at the end; what goes on is said on stderr."""
    rows: list[Row] = []
    begun = time.monotonic()
    async with open_ground(quick=quick) as ground:
        for name in names:
            print(f"{name} …", file=sys.stderr, flush=True)
            try:
                rows += await WORKLOADS[name](ground)
            except Exception as error:  # noqa: BLE001 - one that fails leaves the others their place in the table
                rows.append(Row(name, "failed", type(error).__name__, met=False))
                ground.notes.append(f"{name} failed: {_first(error)!r}")
        notes = ground.notes
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    notes.append(f"{time.monotonic() - begun:.0f} s on {os.cpu_count()} cores, load now {load}")
    print(printed(rows), *(f"  {note}" for note in notes), sep="\n")


def _first(error: BaseException) -> BaseException:
    """What is inside the groups that task groups make."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


async def profile(names: list[str], *, quick: bool) -> None:
    """Print where the time goes."""
    async with open_ground(quick=quick) as ground:
        for name in names:
            print(f"{name}\n{await PROFILES[name](ground)}")


async def _bounded(work: Awaitable[None]) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with asyncio.timeout(LIMIT_SECONDS):
        await work


def log_as_in_service() -> None:
    """Lines of JSON, as where nobody looks on; here they go nowhere."""
    structlog.configure(
        processors=rendering(for_people=False),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(Path(os.devnull).open("w")),  # noqa: SIM115 - to the end
    )


def main() -> None:
    """Read the arguments and do it."""
    log_as_in_service()
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*WORKLOADS, []], metavar="M", help="all by default")
    parser.add_argument("--quick", action="store_true", help="small sizes, once: whether it runs, not how fast")
    parser.add_argument("--profile", action="store_true", help="show where the time goes instead")
    arguments = parser.parse_args()
    if arguments.profile:
        names = [name for name in arguments.names or PROFILES if name in PROFILES]
        asyncio.run(_bounded(profile(names, quick=arguments.quick)))
    else:
        names = arguments.names or [name for name in WORKLOADS if not (arguments.quick and name in SLOW)]
        asyncio.run(_bounded(measure(names, quick=arguments.quick)))


if __name__ == "__main__":
    main()
