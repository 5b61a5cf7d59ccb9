"""The archiver's loops in virtual time: when they look, what they tell, how they stop."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import pytest
import structlog

from consumers.archiver import POLL_SECONDS, SWEEP_SECONDS, Archiver
from consumers.repeating import MAX_PAUSE_SECONDS
from service.adapters.memory_database import MemoryDatabase
from service.adapters.memory_log import MemoryHints, MemoryLogStore
from service.adapters.memory_sessions import MemorySessions
from service.model.errors import DatabaseUnavailable
from service.sessions.removal import Remover
from tests.races.loop import ShuffledLoop


@dataclass
class Work:
    """What an archiver has to do: `archive` and `sweep` are told how often they were called before."""

    loop: ShuffledLoop
    archive: Callable[[int], Awaitable[bool]]
    archived_at: list[float] = field(default_factory=list)
    swept_at: list[float] = field(default_factory=list)

    async def archive_some(self) -> bool:
        self.archived_at.append(self.loop.time())
        return await self.archive(len(self.archived_at) - 1)

    async def sweep_some(self) -> None:
        self.swept_at.append(self.loop.time())


def nothing_to_remove() -> Remover:
    return Remover(MemorySessions(MemoryDatabase()), MemoryLogStore(MemoryHints()))


@pytest.fixture(params=range(3))
def loop(request: pytest.FixtureRequest) -> Iterator[ShuffledLoop]:
    made = ShuffledLoop(request.param)
    yield made
    assert not asyncio.all_tasks(made)
    made.close()


def run_for(loop: ShuffledLoop, work: Work, seconds: float) -> float:
    """Let an archiver run for so long, then stop it; answers how long the stop took."""
    stop = asyncio.Event()
    running = loop.create_task(Archiver(work, nothing_to_remove()).run(stop))  # type: ignore[arg-type]
    loop.run(asyncio.sleep(seconds))
    assert not running.done(), running.exception()
    told_at = loop.time()
    stop.set()
    loop.run(running)
    return loop.time() - told_at


def test_it_goes_on_at_once_while_there_is_more_and_looks_again_after_a_while(loop: ShuffledLoop) -> None:
    async def five_batches(call: int) -> bool:
        return call < 4

    work = Work(loop, five_batches)
    run_for(loop, work, 10.5)
    assert work.archived_at == [0.0] * 5 + [pytest.approx(POLL_SECONDS * n) for n in range(1, 11)]
    assert work.swept_at == [pytest.approx(SWEEP_SECONDS * n) for n in range(6)]


def test_a_store_that_is_away_is_told_once_and_asked_less_and_less_often(loop: ShuffledLoop) -> None:
    async def away_for_a_while(call: int) -> bool:
        if call < 12:
            raise DatabaseUnavailable
        return False

    work = Work(loop, away_for_a_while)
    with structlog.testing.capture_logs() as told:
        run_for(loop, work, 400)
    assert [line["event"] for line in told] == ["loop_waits", "loop_goes_on"]
    assert told[0]["cause"] == "DatabaseUnavailable"
    pauses = [after - before for before, after in zip(work.archived_at, work.archived_at[1:], strict=False)]
    assert pauses[:12] == [pytest.approx(min(MAX_PAUSE_SECONDS, POLL_SECONDS * 2**n)) for n in range(1, 13)]
    assert pauses[12] == pytest.approx(POLL_SECONDS)
    assert len(work.swept_at) == 201, "one loop's trouble is not the other's"


def test_a_mistake_of_ours_ends_nothing(loop: ShuffledLoop) -> None:
    async def broken_once(call: int) -> bool:
        if call == 1:
            raise ZeroDivisionError
        return False

    work = Work(loop, broken_once)
    with structlog.testing.capture_logs() as told:
        run_for(loop, work, 10)
    assert [(line["event"], line["log_level"]) for line in told] == [
        ("loop_failed", "error"),
        ("loop_goes_on", "info"),
    ]
    assert len(work.archived_at) > 5


def test_it_stops_at_once_also_amid_a_call_that_is_not_answered(loop: ShuffledLoop) -> None:
    async def never(_: int) -> bool:
        await asyncio.Event().wait()
        return False

    assert run_for(loop, Work(loop, never), 5) == 0
