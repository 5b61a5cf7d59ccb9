"""The embedded stores as a whole, with real servers."""

import asyncio
import os
import signal
import stat
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
import redis.asyncio
from structlog.testing import capture_logs

from service.adapters.embedded import StoreUrls, embedded_stores
from service.adapters.embedded.valkey import pings
from service.model.errors import ConfigurationError
from tests.adapters.embedded.foreign import Serve, eventually, is_running, needs_linux, parent_of, pid_in


async def sql(url: str | None, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def leave_a_mark(urls: StoreUrls) -> None:
    """Write something into both, so that a later run can look for it."""
    async with redis.asyncio.from_url(urls.redis) as client:
        await client.set("mark", "kept")
    await sql(urls.postgres, "CREATE TABLE mark AS SELECT 'kept' AS text")


async def find_the_mark(urls: StoreUrls) -> tuple[object, object]:
    async with redis.asyncio.from_url(urls.redis, decode_responses=True) as client:
        found = await client.get("mark")
    return found, await sql(urls.postgres, "SELECT text FROM mark")


def socket_folder(urls: StoreUrls) -> Path:
    return Path(parse_qs(urlsplit(urls.postgres or "").query)["host"][0])


async def test_both_answer_on_private_sockets_and_keep_their_data(tmp_path: Path) -> None:
    data = tmp_path / "a folder" / "that is not there"
    async with embedded_stores(data) as urls:
        await leave_a_mark(urls)
        sockets = socket_folder(urls)
        pids = [pid_in(data / "valkey.pid"), pid_in(data / "postgres.pid")]
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert sockets.name.startswith(f"playhead-{os.geteuid()}-")
        async with redis.asyncio.from_url(urls.redis, decode_responses=True) as client:
            wanted = ("port", "appendonly", "appendfsync", "save", "maxmemory-policy")
            assert await client.config_get(*wanted) == {
                "port": "0", "appendonly": "yes", "appendfsync": "everysec", "save": "",
                "maxmemory-policy": "noeviction",
            }  # fmt: skip
        settings = "listen_addresses", "fsync", "max_connections", "server_encoding"
        shown = [await sql(urls.postgres, f"SELECT current_setting('{name}', true)") for name in settings]
        assert shown == ["", "on", "60", "UTF8"]
    assert not any(is_running(pid) for pid in pids)
    assert not sockets.exists()
    assert sorted(entry.name for entry in data.iterdir()) == [
        "lock", "postgres", "postgres.log", "valkey", "valkey.log",
    ]  # fmt: skip
    async with embedded_stores(data) as urls:
        assert await find_the_mark(urls) == ("kept", "kept")


async def test_only_what_is_asked_for_is_started(tmp_path: Path) -> None:
    async with embedded_stores(tmp_path / "data", valkey=False, postgres=False) as urls:
        assert urls == StoreUrls(None, None)
    async with embedded_stores(tmp_path / "data", postgres=False) as urls:
        assert urls.postgres is None
        assert await pings(Path(urlsplit(urls.redis or "").path))
    assert not (tmp_path / "data" / "postgres").exists()


async def test_killed_servers_come_back_with_their_data(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with embedded_stores(tmp_path) as urls:
            await leave_a_mark(urls)
            for name in ("valkey", "postgres"):
                before = pid_in(tmp_path / f"{name}.pid")
                os.kill(before, signal.SIGKILL)
                await eventually(lambda: pid_in(tmp_path / f"{name}.pid") not in (0, before), f"another {name}")  # noqa: B023
                await eventually(
                    lambda: any(e["event"] == "embedded_server_restarted" and e["server"] == name for e in logs),  # noqa: B023
                    f"{name} answers",
                )
            assert await find_the_mark(urls) == ("kept", "kept")
    deaths = [(entry["server"], entry["code"]) for entry in logs if entry["event"] == "embedded_server_died"]
    assert ("valkey", 137) in deaths
    assert ("postgres", 137) in deaths


@needs_linux
async def test_nothing_runs_on_after_the_parent_was_killed_and_the_next_start_waits_for_it(
    tmp_path: Path, serve: Serve
) -> None:
    killed = await serve(tmp_path)
    await leave_a_mark(StoreUrls(**killed.says))
    before = killed.pids
    keepers = [parent_of(pid) for pid in before.values()]
    assert all(os.getsid(keeper) == keeper for keeper in keepers)  # a Ctrl-C in the terminal does not reach them
    for pid in (*before.values(), *keepers):  # each holds the folder for as long as it lives
        assert str(tmp_path / "lock") in [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    await killed.kill()
    again = await serve(tmp_path)  # at once: the old servers still hold the folder
    assert "error" not in again.says
    assert not any(is_running(pid) for pid in before.values())
    assert await find_the_mark(StoreUrls(**again.says)) == ("kept", "kept")
    after = again.pids
    await again.kill()
    for pid in (*after.values(), *keepers):
        await eventually(lambda: not is_running(pid), f"{pid} is gone")  # noqa: B023
    await eventually(lambda: not (tmp_path / "postgres.pid").exists(), "the pid files are gone")
    socket_folder(StoreUrls(**again.says)).rmdir()  # and their sockets: it is empty


@needs_linux
async def test_a_killed_keeper_takes_its_server_along(tmp_path: Path, serve: Serve) -> None:
    serving = await serve(tmp_path)
    before = serving.pids
    for pid in before.values():
        os.kill(parent_of(pid), signal.SIGKILL)
    for pid in before.values():
        await eventually(lambda: not is_running(pid), f"{pid} is gone")  # noqa: B023
    for name, pid in before.items():
        await eventually(lambda: serving.pids[name] not in (0, pid), f"another {name}")  # noqa: B023
    assert await serving.leave() == 0


async def test_a_second_instance_is_refused_by_name_of_the_first(tmp_path: Path, serve: Serve) -> None:
    first = await serve(tmp_path)
    second = await serve(tmp_path)
    assert f"is in use by pid {first.process.pid} (" in second.says["error"]
    assert "tests.adapters.embedded.serve" in second.says["error"]
    with pytest.raises(ConfigurationError, match=f"in use by pid {first.process.pid}"):
        async with embedded_stores(tmp_path):
            pass
    await leave_a_mark(StoreUrls(**first.says))
    os.killpg(first.process.pid, signal.SIGINT)  # as Ctrl-C does
    await first.process.wait()
    async with embedded_stores(tmp_path) as urls:  # a clean end: nothing to wait for, nothing lost
        assert await find_the_mark(urls) == ("kept", "kept")
        with pytest.raises(ConfigurationError, match=f"in use by pid {os.getpid()}"):
            async with embedded_stores(tmp_path):
                pass


async def test_an_error_inside_and_a_cancellation_leave_nothing_and_arrive_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="inside"):
        async with embedded_stores(tmp_path, postgres=False):
            raise LookupError("inside")
    entered = asyncio.Event()

    async def hold() -> None:
        async with embedded_stores(tmp_path, postgres=False):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await entered.wait()
    pid = pid_in(tmp_path / "valkey.pid")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_running(pid)


async def test_a_leaving_that_is_cancelled_still_stops_the_servers(tmp_path: Path) -> None:
    entered = asyncio.Event()

    async def hold() -> None:
        async with embedded_stores(tmp_path, postgres=False):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await entered.wait()
    pid = pid_in(tmp_path / "valkey.pid")
    task.cancel()
    await asyncio.sleep(0)  # it is leaving now
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: not is_running(pid), "valkey is gone")
    async with embedded_stores(tmp_path, postgres=False):
        pass


async def test_a_damaged_append_only_file_stops_the_start_with_valkeys_reason(tmp_path: Path) -> None:
    async with embedded_stores(tmp_path, postgres=False) as urls, redis.asyncio.from_url(urls.redis) as client:
        await client.set("a", "b")
    (damaged,) = (tmp_path / "valkey" / "appendonlydir").glob("*.incr.aof")
    damaged.write_bytes(b"*3\r\n$3\r\nSET\r\n" + b"garbage" * 20)
    with pytest.raises(ConfigurationError, match="valkey cannot start: Bad file format reading the append only file"):
        async with embedded_stores(tmp_path):
            pass
    # The other server's start was given up with it.
    assert not (tmp_path / "postgres").exists() or pid_in(tmp_path / "postgres.pid") == 0


async def test_a_damaged_database_folder_stops_the_start_with_postgres_reason(tmp_path: Path) -> None:
    async with embedded_stores(tmp_path, valkey=False):
        pass
    (tmp_path / "postgres" / "global" / "pg_control").unlink()
    with pytest.raises(ConfigurationError, match=r"postgres cannot start: .*pg_control"):
        async with embedded_stores(tmp_path, valkey=False):
            pass


@pytest.mark.parametrize("place", ["file", "proc"])
async def test_an_unusable_data_folder_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    data = tmp_path / "file" if place == "file" else Path("/proc/playhead")
    with pytest.raises(ConfigurationError, match=f"PLAYHEAD_DATA_DIR: {data} cannot be used as a folder"):
        async with embedded_stores(data):
            pass


@pytest.mark.parametrize("name", ["valkey.pid", "postgres.pid", "initdb.pid", "valkey.log", "postgres.log"])
async def test_a_folder_in_the_place_of_a_file_is_named(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigurationError, match=f"^PLAYHEAD_DATA_DIR: {tmp_path / name} cannot be written: Is a dir"):
        async with embedded_stores(tmp_path):
            pass
    assert caplog.records == []


async def test_a_data_folder_that_is_too_deep_is_named(tmp_path: Path) -> None:
    data = tmp_path.joinpath(*["d" * 200] * 5)
    with pytest.raises(ConfigurationError, match=r"^PLAYHEAD_DATA_DIR: .* bytes"):
        async with embedded_stores(data):
            pass
