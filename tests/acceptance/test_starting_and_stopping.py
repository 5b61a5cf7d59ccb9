"""The service as a process: started as a user does, killed in mid-stream, told to stop in mid-turn."""

import signal
from pathlib import Path

import pytest

from tests.acceptance.client import assert_whole, client_of, frames
from tests.acceptance.readers import RawReader, kept, raw_stream
from tests.processes import serve

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_folder_is_all_that_it_needs_and_a_kill_in_mid_stream_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `make run` starts it: stores of its own, the demo model. The turn is taken over; and it stops when told to.

    Variables that are meant for another database do not decide about the embedded one.
    """
    for name, value in (("PGSSLMODE", "require"), ("PGTARGETSESSIONATTRS", "standby"), ("PGGSSLIB", "x")):
        monkeypatch.setenv(name, value)
    settings = {"DATA_DIR": str(tmp_path / "data"), "LEASE_SECONDS": "1"}
    async with serve(tmp_path / "log", settings) as service, client_of(service) as client:
        task_id = await client.post("/count 20 rate=20")
        reader = RawReader(task_id)
        async with raw_stream(service.url, task_id) as stream:
            await stream.receive_until(12)
            assert await service.stop(signal.SIGKILL) == -signal.SIGKILL
            await stream.receive_all()
        assert not stream.ended
        reader.log, reader.connections = kept(bytes(stream.body)), 1
    async with serve(tmp_path / "log", settings) as service, client_of(service) as client:
        await reader.read_to_the_end(service.url)
        log = await client.stored(task_id)
        assert_whole(log)
        assert reader.log == frames(log)
        assert reader.connections == 2
        assert await client.status(task_id) == "succeeded"
        assert await service.stop() == 0
    types = [event.type for event in log]
    attempts = [event.chunk["data"]["epoch"] for event in log if event.type == "data-attempt"]
    assert attempts == [1, 2]
    assert types.count("reset-step") == 1
    assert types.count("start-step") == types.count("finish-step") == 1
    again = log[types.index("reset-step") :]
    assert "".join(event.chunk["delta"] for event in again if event.type == "text-delta").split() == [
        str(n) for n in range(1, 21)
    ]
    assert log[-1].chunk["messageMetadata"]["status"] == "succeeded"


async def test_a_stop_in_mid_turn_lets_the_turn_finish_and_its_reader_have_the_end(
    tmp_path: Path, store_settings: dict[str, str]
) -> None:
    async with serve(tmp_path / "log", store_settings) as service, client_of(service) as client:
        task_id = await client.post("/count 40 rate=20")
        async with raw_stream(service.url, task_id) as stream:
            await stream.receive_until(8)
            assert not await client.is_closed(task_id)
            service.process.send_signal(signal.SIGTERM)
            assert (await client.no_longer_ready())["status"] == "stopping"
            await stream.receive_all()
        assert await service.stop() == 0
        log = await client.stored(task_id)
        assert_whole(log)
        assert stream.ended
        assert kept(bytes(stream.body)) == frames(log)
    assert [event.type for event in log].count("data-attempt") == 1
    assert log[-1].chunk["messageMetadata"]["status"] == "succeeded"
    assert log[-1].chunk["messageMetadata"]["output"].split() == [str(n) for n in range(1, 41)]
