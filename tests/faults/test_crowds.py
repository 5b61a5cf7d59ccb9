"""Many readers: some that are stalled, some half there, and all at once after a deploy."""

import asyncio
import resource
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import quantiles

import pytest
import pytest_asyncio

from tests.acceptance.readers import RawStream, raw_stream
from tests.faults.bench import Bench, Member
from tests.faults.checks import assert_kept
from tests.faults.footprint import footprint, forget_peak, i9_it_is_back, peak_bytes, spent_seconds
from tests.faults.turns import Count, post, read, to_the_end
from tests.faults.wire import Delay

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.alone]

STALLED = 200
HALF = 100
READERS = 50
RECEIVE_BUFFER_BYTES = 16 * 1024
STALLED_BYTES = 512 * 1024
"""What a stalled reader may cost: see tests/acceptance/test_many_readers.py."""

SHARED_BYTES = 64 * 1024 * 1024
FAT = Count(500, rate=200, size=16 * 1024)
FULL = 200
"""Events of it that are more than the kernel takes for a reader that does not read."""

STEADY = Count(60, rate=40)
READ_IN = 10
"""Events of a turn that a reader may find there when it comes: how late they are is how late it came."""

ROUNDS = 4
"""Pairs of a quiet and a crowded measurement, at most: this machine may have other things to do in one of them."""

TIMES = 2.0
CLOCK_SECONDS = 0.002
"""What the two clocks may differ by: a position has whole milliseconds."""

MANY = 500
LOGS = 10
SHARED_BY = 4
AWAY_SECONDS = 0.01
"""Readers that come back, to one page read: there are fifty of each log, but not all are back at one moment."""


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def _descriptors() -> AsyncIterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8 * MANY)), hard))
    yield


async def test_pitfall_14_and_57_stalled_readers_and_half_requests_hinder_nobody_and_cost_their_buffers(
    bench: Bench,
) -> None:
    door = bench.doors[0]
    async with _stalled(bench, door), _half_requests(door):
        await _pace(bench, door)  # what an allocator keeps of such a crowd, it has kept: no second one may add to it
    before = footprint(door)
    forget_peak(door.pid)
    figures: list[tuple[_Pace, _Pace]] = []
    for _ in range(ROUNDS):
        async with _stalled(bench, door, 0):  # the long log costs what it costs
            quiet = await _pace(bench, door)
        async with _stalled(bench, door), _half_requests(door):
            crowded = await _pace(bench, door)
        figures.append((quiet, crowded))
        if crowded.p99 <= TIMES * quiet.p99 + CLOCK_SECONDS and crowded.spent <= TIMES * quiet.spent:
            break
    else:
        pytest.fail(f"without and with them, in seconds: {figures}")
    assert peak_bytes(door.pid) <= before.resident_bytes + STALLED * STALLED_BYTES + SHARED_BYTES
    await i9_it_is_back(door, before)


@dataclass(frozen=True, slots=True)
class _Pace:
    """How a door serves those who read, in seconds."""

    p99: float
    """From when an event is numbered until a reader has it, at the 99th percentile of all readers."""
    spent: float
    """Of the processor's time: each who is stalled may have its share of it and hinder nobody, and yet use it up."""


async def _pace(bench: Bench, door: Member) -> _Pace:
    before = spent_seconds(door.pid)
    turn = await post(door.service.url, STEADY)
    async with read(turn, [door.service.url], READERS) as readers:
        await to_the_end(readers)
    spent = spent_seconds(door.pid) - before
    await assert_kept(bench.truth, turn)
    delays = [delay for recorder in turn.recorders for delay in recorder.delays[READ_IN:]]
    return _Pace(quantiles(delays, n=100)[98], spent)


@asynccontextmanager
async def _stalled(bench: Bench, door: Member, count: int = STALLED) -> AsyncGenerator[None]:
    """Readers of a log that took its beginning, whose kernels take no more; it goes on, and one reader has it all."""
    turn = await post(door.service.url, FAT)
    async with AsyncExitStack() as stack:

        async def begin() -> RawStream:
            stream = await stack.enter_async_context(
                raw_stream(door.service.url, turn.task_id, receive_buffer=RECEIVE_BUFFER_BYTES)
            )
            await stream.receive_until(1)
            return stream

        await asyncio.gather(*(begin() for _ in range(count)))
        readers = await stack.enter_async_context(read(turn, [door.service.url], 1))
        await turn.recorders[0].has(FULL)
        yield
        await to_the_end(readers)
    await assert_kept(bench.truth, turn)


@asynccontextmanager
async def _half_requests(door: Member) -> AsyncGenerator[None]:
    """Connections on which the half of a request's head has come, or of its body."""
    host, port = door.address
    halves = (
        b"GET /tasks/x HTTP/1.1\r\nHost: 127",
        b"POST /sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{",
    )
    writers: list[asyncio.StreamWriter] = []
    try:
        for number in range(HALF):
            _, writer = await asyncio.open_connection(host, port)
            writers.append(writer)
            writer.write(halves[number % 2])
        yield
    finally:
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # what was aborted closes


async def test_pitfall_18_a_rolling_restart_brings_all_readers_back_and_is_no_stampede(bench: Bench) -> None:
    """Whoever is cut comes back at the other door, all at the same time; the store is asked for each log, not by each
    reader."""
    urls = [door.service.url for door in bench.doors]
    turns = [await post(urls[number % 2], Count(80, rate=10)) for number in range(LOGS)]
    async with AsyncExitStack() as stack:
        reading: list[asyncio.Task[None]] = []
        for number, turn in enumerate(turns):
            at = urls[number % 2 :] + urls[: number % 2]
            reading += await stack.enter_async_context(read(turn, at, MANY // LOGS))
        recorders = [recorder for turn in turns for recorder in turn.recorders]
        await asyncio.gather(*(recorder.has(5) for recorder in recorders))
        before = await _pages_read(bench)
        for door in bench.doors:  # the store is some way off, so that who shares an answer is not this machine's speed
            door.redis.break_by(Delay(AWAY_SECONDS))
        for door in bench.doors:
            await door.stop()
            await door.start()
        await to_the_end(reading)
    breaks = sum(recorder.breaks for recorder in recorders)
    assert breaks >= MANY / 2  # at the second restart it may be over for some
    assert await _pages_read(bench) - before <= breaks / SHARED_BY
    await assert_kept(bench.truth, *turns)


async def _pages_read(bench: Bench) -> int:
    """How often the store was asked for events."""
    stats = await bench.truth.redis.info("commandstats")
    return int(stats["cmdstat_xrange"]["calls"])
