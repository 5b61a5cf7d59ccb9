"""The stream on the wire, to the byte, and as two parsers of others see it."""

import asyncio
import re

import pytest
from playwright.async_api import Browser

from tests.acceptance.browser import NO_CHROMIUM, follow_in_browser, page_of
from tests.acceptance.client import Client, assert_whole, frames
from tests.acceptance.readers import DONE, RawReader, SseReader, kept, raw_stream, stream_has_no_body
from tests.processes import Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

ONE_FRAME = rb"id: [0-9]{13}-[0-9]+\ndata: [^\r\n]+\n\n"
WHOLE_STREAM = re.compile(
    rb"(: hb\n)*retry: 1000\n%b((: hb\n)*%b)*(: hb\n)*data: \[DONE\]\n\n" % (ONE_FRAME, ONE_FRAME)
)
"""Nothing else may be there: no BOM, no `event:`, no blank line behind a comment, no second `retry:`."""


@pytest.fixture
def service(beating_service: Service) -> Service:
    return beating_service


@pytest.mark.parametrize("accept", [None, "text/event-stream", "application/json", "text/html,*/*;q=0.1", "nonsense"])
async def test_the_headers_are_the_same_whatever_is_accepted(
    service: Service, client: Client, accept: str | None
) -> None:
    task_id = await client.post("/say hello")
    async with raw_stream(service.url, task_id, {} if accept is None else {"Accept": accept}) as stream:
        assert stream.status == 200
        assert "Content-Type: text/event-stream" in stream.head
        assert "Cache-Control: no-cache, no-transform" in stream.head
        assert "X-Accel-Buffering: no" in stream.head
        assert "x-vercel-ai-ui-message-stream: v1" in stream.head
        for name in ("Content-Type", "Cache-Control", "X-Accel-Buffering", "x-vercel-ai-ui-message-stream"):
            assert len(stream.header(name)) == 1
        assert not stream.header("Content-Encoding")
        assert not stream.header("Content-Length")


async def test_the_stream_ends_with_done_and_the_server_closes_the_connection(service: Service, client: Client) -> None:
    task_id = await client.post("/say hello")
    async with raw_stream(service.url, task_id, {"Connection": "keep-alive"}) as stream:
        await stream.receive_all()
        assert stream.header("Connection") == ["close"]
    assert stream.ended
    assert stream.closed
    assert WHOLE_STREAM.fullmatch(stream.body)
    assert stream.body.count(DONE) == 1


async def test_pitfall_02_06_and_07_a_reader_that_waits_gets_every_event_with_its_id_and_nothing_else_with_one(
    service: Service, client: Client
) -> None:
    """And ends with the log, over its first connection."""
    task_id = await client.post("/say one", "/wait 0.7", "/say two")
    async with raw_stream(service.url, task_id) as stream:
        await stream.receive_all()
    assert stream.ended
    assert WHOLE_STREAM.fullmatch(stream.body)
    assert b": hb\n" in stream.body
    log = await client.stored(task_id)
    assert_whole(log)
    ids = re.findall(rb"^id: (.*)$", stream.body, re.MULTILINE)
    assert ids == [event.position.encode() for event in log]
    assert re.findall(rb"\n\n(data: .*)\n\n", stream.body) == [DONE.strip()]
    assert kept(bytes(stream.body)) == frames(log)


async def test_pitfall_16_heartbeats_while_nothing_happens_are_no_events_to_two_parsers(
    service: Service, client: Client, browser: Browser | None
) -> None:
    async with page_of(browser, service.url) as page:
        task_id = await client.post("/say before", "/wait 1.5", "/say after")
        sse = SseReader(task_id)
        async with raw_stream(service.url, task_id) as stream, asyncio.TaskGroup() as readers:
            readers.create_task(stream.receive_all())
            readers.create_task(sse.read_to_the_end(service.url))
            seen = await follow_in_browser(page, task_id) if page is not None else None
    pairs = [event.pair for event in await client.stored(task_id)]
    assert WHOLE_STREAM.fullmatch(stream.body)
    assert stream.body.count(b": hb\n") >= 3
    assert (sse.pairs, sse.ends) == (pairs, 1)
    if seen is None:
        pytest.skip(NO_CHROMIUM)
    assert (seen.pairs, seen.ends) == (pairs, 1)


async def test_a_reader_that_is_met_with_silence_gets_heartbeats_and_its_retry_with_the_first_event(
    service: Service, client: Client
) -> None:
    task_id = await client.post("/say before", "/wait 1", "/say after")
    async with raw_stream(service.url, task_id) as first:
        await first.receive_until(6)  # start, input, attempt, start-step, text-start, the first words
    standing = RawReader(task_id, bytes(first.body)).position
    async with raw_stream(service.url, task_id, {"Last-Event-ID": standing or ""}) as stream:
        await stream.receive_all()
    assert stream.body.startswith(b": hb\n")
    assert WHOLE_STREAM.fullmatch(stream.body)
    log = await client.stored(task_id)
    after = next(index for index, event in enumerate(log) if event.position == standing) + 1
    assert re.sub(rb"(?m)^(: hb|retry: 1000)\n", b"", bytes(stream.body)) == frames(log[after:]) + DONE


@pytest.mark.parametrize("by_header", [True, False], ids=["header", "query"])
async def test_pitfall_02_a_reader_that_has_the_end_of_a_finished_log_is_not_kept_waiting(
    service: Service, client: Client, by_header: bool
) -> None:
    task_id = await client.post("/say hello")
    reader = RawReader(task_id)
    await reader.read_to_the_end(service.url)
    end = reader.position or ""
    assert end == (await client.last(task_id)).position
    headers, query = ({"Last-Event-ID": end}, "") if by_header else ({}, f"?last_message_id={end}")
    async with raw_stream(service.url, task_id, headers, query=query) as stream:
        assert stream.status == 204
        assert not stream.header("Content-Type")
        assert not stream.header("Transfer-Encoding")
        assert stream.header("Content-Length") in ([], ["0"])
        await stream_has_no_body(stream)


async def test_pitfall_15_an_event_source_does_not_come_back_after_the_end(
    service: Service, client: Client, browser: Browser | None
) -> None:
    task_id = await client.post("/say hello")
    async with page_of(browser, service.url) as page:
        if page is None:
            pytest.skip(NO_CHROMIUM)
        seen = await follow_in_browser(page, task_id)  # answers when the source has closed itself
    assert seen.opened == 1
    assert seen.ends == 1
    assert seen.pairs == [event.pair for event in await client.stored(task_id)]
