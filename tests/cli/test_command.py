"""The command as a user runs it: exit codes, what stands on which stream, and databases that do not fit.

Whatever is wrong with a setting or with what it points at is one line on stderr that names it, and exit code 2.
"""

import asyncio
import json
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from service.adapters.postgres_schema import KNOWN_VERSION, schema_sql
from service.wiring import StoreUrls
from tests.adapters.embedded.foreign import eventually
from tests.adapters.valkeys import own_valkey
from tests.cli.conftest import Command, Ran, environment_of
from tests.processes import serve
from tests.sessions.databases import own_database

SECRET = "hunter2"


async def from_the_start(folder: Path, module: str, *arguments: str, settings: Mapping[str, str]) -> Ran:
    """The same, as a user starts it: a Python of its own, which loads the module."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", module, *arguments),
        env=environment_of(settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
    )
    try:
        async with asyncio.timeout(30):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    return Ran(process.returncode, out.decode(), err.decode())


def assert_one_line(ran: Ran, name: str, code: int = 2) -> None:
    assert ran.code == code, ran.err
    assert ran.err.startswith(f"playhead: PLAYHEAD_{name}: ")
    assert ran.err.count("\n") == 1
    assert ran.err.endswith("\n")
    assert SECRET not in ran.out + ran.err


async def test_the_version_is_told(playhead: Command, tmp_path: Path) -> None:
    ran = await playhead(tmp_path, "--version")
    assert (ran.code, ran.err) == (0, "")
    assert re.fullmatch(rf"playhead [0-9][0-9a-z.+]*, schema version {KNOWN_VERSION}\n", ran.out)


@pytest.fixture
def empty(postgres_server: str) -> Iterator[str]:
    with own_database(postgres_server, schema=False) as url:
        yield url


async def execute(url: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close()


# --- help -------------------------------------------------------------------------------------------------------------


async def test_help_names_the_commands(playhead: Command, tmp_path: Path) -> None:
    ran, bare, serve_help = await asyncio.gather(
        playhead(tmp_path, "--help"), playhead(tmp_path), playhead(tmp_path, "serve", "--help")
    )
    assert (ran.code, ran.err) == (0, "")
    for word in ("serve", "schema", "keys"):
        assert word in ran.out
    assert bare.code == 2
    assert "serve" in bare.out + bare.err
    assert serve_help.code == 0
    assert "--only" in serve_help.out


async def test_what_there_is_not_is_a_usage_error(playhead: Command, tmp_path: Path) -> None:
    asked = (("nonsense",), ("serve", "--only", "nothing"), ("schema", "drop"))
    for ran in await asyncio.gather(*(playhead(tmp_path, *arguments) for arguments in asked)):
        assert ran.code == 2
        assert "Traceback" not in ran.err
        assert ran.out == ""
    assert list(tmp_path.iterdir()) == []


async def test_garbage_is_looked_for_as_soon_as_the_program_is_loaded(tmp_path: Path) -> None:
    program = "import service.__main__, gc; print(gc.isenabled(), gc.get_freeze_count() > 10_000)"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), stdout=asyncio.subprocess.PIPE, cwd=tmp_path
    )
    out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"True True\n")


# --- serve: settings --------------------------------------------------------------------------------------------------


WRONG: dict[str, dict[str, str]] = {
    "HTTP_PORT": {"HTTP_PORT": "70000"},
    "POSTGRES_URL": {"POSTGRES_URL": f"u:{SECRET}@host"},
    "MODEL_URL": {"MODEL_KEY": SECRET},
    "REDIS_URI": {"REDIS_URI": f"redis://u:{SECRET}@host"},
}


async def test_a_wrong_setting_stops_the_start_before_anything_is_there(playhead: Command, tmp_path: Path) -> None:
    """All kinds of wrong values: tests/test_settings.py."""
    runs = await asyncio.gather(*(playhead(tmp_path, "serve", settings=values) for values in WRONG.values()))
    for name, ran in zip(WRONG, runs, strict=True):
        assert_one_line(ran, name)
        assert ran.out == ""
    assert list(tmp_path.iterdir()) == []


async def test_a_dotenv_file_in_the_working_directory_is_read(playhead: Command, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PLAYHEAD_HTTP_PORT=70000\n")
    assert_one_line(await playhead(tmp_path, "serve"), "HTTP_PORT")


@pytest.mark.parametrize("part", ["http", "tasks", "archiver"])
async def test_a_part_alone_is_refused_without_stores_that_others_share(
    playhead: Command, tmp_path: Path, part: str
) -> None:
    """And before what is set is asked: nobody answers there."""
    redis, postgres = "PLAYHEAD_REDIS_URL", "PLAYHEAD_POSTGRES_URL"
    given = {redis: f"redis://u:{SECRET}@127.0.0.1:1/0", postgres: f"postgresql://u:{SECRET}@127.0.0.1:1/d"}
    settings = [{}, *({name.removeprefix("PLAYHEAD_"): url} for name, url in given.items())]
    runs = await asyncio.gather(*(playhead(tmp_path, "serve", "--only", part, settings=each) for each in settings))
    for ran, missing in zip(runs, (f"{redis} and {postgres}", postgres, redis), strict=True):
        told = f"playhead: {missing}: needed with --only: a part alone shares its stores with the others\n"
        assert (ran.code, ran.out, ran.err) == (2, "", told)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "part"), [("HTTP_PORT", ()), ("PROBE_PORT", ("--only", "archiver"))])
async def test_a_port_in_use_is_one_line(
    playhead: Command, tmp_path: Path, stores: StoreUrls, postgres_url: str, name: str, part: tuple[str, ...]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        settings = {name: port, "REDIS_URL": stores.redis, "POSTGRES_URL": postgres_url}
        ran = await playhead(tmp_path, "serve", *part, settings=settings)
    assert_one_line(ran, name)
    assert port in ran.err


# --- serve: stores ----------------------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


async def test_a_database_that_does_not_answer_is_one_line(
    playhead: Command, tmp_path: Path, stores: StoreUrls
) -> None:
    url = f"postgresql://u:{SECRET}@127.0.0.1:{closed_port()}/d"
    settings = {"REDIS_URL": stores.redis, "POSTGRES_URL": url}
    assert_one_line(await playhead(tmp_path, "serve", settings=settings), "POSTGRES_URL", 5)


async def test_a_database_that_there_is_not_is_one_line(
    playhead: Command, tmp_path: Path, stores: StoreUrls, empty: str
) -> None:
    settings = {"REDIS_URL": stores.redis, "POSTGRES_URL": empty.replace("/playhead_test", "/no_such")}
    for ran in await asyncio.gather(
        playhead(tmp_path, "serve", settings=settings), playhead(tmp_path, "schema", "apply", settings=settings)
    ):
        assert_one_line(ran, "POSTGRES_URL")


async def test_a_redis_that_does_not_answer_is_one_line_whatever_part_starts(
    playhead: Command, tmp_path: Path, postgres_url: str
) -> None:
    """All kinds of stores that do not do: tests/adapters/test_redis_check.py."""
    settings = {"REDIS_URL": f"redis://u:{SECRET}@127.0.0.1:{closed_port()}/0", "POSTGRES_URL": postgres_url}
    for ran in await asyncio.gather(
        playhead(tmp_path, "serve", settings=settings),
        playhead(tmp_path, "serve", "--only", "http", settings=settings),
        from_the_start(tmp_path, "consumers", "tasks", settings=settings),
        from_the_start(tmp_path, "consumers", "archiver", settings=settings),
    ):
        assert_one_line(ran, "REDIS_URL", 5)
        assert "cannot be reached" in ran.err
        assert ran.out == ""


async def test_a_store_that_does_not_do_stops_the_start_before_an_embedded_one_makes_its_folder(
    playhead: Command, tmp_path: Path
) -> None:
    async with own_valkey("--maxmemory-policy", "allkeys-lru") as valkey:
        assert_one_line(await playhead(tmp_path, "serve", settings={"REDIS_URL": valkey.url()}), "REDIS_URL")
    url = f"postgresql://u:{SECRET}@127.0.0.1:{closed_port()}/d"
    assert_one_line(await playhead(tmp_path, "serve", settings={"POSTGRES_URL": url}), "POSTGRES_URL", 5)
    assert list(tmp_path.iterdir()) == []


async def test_a_redis_that_goes_away_later_is_waited_for_and_told(tmp_path: Path, postgres_url: str) -> None:
    """It says in its log that it waits, /readyz has what is away, and all is well when the store is back."""
    log = tmp_path / "log"
    async with (
        own_valkey() as valkey,
        serve(log, {"REDIS_URL": valkey.url(), "POSTGRES_URL": postgres_url}) as service,
        aiohttp.ClientSession() as http,
    ):

        async def readiness() -> int:
            async with http.get(f"{service.url}/readyz") as answer:
                return answer.status

        assert await readiness() == 200
        await valkey.kill()
        await eventually(lambda: "hints_interrupted" in log.read_text(), "it says that it waits")
        assert await readiness() == 503
        await valkey.start()
        assert await readiness() == 200
        assert await service.stop() == 0
    assert "Traceback" not in log.read_text()


async def test_passwords_of_stores_are_not_printed(tmp_path: Path, postgres_url: str) -> None:
    """What is printed at the start lands in every container's log. (The embedded PostgreSQL trusts whoever comes.)"""
    async with own_valkey("--requirepass", SECRET) as valkey:
        settings = {
            "REDIS_URL": valkey.url(f":{SECRET}"),
            "POSTGRES_URL": postgres_url.replace("postgres@", f"postgres:{SECRET}@"),
            "AMQP_URL": f"amqp://u:{SECRET}@h/",
        }
        assert all(SECRET in url for url in settings.values())
        async with serve(tmp_path / "log", settings) as service:
            shown = "\n".join(service.lines)
            await service.stop()
    assert SECRET not in shown + (tmp_path / "log").read_text()
    assert "amqp      amqp://u:***@h/" in shown


@pytest.mark.parametrize("name", ["password", "sslpassword", "ssl_password", "PASSWORD"])
def test_no_kind_of_password_is_shown(name: str) -> None:
    shown = StoreUrls(f"rediss://h/0?{name}={SECRET}&db=1", f"postgresql://h/d?a=b&{name}={SECRET}").shown()
    assert shown == StoreUrls(f"rediss://h/0?{name}=***&db=1", f"postgresql://h/d?a=b&{name}=***")


@pytest.mark.parametrize("host", ["::1%nope", "127.0.0.2%lo"])
async def test_an_address_that_there_is_not_is_one_line(
    playhead: Command, tmp_path: Path, stores: StoreUrls, postgres_url: str, host: str
) -> None:
    settings = {"HTTP_HOST": host, "REDIS_URL": stores.redis, "POSTGRES_URL": postgres_url}
    assert_one_line(await playhead(tmp_path, "serve", settings=settings), "HTTP_HOST")


@pytest.mark.parametrize("attributes", ["standby", "read-only", "any-such"])
async def test_a_database_that_is_not_what_the_url_asks_for_is_one_line(
    playhead: Command, tmp_path: Path, stores: StoreUrls, postgres_url: str, attributes: str
) -> None:
    url = f"{postgres_url}&target_session_attrs={attributes}"
    settings = {"REDIS_URL": stores.redis, "POSTGRES_URL": url}
    assert_one_line(await playhead(tmp_path, "serve", settings=settings), "POSTGRES_URL")


async def test_a_database_that_is_read_only_is_refused(
    playhead: Command, tmp_path: Path, stores: StoreUrls, postgres_url: str
) -> None:
    (row,) = await execute(postgres_url, "SELECT current_database() AS name")
    await execute(postgres_url, f"ALTER DATABASE {row['name']} SET default_transaction_read_only = on")
    settings = {"REDIS_URL": stores.redis, "POSTGRES_URL": postgres_url}
    ran = await playhead(tmp_path, "serve", settings=settings)
    assert_one_line(ran, "POSTGRES_URL")
    assert "read-only" in ran.err


async def test_a_database_without_our_schema_is_refused(
    playhead: Command, tmp_path: Path, stores: StoreUrls, empty: str
) -> None:
    ran = await playhead(tmp_path, "serve", settings={"REDIS_URL": stores.redis, "POSTGRES_URL": empty})
    assert_one_line(ran, "POSTGRES_URL")
    assert "playhead schema apply" in ran.err
    assert await execute(empty, "SELECT FROM pg_tables WHERE schemaname = 'public'") == []


@pytest.mark.parametrize("version", [KNOWN_VERSION + 1, KNOWN_VERSION - 1], ids=["future", "past"])
async def test_a_database_of_another_version_is_refused_and_left_alone(
    playhead: Command, tmp_path: Path, stores: StoreUrls, postgres_url: str, version: int
) -> None:
    await execute(postgres_url, f"UPDATE schema_version SET version = {version}")
    settings = {"REDIS_URL": stores.redis, "POSTGRES_URL": postgres_url}
    for ran in await asyncio.gather(
        playhead(tmp_path, "serve", settings=settings), playhead(tmp_path, "schema", "apply", settings=settings)
    ):
        assert_one_line(ran, "POSTGRES_URL")
        assert str(version) in ran.err
    (row,) = await execute(postgres_url, "SELECT version FROM schema_version")
    assert row["version"] == version


async def test_a_database_whose_transactions_do_not_see_each_other_is_refused(
    playhead: Command, tmp_path: Path, stores: StoreUrls, postgres_url: str, empty: str
) -> None:
    settings = {"REDIS_URL": stores.redis, "POSTGRES_URL": postgres_url}
    for url in (postgres_url, empty):
        name = (await execute(url, "SELECT current_database()"))[0][0]
        await execute(url, f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    for ran in await asyncio.gather(
        playhead(tmp_path, "serve", settings=settings),
        playhead(tmp_path, "schema", "apply", settings={"POSTGRES_URL": empty}),
    ):
        assert_one_line(ran, "POSTGRES_URL")
        assert "repeatable read" in ran.err
    assert await execute(empty, "SELECT FROM pg_tables WHERE schemaname = 'public'") == []


# --- the end ----------------------------------------------------------------------------------------------------------

DEAF = """
import asyncio
from service.cli.logs import configure_logs
from service.cli.serve import end_what_is_left

async def rest(deaf):
    try:
        await asyncio.sleep(3600)
    finally:
        while deaf:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass

async def main():
    configure_logs()
    tasks = [asyncio.create_task(rest(deaf), name=name) for name, deaf in (("turn-quick", False), ("turn-deaf", True))]
    await asyncio.sleep(0)
    print("all is closed")
    await end_what_is_left()

asyncio.run(main())
"""


async def test_what_does_not_stop_does_not_keep_the_process_and_is_named(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", DEAF), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=tmp_path
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert (process.returncode, out) == (1, b"all is closed\n")
    told = json.loads(err)
    assert (told["action"], told["names"]) == ("tasks_abandoned", ["turn-deaf"])


# --- schema -----------------------------------------------------------------------------------------------------------


async def test_schema_print_prints_the_whole_ddl_and_needs_nothing(
    playhead: Command, tmp_path: Path, empty: str
) -> None:
    ran = await playhead(tmp_path, "schema", "print", settings={"HTTP_PORT": "wrong"})
    assert (ran.code, ran.out, ran.err) == (0, schema_sql(), "")
    connection = await asyncpg.connect(empty)
    try:
        await connection.execute(ran.out)  # it is SQL as it stands
    finally:
        await connection.close()


async def test_schema_apply_is_harmless_to_repeat_and_to_run_at_once(
    playhead: Command, tmp_path: Path, stores: StoreUrls, empty: str
) -> None:
    settings = {"POSTGRES_URL": empty}
    runs = await asyncio.gather(*(playhead(tmp_path, "schema", "apply", settings=settings) for _ in range(2)))
    assert [(ran.code, ran.err) for ran in runs] == [(0, "")] * 2
    assert sorted(ran.out for ran in runs) == [
        f"schema version {KNOWN_VERSION} applied\n",
        f"schema version {KNOWN_VERSION} was there already\n",
    ]
    await execute(empty, "INSERT INTO sessions DEFAULT VALUES")
    assert (await playhead(tmp_path, "schema", "apply", settings=settings)).code == 0
    assert len(await execute(empty, "SELECT FROM sessions")) == 1
    async with serve(tmp_path / "log", {"REDIS_URL": stores.redis, "POSTGRES_URL": empty}) as service:
        assert service.url.startswith("http://127.0.0.1:")
        assert await service.stop() == 0


async def test_schema_apply_wants_to_know_where(playhead: Command, tmp_path: Path) -> None:
    assert_one_line(await playhead(tmp_path, "schema", "apply"), "POSTGRES_URL")


async def test_a_foreign_database_with_a_table_of_ours_is_left_as_it_was(
    playhead: Command, tmp_path: Path, empty: str
) -> None:
    """Applied whole or not at all."""
    await execute(empty, "CREATE TABLE messages (mine integer)")
    ran = await playhead(tmp_path, "schema", "apply", settings={"POSTGRES_URL": empty})
    tables = await execute(empty, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert [row["tablename"] for row in tables] == ["messages"]
    assert_one_line(ran, "POSTGRES_URL")


# --- keys -------------------------------------------------------------------------------------------------------------


async def test_keys_are_those_of_a_database_that_is_named(playhead: Command, tmp_path: Path) -> None:
    assert_one_line(await playhead(tmp_path, "keys", "list"), "POSTGRES_URL")
