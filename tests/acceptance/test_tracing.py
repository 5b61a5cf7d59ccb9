"""One trace from the request that posts to the append and the reader, through real processes and a real collector."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from service.model.errors import ConfigurationError
from service.settings import Settings
from service.wiring import open_tracing
from tests.acceptance.client import Client, client_of
from tests.acceptance.collector import Collector, collector
from tests.acceptance.readers import raw_stream
from tests.processes import Service, http_to, serve

pytestmark = pytest.mark.asyncio(loop_scope="session")

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ASKING = "00f067aa0ba902b7"
SECRET = "c0nfidential"


@pytest_asyncio.fixture(loop_scope="session")
async def spans() -> AsyncIterator[Collector]:
    async with collector() as listening:
        yield listening


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans are sent several times a second."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")


async def posted_in_a_trace(service: Service) -> str:
    async with http_to(service.url, 20) as http:
        session = (await http.post("/sessions")).raise_for_status().json()["id"]
        answer = await http.post(
            f"/sessions/{session}/messages?note={SECRET}",
            json={"text": f"/say {SECRET}"},
            headers={"traceparent": f"00-{TRACE}-{ASKING}-01"},
        )
        task_id: str = answer.raise_for_status().json()["task_id"]
        return task_id


async def test_a_post_its_turn_its_appends_and_its_readers_are_one_trace(
    tmp_path: Path, store_settings: dict[str, str], spans: Collector
) -> None:
    """The worker is one process, the post's another; one reader follows it live, one reads the log later, elsewhere.

    What is traced is archived as ever.
    """
    settings = store_settings | {"OTLP_URL": spans.url}
    async with AsyncExitStack() as stack:
        http, later, worker = await asyncio.gather(
            stack.enter_async_context(serve(tmp_path / "http.log", settings, "--only", "http")),
            stack.enter_async_context(serve(tmp_path / "later.log", settings, "--only", "http", "--only", "archiver")),
            stack.enter_async_context(serve(tmp_path / "tasks.log", settings, "--only", "tasks", ready="model")),
        )
        task_id = await posted_in_a_trace(http)
        async with raw_stream(http.url, task_id) as stream:
            await stream.receive_all()
        async with raw_stream(later.url, task_id) as stream:
            await stream.receive_all()
        async with http_to(http.url, 20) as asked, asyncio.timeout(20):
            await asked.get("/healthz")
            while (await asked.get(f"/tasks/{task_id}/verify")).json()["read_from"] != "both":
                pass  # each look is a round trip
        assert [await each.stop() for each in (http, later, worker)] == [0, 0, 0]
    (post,) = spans.named("POST /sessions/{session_id}/messages")
    (turn,) = spans.named("turn")
    (call,) = spans.named("model call")
    appends, reads = spans.named("append"), spans.named("read")
    streams = spans.named("GET /tasks/{task_id}/stream")
    assert (post.trace_id, post.parent_id, post.attributes["http.response.status_code"]) == (TRACE, ASKING, "202")
    assert (turn.trace_id, turn.parent_id, turn.attributes["playhead.task_id"]) == (TRACE, post.span_id, task_id)
    assert (call.trace_id, call.parent_id) == (TRACE, turn.span_id)
    assert appends
    assert {(append.trace_id, append.parent_id) for append in appends} == {(TRACE, turn.span_id)}
    assert [(read.trace_id, read.parent_id) for read in reads] == [(TRACE, turn.span_id)] * 2
    last = max(appends, key=lambda append: int(append.attributes["playhead.last_position"].partition("-")[2]))
    assert {read.attributes["playhead.last_position"] for read in reads} == {last.attributes["playhead.last_position"]}
    assert {read.links for read in reads} == {(stream.span_id,) for stream in streams}
    assert not [span for span in spans.spans if span.is_failure]
    assert not spans.named("GET /healthz")
    assert not [body for body in spans.bodies if SECRET.encode() in body]


async def test_a_collector_that_never_answers_delays_neither_turns_nor_the_stop(
    tmp_path: Path, store_settings: dict[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = store_settings | {"OTLP_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        async with serve(tmp_path / "log", settings) as service:
            async with client_of(service) as client:
                await _whole(client, service)
            begun = time.monotonic()
            assert await service.stop() == 0
            assert time.monotonic() - begun < 8
        assert "spans_not_sent" in service.log.read_text()


async def _whole(client: Client, service: Service) -> None:
    task_id = await client.post("/say Hello")
    async with raw_stream(service.url, task_id) as stream:
        await stream.receive_all()
    assert await client.status(task_id) == "succeeded"


async def test_without_its_packages_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "service.adapters.tracing", None)
    with pytest.raises(ConfigurationError, match=r"PLAYHEAD_OTLP_URL: .* extra `otel`"):
        async with open_tracing(Settings(otlp_url="http://127.0.0.1:4318", _env_file=None)):
            pass
