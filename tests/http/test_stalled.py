"""Clients that stop reading: whatever they are being answered, they hold a connection no longer than they may."""

import asyncio
import re
import socket
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from service.http.app import SEND_BUFFER_BYTES, serving
from service.http.problems import problems
from service.http.sse import answer_stream
from service.model.position import Position
from service.registry.follow import Begun, Ended, Followed, Frames

pytestmark = pytest.mark.alone

WRITE_TIMEOUT_SECONDS = 0.4
LATEST_SECONDS = 1.25 * WRITE_TIMEOUT_SECONDS + 1
"""A cut may come a quarter later; and this machine may have other things to do."""

ROUNDS = 10
"""Tries of what needs a machine that goes on, at most."""

RECEIVE_BUFFER_BYTES = 4096
SLOW_TIMES = 2
"""A slow client is looked at for so many times the time in which it must take something."""

LARGE = 4 * 1024 * 1024
KERNEL_BYTES = 2 * SEND_BUFFER_BYTES + 64 * 1024
"""Linux doubles what it is told to hold, for its own book-keeping; and the client's kernel has a buffer too."""

READERS = 8
"""Whose buffers together hold less than LARGE."""

LITTLE = 32 * 1024
"""Less than what makes a transport ask its writer to wait."""

answering = partial(answer_stream, on_gap="tell", note_gap=lambda: None)

_ESTABLISHED = "01"
"""In /proc/net/tcp."""


async def large(_: web.Request) -> web.Response:
    return web.Response(body=b"x" * LARGE)


async def limits(request: web.Request) -> web.Response:
    """How much may wait in this connection."""
    assert request.transport is not None
    return web.Response(text=str(request.transport.get_write_buffer_limits()))


async def stream(request: web.Request) -> web.StreamResponse:
    """A log that ends when little of it waits for its reader: as much as a writer does not wait for."""

    async def items() -> AsyncGenerator[Followed]:
        yield Begun(None, None)
        while _waiting(request) < LITTLE:
            yield _frames(1000)
            await asyncio.sleep(0)
        yield Ended()

    return await answering(request, items(), write_timeout_seconds=60)


async def long(request: web.Request) -> web.StreamResponse:
    """As much as `large`, as a log."""

    async def items() -> AsyncGenerator[Followed]:
        yield Begun(None, None)
        for _ in range(LARGE // 1000 + 1):
            yield _frames(1000)
        yield Ended()

    return await answering(request, items(), write_timeout_seconds=WRITE_TIMEOUT_SECONDS)


async def endless(request: web.Request) -> web.StreamResponse:
    async def items() -> AsyncGenerator[Followed]:
        yield Begun(None, None)
        while True:
            yield _frames(1000)

    return await answering(request, items(), write_timeout_seconds=WRITE_TIMEOUT_SECONDS)


def _frames(size: int) -> Frames:
    return Frames(b"id: 1-1\ndata: %b\n\n" % (b"x" * size), Position(1, 1))


def _waiting(request: web.Request) -> int:
    return 0 if request.transport is None else request.transport.get_write_buffer_size()


@pytest.fixture
async def url() -> AsyncIterator[str]:
    app = web.Application(middlewares=[problems])
    app.add_routes(
        [
            web.get("/limits", limits),
            web.get("/large", large),
            web.get("/stream", stream),
            web.get("/long", long),
            web.get("/endless", endless),
        ]
    )
    async with serving(app, "127.0.0.1", 0, write_timeout_seconds=WRITE_TIMEOUT_SECONDS) as made:
        yield made


@dataclass(frozen=True)
class Client:
    """A connection that reads only when it is told to, and what serves it."""

    socket: socket.socket
    serving: set[asyncio.Task[object]]

    def is_served(self) -> bool:
        """Whether the server still holds its end, as the kernel knows."""
        own = self.socket.getsockname()[1]
        connections = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return any(
            int(remote.partition(":")[2], 16) == own and state == _ESTABLISHED
            for _, _, remote, state, *_ in connections
        )

    async def receive(self) -> bytes:
        """All that there still is."""
        received = b""
        while data := await self.receive_some(65536):
            received += data
        return received

    async def receive_some(self, size: int) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(self.socket, size)
        except ConnectionError:
            return b""


@asynccontextmanager
async def asking(url: str, *requests: str) -> AsyncIterator[Client]:
    """A client with a small buffer that has sent these."""
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    with socket.socket() as connection:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        await loop.sock_connect(connection, (urlsplit(url).hostname, urlsplit(url).port))
        await loop.sock_sendall(connection, "".join(f"{each}\r\nHost: localhost\r\n\r\n" for each in requests).encode())
        await loop.sock_recv(connection, 1)  # the answer has begun
        yield Client(connection, asyncio.all_tasks() - before)


TAKING_NOTHING = [
    ["GET /large HTTP/1.1"],
    ["GET /large HTTP/1.1"] * 40,
    ["GET /stream HTTP/1.1"],
    ["GET /stream HTTP/1.0"],
    ["GET /endless HTTP/1.1"],
    ["GET /endless HTTP/1.0"],
]


async def test_pitfall_14_and_57_clients_that_take_nothing_are_let_go_whatever_they_are_answered(url: str) -> None:
    """Little of an answer is held by the kernel: what it still had when they were cut off, all of it, arrives."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(asking(url, *requests)) for requests in TAKING_NOTHING]
        for requests, client in zip(TAKING_NOTHING, clients, strict=True):
            assert client.is_served(), requests[:2]
            assert client.serving
        await asyncio.wait(set[asyncio.Task[object]]().union(*(c.serving for c in clients)), timeout=LATEST_SECONDS)
        for requests, client in zip(TAKING_NOTHING, clients, strict=True):
            assert not client.is_served(), requests[:2]
            assert not client.serving & asyncio.all_tasks(), requests[:2]
            received = await client.receive()
            assert len(received) < KERNEL_BYTES, requests[:2]
            assert not received.endswith(b"0\r\n\r\n"), "what was cut off does not look as if it had ended"


async def test_a_client_that_goes_on_taking_gets_all_of_it_however_long_it_takes(url: str) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asking(url, "GET /large HTTP/1.1") as client:
        received = 1
        while received < LARGE:
            taken = received + 192 * 1024
            while received < min(taken, LARGE):
                data = await client.receive_some(taken - received)
                assert data, f"cut off after {received} bytes"
                received += len(data)
            await asyncio.sleep(0.05)  # the slowness itself: nothing is waited for
    assert loop.time() - began > 2 * WRITE_TIMEOUT_SECONDS


async def test_clients_are_let_be_that_take_less_in_their_time_than_waits_for_them(url: str) -> None:
    """Of a buffer of 64 KiB here and one of twice that in the kernel they take 8 KiB in the time that they have.

    Later they make haste, and have all of it.
    """

    loop = asyncio.get_running_loop()

    async def haste_after_slowness(request: str) -> bytes | None:
        async with asking(url, request) as client:
            received, taken_at = b"", [loop.time()]
            for _ in range(8 * SLOW_TIMES):
                received += (taken := await client.receive_some(1024))
                taken_at.append(loop.time())
                if taken_at[-1] - taken_at[-9:][0] > 1.1 * WRITE_TIMEOUT_SECONDS:
                    return None  # the machine stood still: this client took less than it meant to, and may be cut off
                assert taken
                assert client.is_served()
                # The slowness itself, nothing is waited for: an eighth of its time for each KiB, since it began.
                await asyncio.sleep(taken_at[0] + (len(taken_at) - 1) * WRITE_TIMEOUT_SECONDS / 8 - loop.time())
            return received + await client.receive()

    for _ in range(ROUNDS):
        answer, log = await asyncio.gather(*map(haste_after_slowness, ("GET /large HTTP/1.0", "GET /long HTTP/1.1")))
        if answer is not None and log is not None:
            break
    assert answer is not None
    assert log is not None
    assert len(answer) > LARGE
    assert len(log) > LARGE
    assert log.endswith(b"0\r\n\r\n")


async def test_a_connection_that_was_waited_for_is_afterwards_as_it_was(url: str) -> None:
    reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
    bodies = []
    for path in ("/limits", "/large", "/limits"):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        assert length is not None
        bodies.append(await reader.readexactly(int(length[1])))
    assert bodies[0] == bodies[2]
    writer.close()


async def test_a_connection_that_was_waited_for_goes_on_afterwards(url: str) -> None:
    async with asking(url, *["GET /large HTTP/1.1"] * 3) as client:
        received = 1
        while received < 3 * LARGE:
            data = await client.receive_some(1024 * 1024)
            assert data
            received += len(data)
        assert client.is_served()


async def test_pitfall_14_a_reader_that_stops_when_its_buffer_is_half_drained_is_let_go() -> None:
    """The transport has asked its writer to wait, though there is room again; and aiohttp is about to obey."""
    made: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
    stopped = asyncio.Event()

    async def items(request: web.Request) -> AsyncGenerator[Followed]:
        assert request.transport is not None
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        yield Begun(None, None)
        client, written = await made, 0
        while request.writer.buffer_size >= written:  # until 64 KiB were written, whereupon aiohttp counts anew
            written = request.writer.buffer_size
            while written < 44_000 and _waiting(request):
                await client.receive_some(1000)
            yield _frames(1000)
        yield _frames(60_000)
        while _waiting(request) > 40_000:
            await client.receive_some(1000)
        stopped.set()
        while True:
            yield _frames(1000)

    async def half_drained(request: web.Request) -> web.StreamResponse:
        return await answering(request, items(request), write_timeout_seconds=WRITE_TIMEOUT_SECONDS)

    app = web.Application(middlewares=[problems])
    app.add_routes([web.get("/", half_drained)])
    async with (
        serving(app, "127.0.0.1", 0, write_timeout_seconds=WRITE_TIMEOUT_SECONDS) as url,
        asking(url, "GET / HTTP/1.1") as client,
    ):
        made.set_result(client)
        await stopped.wait()
        await asyncio.wait(client.serving, timeout=LATEST_SECONDS)
        assert not client.is_served()


async def test_pitfall_14_readers_that_stop_at_once_hold_the_page_that_they_share_and_their_buffers() -> None:
    page = _frames(LARGE)
    requests: list[web.Request] = []

    async def shared(request: web.Request) -> web.StreamResponse:
        async def items() -> AsyncGenerator[Followed]:
            yield Begun(None, None)
            requests.append(request)
            yield page

        return await answering(request, items(), write_timeout_seconds=60)

    app = web.Application(middlewares=[problems])
    app.add_routes([web.get("/", shared)])
    async with serving(app, "127.0.0.1", 0, write_timeout_seconds=60) as url, AsyncExitStack() as stack:
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        for _ in range(READERS):
            await stack.enter_async_context(asking(url, "GET / HTTP/1.1"))
        assert min(map(_waiting, requests)) > LITTLE
        held, _ = tracemalloc.get_traced_memory()
    assert held < LARGE
