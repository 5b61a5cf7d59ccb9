"""`python -m tests.faults [--seconds 10] [--minutes 30] [worker-1 sleeps …]`: each trouble alone, again and again.

A line each; it stops at the first promise that is broken, and says which, of which task, and what was wrong then.
"""

import argparse
import asyncio
import logging
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Final

from tests.faults.battery import alone
from tests.faults.bench import Bench, open_bench
from tests.faults.crowd import CONVERSATIONS, Crowd, crowd_at
from tests.faults.footprint import footprint, i9_it_is_back

PARTING_SECONDS: Final = 60.0
"""Before the limit: then no further trouble begins."""


async def run(names: list[str], *, seconds: float, limit_seconds: float) -> None:
    """Rounds of all troubles whose names hold one of `names`, until the time is over."""
    deadline = time.monotonic() + limit_seconds - PARTING_SECONDS
    suffered = 0
    with tempfile.TemporaryDirectory(prefix="playhead-faults-") as folder:
        async with asyncio.timeout(limit_seconds), open_bench(Path(folder)) as bench:
            known = [trouble.name for trouble in alone(bench)]
            if unknown := [name for name in names if not any(name in one for one in known)]:
                raise SystemExit(f"there is no trouble with {unknown[0]!r} in its name, but: {', '.join(known)}")
            async with crowd_at(bench) as crowd:
                await crowd.has_finished(CONVERSATIONS)  # what a crowd costs, they have had
            for number in count(1):
                print(f"round {number}", flush=True)
                suffered += await _round(bench, names, seconds, deadline)
                if time.monotonic() >= deadline:
                    print(f"every promise was kept through {suffered} troubles; a round of all has {len(known)}")
                    return


async def _round(bench: Bench, names: list[str], seconds: float, deadline: float) -> int:
    """Answers how many there were."""
    suffered = 0
    before = {member.pid: footprint(member) for member in bench.members}
    async with crowd_at(bench) as crowd:
        for trouble in alone(bench):
            if time.monotonic() >= deadline:
                break
            if not names or any(name in trouble.name for name in names):
                finished, interrupted = crowd.finished, crowd.interrupted
                moved = await crowd.suffer(trouble, seconds)
                print(_line(crowd, trouble.name, moved, finished, interrupted), flush=True)
                suffered += 1
    for member in bench.members:
        if member.pid in before:  # else it was started again
            await i9_it_is_back(member, before[member.pid])
    assert not bench.complaints(), bench.complaints()[:3]
    return suffered


def _line(crowd: Crowd, name: str, moved: float, finished: int, interrupted: int) -> str:
    turns, breaks = crowd.finished - finished, crowd.interrupted - interrupted
    return f"  {name:60} moves after {moved:5.2f} s; {turns:4} turns over, {breaks:4} streams broken"


def main() -> None:
    """Read the arguments and do it."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names; all by default")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each lasts")
    parser.add_argument("--minutes", type=float, default=30.0, help="of all together; in the last one none begins")
    arguments = parser.parse_args()
    logging.disable()
    asyncio.run(run(arguments.names, seconds=arguments.seconds, limit_seconds=60 * arguments.minutes))


if __name__ == "__main__":
    main()
