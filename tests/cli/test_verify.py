"""`playhead verify` and `playhead export`, through either door and of files: what they print, and their exit codes."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from service.model.export import prove_export
from service.wiring import StoreUrls
from tests.acceptance.proxy import cutting_proxy
from tests.cli.conftest import NO_TASK as NOBODYS
from tests.cli.conftest import Command, Logs, Ran

SECRET = "Well"
"""What one of the tasks said."""


def assert_told(ran: Ran, code: int, *lines: str) -> None:
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    printed = ran.out.splitlines() + ran.err.splitlines()
    for line in lines:
        assert any(each.startswith(line) for each in printed), (line, printed)


@pytest.mark.parametrize("door", ["url", "stores"])
async def test_a_log_is_proven_exported_and_proven_again(
    playhead: Command, tmp_path: Path, logs: Logs, door: str
) -> None:
    """An archived one, through either door; as a file it is proven by nobody but itself."""
    where, settings = logs.at(door)
    verify, export = ("verify", logs.counted, *where), ("export", logs.counted, *where)
    told, as_json, none, to_stdout, exported, redacted = await asyncio.gather(
        playhead(tmp_path, *verify, settings=settings),
        playhead(tmp_path, *verify, "--json", settings=settings),
        playhead(tmp_path, "verify", NOBODYS, *where, settings=settings),
        playhead(tmp_path, *export, settings=settings),
        playhead(tmp_path, *export, "-o", "log.jsonl", settings=settings),
        playhead(tmp_path, *export, "--redact", "--output", "redacted.jsonl", settings=settings),
    )
    assert_told(
        told, 0, f"task      {logs.counted}", "log       closed, ", "read      in the archive and in Redis", "proven"
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
    assert {file.name for file in tmp_path.iterdir()} == {"log.jsonl", "redacted.jsonl"}
    (tmp_path / "cut.jsonl").write_text(to_stdout.out[: to_stdout.out.rindex('{"events"')])
    (tmp_path / "changed.jsonl").write_text(to_stdout.out.replace(SECRET, SECRET.upper()))
    whole, blank, cut, changed = await asyncio.gather(
        *(playhead(tmp_path, "verify", "--file", f"{name}.jsonl") for name in ("log", "redacted", "cut", "changed"))
    )
    assert_told(
        whole, 0, f"task      {logs.counted}", "read      in the file", f"sha256    {verdict['sha256']}", "proven"
    )
    assert_told(blank, 0, "read      in the file, redacted", "proven")
    assert_told(cut, 4, "finding   incomplete_export at ", "not proven: 1 found")
    assert_told(changed, 4, "finding   wrong_sha256 at ", "not proven: ")


@pytest.mark.parametrize("door", ["url", "stores"])
async def test_a_log_that_is_still_written_is_proven_so_far_and_not_exported(
    playhead: Command, tmp_path: Path, logs: Logs, door: str
) -> None:
    where, settings = logs.at(door)
    (tmp_path / "kept").write_text("what was there")
    exported, proven = await asyncio.gather(
        playhead(tmp_path, "export", logs.running, "-o", "kept", *where, settings=settings),
        playhead(tmp_path, "verify", logs.running, *where, settings=settings),
    )
    assert_told(exported, 2, "playhead: The log is still written.")
    assert_told(proven, 0, "log       open, ", "read      in Redis", "proven as far as it is written")
    assert (tmp_path / "kept").read_text() == "what was there"
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]


async def test_an_export_that_is_cut_leaves_the_file_as_it_was(playhead: Command, tmp_path: Path, logs: Logs) -> None:
    """And what takes its place takes it where a link leads, with the rights that were there."""
    (tmp_path / "kept").write_text("what was there")
    (tmp_path / "kept").chmod(0o640)
    (tmp_path / "link").symlink_to("kept")
    export = ("export", logs.counted, "-o", "link")
    async with cutting_proxy(logs.url, [900]) as proxy:
        cut = await playhead(tmp_path, *export, settings={"URL": proxy.url})
    assert_told(cut, 5, "playhead: The connection broke in the midst of the export.")
    assert (tmp_path / "kept").read_text() == "what was there"
    assert {file.name for file in tmp_path.iterdir()} == {"kept", "link"}
    whole, nowhere = await asyncio.gather(
        playhead(tmp_path, *export, settings={"URL": logs.url}),
        playhead(tmp_path, "export", logs.counted, "-o", "no/such", settings={"URL": logs.url}),
    )
    assert (whole.code, whole.err, (tmp_path / "link").is_symlink()) == (0, "", True)
    assert (tmp_path / "kept").read_text().count("\n") == len(logs.events) + 2
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o640
    assert_told(nowhere, 2, "playhead: no/such: cannot be written: No such file or directory")


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
        (2, "playhead: PLAYHEAD_REDIS_URL and PLAYHEAD_POSTGRES_URL: needed"): playhead(
            tmp_path, command, NOBODYS, "--stores"
        ),
        (5, "playhead: PLAYHEAD_REDIS_URL: the Redis cannot be reached"): playhead(
            tmp_path, command, NOBODYS, "--stores", settings=no_redis
        ),
        (5, "playhead: PLAYHEAD_POSTGRES_URL: the database cannot be reached"): playhead(
            tmp_path, command, NOBODYS, "--stores", settings=no_postgres
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
