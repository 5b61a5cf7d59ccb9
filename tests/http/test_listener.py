"""More connections than there is room for: they wait, the log says so, and nothing else happens."""

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import pytest
import structlog
from aiohttp import web

from service.http import listener
from service.http.app import serving

ROOM = 3
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\n"


@asynccontextmanager
async def served(room: int) -> AsyncIterator[tuple[str, int]]:
    async def here(_: web.Request) -> web.Response:
        return web.Response(text="here")

    app = web.Application()
    app.add_routes([web.get("/", here)])
    async with serving(app, "127.0.0.1", 0, write_timeout_seconds=5, room=lambda: room) as url:
        yield urlsplit(url).hostname or "", urlsplit(url).port or 0


class Client:
    """A connection that asks and is answered, or is not yet."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)

    async def ask(self, address: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, address)
        await loop.sock_sendall(self.socket, REQUEST)

    async def again(self) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, REQUEST)

    async def answer(self) -> bytes:
        async with asyncio.timeout(5):
            return await asyncio.get_running_loop().sock_recv(self.socket, 65536)

    def has_answer(self) -> bool:
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False


@contextmanager
def clients(count: int) -> Iterator[list[Client]]:
    made = [Client() for _ in range(count)]
    yield made
    for client in made:
        client.socket.close()


async def test_whoever_there_is_no_room_for_waits_until_a_connection_has_gone() -> None:
    with structlog.testing.capture_logs() as logs, clients(ROOM + 4) as made:
        async with served(ROOM) as address:
            inside, outside = made[:ROOM], made[ROOM:]
            for client in inside:
                await client.ask(address)
                assert (await client.answer()).startswith(ANSWER)
            for client in outside:
                await client.ask(address)
            for goes, comes in zip([*inside, *outside], outside, strict=False):
                await goes.again()  # those inside are answered as ever
                assert (await goes.answer()).startswith(ANSWER)
                assert not comes.has_answer()
                goes.socket.close()
                assert (await comes.answer()).startswith(ANSWER)
    assert [(entry["action"] if "action" in entry else entry["event"], entry["open"]) for entry in logs] == [
        ("connections_full", ROOM)
    ]


async def test_without_a_free_descriptor_connections_wait_and_the_log_is_not_flooded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "REST_SECONDS", 0.02)
    with structlog.testing.capture_logs() as logs, clients(20) as made:
        async with served(1000) as address:
            with no_free_descriptor():
                for client in made:
                    await client.ask(address)
                async with asyncio.timeout(5):
                    while not logs:  # noqa: ASYNC110  a log has no event to wait for
                        await asyncio.sleep(0)
                await asyncio.sleep(10 * listener.REST_SECONDS)  # it is asked again and again meanwhile
                assert not any(client.has_answer() for client in made)
            for client in made:
                assert (await client.answer()).startswith(ANSWER)
    assert len(logs) == 1
    assert not caplog.records


@contextmanager
def no_free_descriptor() -> Iterator[None]:
    """While the block runs, this process can open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(("descriptors", "room"), [(120, 20), (50, 10), (1024, 924), (15_000, 10_000)])
def test_there_is_room_for_as_many_as_descriptors_allow(descriptors: int, room: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
    try:
        assert listener.descriptors_room() == room
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_connection_that_cannot_be_entered_takes_no_room() -> None:
    """Once for each place that there is, and then one that can."""
    failures = ROOM
    loop, entered = asyncio.get_running_loop(), asyncio.Event()

    def make(_lost: Callable[[], None]) -> asyncio.Protocol:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError("no such luck")
        entered.set()
        return asyncio.Protocol()

    listening = socket.create_server(("127.0.0.1", 0))
    taking = listener.Listener(listening, make, lambda: ROOM)
    with structlog.testing.capture_logs() as logs, clients(ROOM + 1) as made:
        taking.start()
        for client in made[:ROOM]:
            await loop.sock_connect(client.socket, listening.getsockname())
            assert await client.answer() == b""  # closed
        await loop.sock_connect(made[ROOM].socket, listening.getsockname())
        async with asyncio.timeout(5):
            await entered.wait()
        await taking.stop()
    assert [line["event"] for line in logs] == ["connection_failed"] * ROOM
