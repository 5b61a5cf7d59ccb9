"""What machines ask of processes without doors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from service.wiring import StoreUrls
from tests.processes import http_to, serve


@asynccontextmanager
async def probed(
    log: Path, stores: StoreUrls, postgres_url: str, part: str, **more: str
) -> AsyncIterator[httpx.AsyncClient]:
    settings = {"REDIS_URL": stores.redis, "POSTGRES_URL": postgres_url, "PROBE_PORT": "0", **more}
    async with (
        serve(log, settings, "--only", part, ready="probes on") as service,
        http_to(service.lines[-1].removeprefix("probes on "), 20) as http,
    ):
        yield http


@pytest.mark.parametrize("part", ["tasks", "archiver"])
async def test_a_part_without_doors_answers_what_machines_ask_and_nothing_else(
    tmp_path: Path, stores: StoreUrls, postgres_url: str, part: str
) -> None:
    async with probed(tmp_path / "log", stores, postgres_url, part) as http:
        for path in ("/healthz", "/readyz"):
            assert (await http.get(path)).json()["status"] == "ok"
        metrics = await http.get("/metrics")
        assert 'playhead_backlog{kind="queued"} 0.0' in metrics.text
        assert 'route="/readyz"' in metrics.text
        assert (await http.get("/sessions")).json()["title"] == "Not Found"


async def test_completions_without_a_broker_to_have_them_from_are_one_line(
    tmp_path: Path, stores: StoreUrls, postgres_url: str
) -> None:
    log = tmp_path / "log"
    with pytest.raises(AssertionError, match="did not start"):
        async with probed(log, stores, postgres_url, "completions"):
            pass
    told = "playhead: PLAYHEAD_AMQP_URL: needed with --only completions: that is where they come from\n"
    assert log.read_text() == told


async def test_several_parts_run_in_one_process(tmp_path: Path, stores: StoreUrls, postgres_url: str) -> None:
    settings = {"REDIS_URL": stores.redis, "POSTGRES_URL": postgres_url, "PROBE_PORT": "0"}
    async with serve(tmp_path / "log", settings, "--only", "archiver", "--only", "tasks", ready="model") as service:
        assert [line.split()[0] for line in service.lines] == ["redis", "postgres", "probes", "archiver", "model"]


async def test_they_take_the_credentials_that_doors_take(tmp_path: Path, stores: StoreUrls, postgres_url: str) -> None:
    async with probed(tmp_path / "log", stores, postgres_url, "archiver", API_KEYS="on") as http:
        assert [(await http.get(path)).status_code for path in ("/healthz", "/metrics")] == [200, 401]
