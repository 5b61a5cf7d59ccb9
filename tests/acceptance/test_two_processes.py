"""The worker in one process, the readers at another: live over pub/sub, and the truth about what still runs."""

import asyncio
import re
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.acceptance.client import Client, Stored, assert_whole, client_of, frames
from tests.acceptance.readers import DONE, RawStream, kept, raw_stream
from tests.processes import Service, serve

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENCE_SECONDS = 10.0
"""Less than a heartbeat (15 s), which would find an event whose hint was lost; less than a lease (15 s)."""

LEAST_STOPS = 10
"""Of 25 events; where the machine is slow, the worker may say more than one between two stops."""

_EVENT = re.compile(rb"^id: (.*)\ndata: .*\n\n", re.MULTILINE)


async def test_pitfall_08_a_reader_at_another_process_has_each_event_before_the_next_is_there(
    tmp_path: Path, store_settings: dict[str, str]
) -> None:
    """Whenever something arrives, the worker is stopped (SIGSTOP), and goes on only when the reader has all there is.

    So however slow the machine is, no event can be appended before the reader has the one before it.
    """
    async with AsyncExitStack() as stack:
        http, worker = await asyncio.gather(
            stack.enter_async_context(serve(tmp_path / "http.log", store_settings, "--only", "http")),
            stack.enter_async_context(serve(tmp_path / "tasks.log", store_settings, "--only", "tasks", ready="model")),
        )
        client = await stack.enter_async_context(client_of(http))
        task_id = await client.post("/count 25 rate=10")
        stops: list[Stored] = []
        async with raw_stream(http.url, task_id) as stream:
            while await stream.receive() and DONE not in stream.body:
                has_event = _EVENT.search(stream.body) is not None  # `retry:` may come by itself
                if has_event and not await client.is_closed(task_id):
                    stops.append(await _caught_up_with_a_worker_that_stands(client, worker, task_id, stream))
            await stream.receive_all()
        log = await client.stored(task_id)
        assert_whole(log)
        assert kept(bytes(stream.body)) == frames(log)
        deltas = [event for event in log if event.type == "text-delta"]
        assert "".join(event.chunk["delta"] for event in deltas).split() == [str(n) for n in range(1, 26)]
        assert len({event.n for event in stops if event.type == "text-delta"}) >= LEAST_STOPS
        assert await client.status(task_id) == "succeeded"


async def _caught_up_with_a_worker_that_stands(
    client: Client, worker: Service, task_id: str, stream: RawStream
) -> Stored:
    """Answers the last event, which log and reader have in common while nothing can be appended."""
    worker.process.send_signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (last := await client.last(task_id)).position != _position(stream):
                assert await stream.receive(), "the stream ended before the log did"
            if last.type == "text-delta":  # the end is decided only when what comes after it is stored
                assert await client.status(task_id) == "running"
                assert DONE not in stream.body
    finally:
        worker.process.send_signal(signal.SIGCONT)
    return last


def _position(stream: RawStream) -> str:
    """Of the last event that is there whole."""
    return _EVENT.findall(stream.body)[-1].decode()


async def test_pitfall_09_readers_at_the_producing_and_at_another_process_get_each_event_once_in_order(
    service: Service, beating_service: Service, client: Client
) -> None:
    """Both have a worker: whichever takes the task, two readers are where it is produced, and two are elsewhere."""
    task_id = await client.post("/count 300 rate=300", "/count 3000", "/wait 0.1", "/say done")
    async with AsyncExitStack() as open_streams:
        streams = [
            await open_streams.enter_async_context(raw_stream(url, task_id))
            for url in (service.url, beating_service.url) * 2
        ]
        await asyncio.gather(*(stream.receive_all() for stream in streams))
    log = await client.stored(task_id)
    assert_whole(log)
    for stream in streams:
        assert kept(bytes(stream.body)) == frames(log)
