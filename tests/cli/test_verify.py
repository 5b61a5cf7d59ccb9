"""`playhead verify` and `playhead export`, over real stores and over files: what they print, and their exit codes."""

import asyncio
import json
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from service.model.caller import EVERYONES
from service.model.events import TextPart
from service.model.export import prove_export
from service.model.ids import TaskId
from service.model.session import NewMessage
from service.registry.archive import Archivist
from service.wiring import StoreUrls, open_house, open_worker
from tests.cli.conftest import Command, Ran
from tests.http.conftest import settings_for

NOBODYS = "01890000-0000-7000-8000-000000000000"
SECRET = "Between us"


async def a_turn(settings: Mapping[str, str]) -> TaskId:
    """An archived turn that said the secret."""
    made = settings_for(settings["REDIS_URL"], settings["POSTGRES_URL"])
    stop = asyncio.Event()
    async with open_house(made) as house, open_worker(house, made) as worker, asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.run(stop))
        session = await house.sessions.create(None)
        task_id = (await house.messages.post(EVERYONES, session.id, NewMessage((TextPart(f"/say {SECRET}"),)))).task_id
        async with asyncio.timeout(10):
            while not ((facts := await house.directory.facts(task_id)) and facts.log_closed):
                pass  # each look is a round trip
        await Archivist(house.logs, house.hot, house.archive, hot_ttl_seconds=3600).archive_some()
        stop.set()
    return task_id


def assert_told(ran: Ran, code: int, *lines: str) -> None:
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    printed = ran.out.splitlines() + ran.err.splitlines()
    for line in lines:
        assert any(each.startswith(line) for each in printed), (line, printed)


async def test_a_log_is_proven_exported_and_proven_again(
    playhead: Command, tmp_path: Path, stores: StoreUrls, postgres_url: str
) -> None:
    settings = {"REDIS_URL": stores.redis, "POSTGRES_URL": postgres_url}
    task_id = await a_turn(settings)
    told, as_json, none, to_stdout, exported, redacted = await asyncio.gather(
        playhead(tmp_path, "verify", task_id, settings=settings),
        playhead(tmp_path, "verify", task_id, "--json", settings=settings),
        playhead(tmp_path, "verify", NOBODYS, settings=settings),
        playhead(tmp_path, "export", task_id, settings=settings),
        playhead(tmp_path, "export", task_id, "-o", "log.jsonl", settings=settings),
        playhead(tmp_path, "export", task_id, "--redact", "--output", "redacted.jsonl", settings=settings),
    )
    assert_told(
        told, 0, f"task      {task_id}", "log       closed, ", "read      in the archive and in Redis", "proven"
    )
    verdict = json.loads(as_json.out)
    assert (as_json.code, verdict["proven"], verdict["read_from"]) == (0, True, "both")
    assert f"sha256    {verdict['sha256']}" in told.out
    assert_told(none, 3, "playhead: There is no such thing here.")

    assert (to_stdout.code, to_stdout.err) == (0, "")
    assert (exported.code, exported.out, redacted.code, redacted.out) == (0, "", 0, "")
    assert (tmp_path / "log.jsonl").read_text() == to_stdout.out
    assert SECRET in to_stdout.out
    assert SECRET not in (tmp_path / "redacted.jsonl").read_text()
    assert prove_export(to_stdout.out.encode().splitlines(keepends=True)).sha256.hex() == verdict["sha256"]
    (tmp_path / "cut.jsonl").write_text(to_stdout.out[: to_stdout.out.rindex('{"events"')])
    (tmp_path / "changed.jsonl").write_text(to_stdout.out.replace(SECRET, "BETWEEN US"))
    whole, blank, cut, changed = await asyncio.gather(
        *(playhead(tmp_path, "verify", "--file", f"{name}.jsonl") for name in ("log", "redacted", "cut", "changed"))
    )
    assert_told(whole, 0, f"task      {task_id}", "read      in the file", f"sha256    {verdict['sha256']}", "proven")
    assert_told(blank, 0, "read      in the file, redacted", "proven")
    assert_told(cut, 4, "finding   incomplete_export at ", "not proven: 1 found")
    assert_told(changed, 4, "finding   wrong_sha256 at ", "not proven: ")


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@pytest.mark.parametrize("command", ["verify", "export"])
async def test_what_cannot_be_done_is_one_line_and_an_exit_code(
    playhead: Command, tmp_path: Path, stores: StoreUrls, postgres_url: str, command: str
) -> None:
    away = f"127.0.0.1:{closed_port()}"
    both = {"REDIS_URL": stores.redis, "POSTGRES_URL": postgres_url}
    no_redis, no_postgres = both | {"REDIS_URL": f"redis://{away}/0"}, both | {"POSTGRES_URL": f"postgresql://{away}/d"}
    runs = {
        (3, "playhead: There is no such thing here."): playhead(tmp_path, command, "nonsense", settings=both),
        (2, "playhead: PLAYHEAD_REDIS_URL and PLAYHEAD_POSTGRES_URL: needed"): playhead(tmp_path, command, NOBODYS),
        (5, "playhead: PLAYHEAD_REDIS_URL: the Redis cannot be reached"): playhead(
            tmp_path, command, NOBODYS, settings=no_redis
        ),
        (5, "playhead: PLAYHEAD_POSTGRES_URL: the database cannot be reached"): playhead(
            tmp_path, command, NOBODYS, settings=no_postgres
        ),
    }
    for (code, line), ran in zip(runs, await asyncio.gather(*runs.values()), strict=True):
        assert_told(ran, code, line)
        assert (ran.out, ran.err.count("\n")) == ("", 1)
    assert list(tmp_path.iterdir()) == []


async def test_a_task_or_a_file_is_asked_for(playhead: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    asked = (("verify",), ("verify", NOBODYS, "--file", "empty"), ("verify", "--file", "no-such"), ("export",))
    for ran in await asyncio.gather(*(playhead(tmp_path, *arguments) for arguments in asked)):
        assert_told(ran, 2)
        assert ran.out == ""
    assert_told(
        await playhead(tmp_path, "verify", "--file", "empty"), 4, "finding   incomplete_export at the beginning"
    )


async def test_a_log_that_is_still_written_is_not_exported_and_touches_no_file(
    playhead: Command, tmp_path: Path, stores: StoreUrls, postgres_url: str
) -> None:
    settings = {"REDIS_URL": stores.redis, "POSTGRES_URL": postgres_url}
    async with open_house(settings_for(stores.redis, postgres_url)) as house:
        session = await house.sessions.create(None)
        task_id = (await house.messages.post(EVERYONES, session.id, NewMessage((TextPart("Hi"),)))).task_id
    (tmp_path / "kept").write_text("what was there")
    exported, proven = await asyncio.gather(
        playhead(tmp_path, "export", task_id, "-o", "kept", settings=settings),
        playhead(tmp_path, "verify", task_id, settings=settings),
    )
    assert_told(exported, 2, "playhead: The log is still written.")
    assert (tmp_path / "kept").read_text() == "what was there"
    assert_told(proven, 0, "log       open, 0 events", "proven as far as it is written")
