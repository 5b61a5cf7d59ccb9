"""`playhead doctor`: what is set, what answers, how far behind it is; and what is not told."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from service.adapters.embedded import StoreUrls as EmbeddedUrls
from service.adapters.embedded import running_stores
from service.adapters.postgres_schema import KNOWN_VERSION
from service.adapters.redis_client import connect
from service.cli.diagnosis import shown_settings
from service.settings import Settings
from service.wiring import StoreUrls
from tests.adapters.valkeys import own_valkey
from tests.cli.conftest import PLAIN, Command, Logs, Ran
from tests.client.misbehaving import misbehaving, status
from tests.processes import free_port

SECRET = "hunter2"


def looked(ran: Ran) -> dict[str, Any]:
    return {each["name"]: each for each in json.loads(ran.out)["looked"]}


async def test_all_is_well_on_a_terminal_in_a_pipe_and_for_programs(
    playhead: Command, tmp_path: Path, logs: Logs
) -> None:
    (tmp_path / ".env").write_text("PLAYHEAD_LEASE_SECONDS=20\nPLAYHEAD_HEARTBEAT_SECONDS=20\n")
    settings = logs.stores | {"URL": logs.url, "HEARTBEAT_SECONDS": "10", "API_KEYS": ""}
    piped, terminal, as_json = await asyncio.gather(
        playhead(tmp_path, "doctor", settings=settings),
        playhead(tmp_path, "doctor", settings=settings, terminal=PLAIN),
        playhead(tmp_path, "doctor", "--json", settings=settings),
    )
    for ran in (piped, terminal):
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.endswith("\nall is well\n")
        for name in ("redis ", "postgres ", "model ", "service "):
            assert f"\n{name.strip():10}ok " in ran.out
        assert f", schema version {KNOWN_VERSION}\n" in ran.out
        assert f" ready at {logs.url}\n" in ran.out
    assert "PLAYHEAD_LEASE_SECONDS\t20.0\t.env\n" in piped.out
    assert "PLAYHEAD_HEARTBEAT_SECONDS\t10.0\tenvironment\n" in piped.out
    assert "PLAYHEAD_API_KEYS\toff\tdefault\n" in piped.out
    found = json.loads(as_json.out)
    assert (found["well"], found["embedded"]) == (True, {})
    assert {each["name"] for each in found["settings"]} == {
        f"PLAYHEAD_{name.upper()}" for name in Settings.model_fields
    }
    assert found["backlog"]["running"] >= 1
    facts = {name: each["facts"] for name, each in looked(as_json).items()}
    assert (facts["redis"]["append_only_file"], facts["redis"]["maxmemory_policy"]) == (True, "noeviction")
    assert facts["service"]["dependencies"] == {"redis": {"status": "ok"}, "postgres": {"status": "ok"}}


async def test_what_cannot_be_reached_is_told_with_the_rest(playhead: Command, tmp_path: Path, logs: Logs) -> None:
    away = f"127.0.0.1:{free_port()}"
    settings = {
        "REDIS_URL": f"redis://u:{SECRET}@{away}/0",
        "POSTGRES_URL": f"postgresql://u:{SECRET}@{away}/d",
        "URL": f"http://{away}",
        "TOKEN": SECRET,
    }
    nothing, no_redis, no_service, wrong_url, no_setting = await asyncio.gather(
        playhead(tmp_path, "doctor", "--json", settings=settings),
        playhead(tmp_path, "doctor", "--json", settings=settings | {"POSTGRES_URL": logs.stores["POSTGRES_URL"]}),
        playhead(tmp_path, "doctor", "--json", "--url", f"http://{away}", settings=logs.stores),
        playhead(tmp_path, "doctor", "--json", "--url", f"http://u:{SECRET}@h", settings=logs.stores),
        playhead(tmp_path, "doctor", settings={"HTTP_PORT": "x"}),
    )
    assert [ran.code for ran in (nothing, no_redis, no_service, wrong_url, no_setting)] == [5, 5, 5, 2, 2]
    states = {name: each["state"] for name, each in looked(nothing).items()}
    assert states == {"redis": "unreachable", "postgres": "unreachable", "model": "ok", "service": "unreachable"}
    assert json.loads(nothing.out)["backlog"] is None
    assert looked(no_redis)["postgres"]["state"] == "ok"
    assert json.loads(no_redis.out)["backlog"] is not None
    assert looked(no_service)["service"]["detail"] == f"http://{away}: The service cannot be reached."
    assert no_setting.err.startswith("playhead: PLAYHEAD_HTTP_PORT: ")
    for ran in (nothing, no_redis, wrong_url):
        assert SECRET not in ran.out + ran.err


async def test_a_token_that_the_service_does_not_take_is_a_fault(playhead: Command, tmp_path: Path, logs: Logs) -> None:
    ran = await playhead(tmp_path, "doctor", "--json", settings=logs.stores | {"URL": logs.url, "TOKEN": SECRET})
    assert (ran.code, looked(ran)["service"]["state"]) == (2, "wrong")
    assert "PLAYHEAD_TOKEN is not taken" in looked(ran)["service"]["detail"]
    assert SECRET not in ran.out + ran.err


async def test_what_is_not_as_it_must_be_is_told(playhead: Command, tmp_path: Path, logs: Logs) -> None:
    async with own_valkey("--maxmemory-policy", "allkeys-lru", "--appendonly", "no") as valkey:
        settings = logs.stores | {"URL": logs.url, "REDIS_URL": valkey.url()}
        ran = await playhead(tmp_path, "doctor", settings=settings)
    assert ran.code == 2
    assert "\nredis     wrong " in ran.out
    assert "in memory alone" in ran.out
    assert "set maxmemory-policy to noeviction" in ran.out
    not_ready = b'{"status":"unavailable","dependencies":{"redis":{"status":"ok"},"postgres":{"status":"away"}}}'
    async with misbehaving(status(503, not_ready, Content_Type="application/json")) as service:
        ran = await playhead(tmp_path, "doctor", settings=logs.stores | {"URL": service.url})
    assert ran.code == 5
    assert f"unavailable at {service.url}: it does not reach postgres\n" in ran.out


async def test_where_the_embedded_stores_of_a_running_process_are(
    playhead: Command, tmp_path: Path, stores: StoreUrls, logs: Logs
) -> None:
    """Known from the data folder alone, and as a second process has to name them."""
    redis = connect(stores.redis)
    data = Path((await redis.config_get("dir"))["dir"]).parent
    await redis.aclose()
    settings = {"DATA_DIR": str(data), "URL": logs.url}
    piped, as_json = await asyncio.gather(
        playhead(tmp_path, "doctor", settings=settings), playhead(tmp_path, "doctor", "--json", settings=settings)
    )
    urls = {"PLAYHEAD_REDIS_URL": stores.redis, "PLAYHEAD_POSTGRES_URL": stores.postgres}
    assert json.loads(as_json.out)["embedded"] == urls
    assert looked(as_json)["redis"]["state"] == "ok"
    assert "playhead schema apply" in looked(as_json)["postgres"]["detail"]  # they are those of the tests' own holder
    assert f"\nPLAYHEAD_POSTGRES_URL='{stores.postgres}'\n" in piped.out


def test_where_no_process_runs_no_embedded_stores_are_named_and_nothing_is_made(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert running_stores(data) == EmbeddedUrls(None, None)
    assert not data.exists()
    data.mkdir()
    for record in (None, "", "nonsense", f"{os.getpid()}\nanother command\n", "99999999\npython\n"):
        if record is not None:
            (data / "lock").write_text(record)
        assert running_stores(data) == EmbeddedUrls(None, None)


def test_no_setting_that_may_be_secret_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever has no representation: the password of an address, and all of what is none."""
    monkeypatch.chdir(tmp_path)
    hidden = [name for name, field in Settings.model_fields.items() if not field.repr]
    assert len(hidden) >= 9
    schemes = {"redis_url": "rediss", "postgres_url": "postgresql", "amqp_url": "amqps"}
    values = {name: f"{schemes.get(name, 'https')}://u:{SECRET}@h:1/p" for name in hidden if name.endswith("_url")}
    values |= {"url": f"http://{SECRET}@h?token={SECRET}", "jwt_jwks": f"https://h/keys?key={SECRET}"}
    values |= {name: SECRET * 5 for name in hidden if name not in values}
    for name, value in values.items():
        monkeypatch.setenv(f"PLAYHEAD_{name.upper()}", value)
    shown = {each.name: each for each in shown_settings(Settings(_env_file=None))}
    assert SECRET not in repr(shown)
    assert shown["PLAYHEAD_REDIS_URL"].value == "rediss://u:***@h:1/p"
    assert shown["PLAYHEAD_MODEL_URL"].value == "https://***@h:1/p"
    assert shown["PLAYHEAD_JWT_JWKS"].value == "https://h/keys?***"
    assert {shown[f"PLAYHEAD_{name.upper()}"].source for name in hidden} == {"environment"}


async def test_a_log_that_nobody_archives_is_a_fault(
    playhead: Command, tmp_path: Path, stores: StoreUrls, postgres_url: str
) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(
        """
        INSERT INTO sessions (id) VALUES ('s');
        INSERT INTO tasks (session_id, kind, status, input_id, ending, log_closed, finished_at)
        VALUES ('s', 'turn', 'succeeded', 'm', '[]', true, now() - interval '2 hours');
        """
    )
    await connection.close()
    settings = {"REDIS_URL": stores.redis, "POSTGRES_URL": postgres_url, "HTTP_PORT": str(free_port())}
    as_json, told = await asyncio.gather(
        playhead(tmp_path, "doctor", "--json", settings=settings), playhead(tmp_path, "doctor", settings=settings)
    )
    assert looked(as_json)["archiver"]["state"] == "wrong"
    assert json.loads(as_json.out)["well"] is False
    assert "\narchiver  wrong " in told.out
    assert "1 closed and not archived, the oldest for 2 h" in told.out
