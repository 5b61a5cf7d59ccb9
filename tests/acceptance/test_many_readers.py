"""A thousand readers of one log; readers that stop reading. Those that are slow: tests/http/test_stalled.py."""

import asyncio
import re
import resource
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.acceptance.client import Client, assert_whole, client_of, frames
from tests.acceptance.readers import DEADLINE_SECONDS, RawReader, RawStream, kept, raw_stream
from tests.processes import Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

FOLLOWERS = 1_000
FOLLOWERS_SECONDS = 20.0
STALLED = 50
COMING_BACK = 4
RECEIVE_BUFFER_BYTES = 32 * 1024

DELTA_BYTES = 64 * 1024
DELTAS = 254
"""Of DELTA_BYTES each: nearly as much as one model call may say (16 MiB)."""

STALLED_READER_BYTES = 512 * 1024
"""What one may cost: the page or the hub's tail that it stands in (256 KiB, and an event of 64 KiB that ends it), the
slice of it that was handed over and the transport's buffer (64 KiB each). What the kernel holds is not counted."""

SHARED_BYTES = 64 * 1024 * 1024
"""What all readers of the process cost together: the pages that are kept (32 MiB), and one that is being read."""


_ESTABLISHED = "01"
"""In /proc/net/tcp."""


@pytest.mark.alone
async def test_a_thousand_followers_of_one_log_each_get_all_of_it(service: Service, client: Client) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * FOLLOWERS)), hard))
    task_id = await client.post("/wait 0.5", "/count 30 rate=20", "/count 3000")
    begun = time.monotonic()
    bodies = await asyncio.gather(*(_whole_body(service.url, task_id) for _ in range(FOLLOWERS)))
    took = time.monotonic() - begun
    log = await client.stored(task_id)
    assert_whole(log)
    expected = frames(log)
    assert [number for number, body in enumerate(bodies) if kept(body) != expected] == []
    assert took < FOLLOWERS_SECONDS


async def _whole_body(url: str, task_id: str) -> bytes:
    async with raw_stream(url, task_id) as stream:
        await stream.receive_all()
        assert stream.ended
        return bytes(stream.body)


@pytest_asyncio.fixture(loop_scope="session")
async def impatient_client(impatient_service: Service) -> AsyncIterator[Client]:
    async with client_of(impatient_service) as made:
        yield made


async def test_pitfall_14_followers_that_stop_reading_in_mid_stream_cost_their_buffers_and_hinder_nobody(
    impatient_service: Service, impatient_client: Client
) -> None:
    http, client = impatient_service, impatient_client
    await _have_long_log_read(http, client)  # whatever one reader costs, the process has had
    quiet = _resident_bytes(http)
    task_id = await client.post(
        f"/count 14 rate=10 size={DELTA_BYTES}", f"/count {DELTAS - 14} rate=300 size={DELTA_BYTES}"
    )
    async with AsyncExitStack() as open_streams:
        stalled = [
            await open_streams.enter_async_context(raw_stream(http.url, task_id, receive_buffer=RECEIVE_BUFFER_BYTES))
            for _ in range(STALLED)
        ]
        unhindered = asyncio.create_task(_read_whole(http, task_id))
        await asyncio.gather(*(stream.receive_until(6 + number % 5) for number, stream in enumerate(stalled)))
        assert not await client.is_closed(task_id)
        reader = await unhindered
        grown = _peak_bytes(http) - quiet
        assert grown < STALLED * STALLED_READER_BYTES + SHARED_BYTES, f"{grown / 2**20:.0f} MiB"
        await _until(lambda: not _connected(stalled))  # they are disconnected, though they read nothing
        for stream in stalled[:COMING_BACK]:
            await stream.receive_all()
            assert not stream.ended
    log = await client.stored(task_id)
    assert_whole(log)
    assert reader.log == frames(log)
    assert (reader.connections, reader.cuts) == (1, 0)
    for stream in stalled[:COMING_BACK]:
        back = RawReader(task_id, kept(bytes(stream.body)), connections=1)
        assert 0 < len(back.log) < len(reader.log)
        await back.read_to_the_end(http.url)
        assert back.log == reader.log


async def test_pitfall_14_readers_of_a_long_ended_log_that_stop_reading_cost_their_buffers(
    impatient_service: Service, impatient_client: Client
) -> None:
    http, client = impatient_service, impatient_client
    task_id = await _have_long_log_read(http, client)
    log = await client.stored(task_id)
    quiet = _resident_bytes(http)
    async with AsyncExitStack() as open_streams:
        for event in log[5 : 5 + STALLED]:  # as they come back after a cut: each from a position of its own
            headers = {"Last-Event-ID": event.position}
            stream = await open_streams.enter_async_context(
                raw_stream(http.url, task_id, headers, receive_buffer=RECEIVE_BUFFER_BYTES)
            )
            await stream.receive_until(1)
        grown = _peak_bytes(http) - quiet
    assert grown < STALLED * STALLED_READER_BYTES + SHARED_BYTES, f"{grown / 2**20:.0f} MiB"


async def _have_long_log_read(http: Service, client: Client) -> str:
    """A log of DELTAS, ended, that somebody has read."""
    task_id = await client.post(f"/count {DELTAS} size={DELTA_BYTES}")
    await _read_whole(http, task_id)
    return task_id


async def _read_whole(http: Service, task_id: str) -> RawReader:
    reader = RawReader(task_id)
    await reader.read_to_the_end(http.url)
    return reader


def _resident_bytes(service: Service) -> int:
    """The process's memory now; its peak is counted from here on."""
    process = Path(f"/proc/{service.process.pid}")
    (process / "clear_refs").write_text("5")
    return _status_bytes(service, "VmRSS")


def _peak_bytes(service: Service) -> int:
    return _status_bytes(service, "VmHWM")


def _status_bytes(service: Service, name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{service.process.pid}/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


def _connected(streams: list[RawStream]) -> list[int]:
    """The ports of those streams whose connections the server has not closed, as the kernel knows.

    By both ends: other connections of this machine may have the same port at one of them.
    """
    own = {tuple(stream.writer.get_extra_info(end)[1] for end in ("peername", "sockname")) for stream in streams}
    connections = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    served = {
        tuple(int(address.partition(":")[2], 16) for address in (local, remote))
        for _, local, remote, state, *_ in connections
        if state == _ESTABLISHED
    }
    return sorted(port for _, port in own & served)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110  another process has no event to wait for
            await asyncio.sleep(0.02)
