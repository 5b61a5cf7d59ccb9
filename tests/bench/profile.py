"""Where the time goes on our side: cProfile over M1's process, M3's server and M13's service.

cProfile makes calls of Python dearer than what happens in C: read the order of the lines, not their seconds.
"""

import cProfile
import io
import pstats
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

from tests.bench.appending import EVENTS_A_CALL, TASKS, ours_rate
from tests.bench.crowd import open_crowd
from tests.bench.ground import Ground
from tests.bench.ours import open_tasks, serving
from tests.bench.sides import open_ours
from tests.bench.turns import SESSIONS, open_session, turns_a_second

LINES: Final = 30


async def profile_appending(ground: Ground) -> str:
    """M1, 5 events a call."""
    async with open_tasks(ground) as tasks:
        opened = [await tasks.open() for _ in range(TASKS)]
        profiler = cProfile.Profile()
        profiler.enable()
        await ours_rate(opened, EVENTS_A_CALL[0], 1.0 if ground.quick else 3.0)
        profiler.disable()
    return _listed(pstats.Stats(profiler, stream=io.StringIO()))


async def profile_fanout(ground: Ground) -> str:
    """M3's server, 1000 readers; their connecting is in it."""
    file = str(ground.folder / "fanout.profile")
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(ground, "--only", "http", profile=file))
        tasks = await stack.enter_async_context(open_tasks(ground))
        side = await stack.enter_async_context(open_ours(ground, tasks, port, ground.sized(1000, 100)))
        await side.warm_up(0.5 if ground.quick else 3.0)
    return _listed(pstats.Stats(file, stream=io.StringIO()))


async def profile_replaying(ground: Ground) -> str:
    """M5's server, 50 readers at once; importing the service is in it."""
    file = str(ground.folder / "replay.profile")
    events = ground.sized(10_000, 2_000)
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(ground, "--only", "http", profile=file))
        tasks = await stack.enter_async_context(open_tasks(ground))
        crowd = await stack.enter_async_context(open_crowd(ground))
        for _ in range(ground.sized(10, 2)):
            await crowd.replay(port, 50, (await tasks.filled(events)).path, events)
    return _listed(pstats.Stats(file, stream=io.StringIO()))


async def profile_turns(ground: Ground) -> str:
    """M13's service, sessions in a closed loop."""
    file = str(ground.folder / "turns.profile")
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(ground, profile=file))
        sessions = [await open_session(stack, port) for _ in range(SESSIONS)]
        await turns_a_second(sessions, 2.0 if ground.quick else 6.0)
    return _listed(pstats.Stats(file, stream=io.StringIO()))


PROFILES: Final[dict[str, Callable[[Ground], Awaitable[str]]]] = {
    "M1": profile_appending,
    "M3": profile_fanout,
    "M5": profile_replaying,
    "M13": profile_turns,
}


def _listed(stats: pstats.Stats) -> str:
    """The functions that took most by themselves."""
    stats.strip_dirs().sort_stats("tottime").print_stats(LINES)
    stream: io.StringIO = stats.stream  # type: ignore[attr-defined]
    return stream.getvalue()
