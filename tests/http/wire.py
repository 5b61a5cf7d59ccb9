"""HTTP by hand, so that a request can be anything; and a line to a store that can be cut."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Header = tuple[str, str | bytes]


@dataclass(frozen=True)
class Answer:
    """What came back, whole."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    url: str,
    method: str = "GET",
    path: str = "/",
    body: bytes | None = None,
    headers: Sequence[Header] = (),
    *,
    until: bytes | None = None,
    seconds: float = 5,
) -> Answer:
    """Send a request and read the answer to its end, or until these bytes are there.

    Host, Content-Length and, with a body, Content-Type are added where they are not given. Time-outs are errors.
    """
    given = {name.lower() for name, _ in headers}
    netloc = urlsplit(url).netloc
    all_headers: list[Header] = [("Connection", "close"), *headers]
    all_headers += [] if "host" in given else [("Host", netloc)]
    if body is not None:
        all_headers += [] if "content-type" in given else [("Content-Type", "application/json")]
        all_headers += [] if {"content-length", "transfer-encoding"} & given else [("Content-Length", str(len(body)))]
    head = f"{method} {path} HTTP/1.1\r\n".encode()
    for name, value in all_headers:
        head += name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
    return await send(url, head + b"\r\n" + (body or b""), until=until, seconds=seconds)


async def send(url: str, request: bytes, *, until: bytes | None = None, seconds: float = 5) -> Answer:
    """Send these bytes; read the answer to its end, or until `until` is in it."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    host, port = urlsplit(url).hostname, urlsplit(url).port
    received = b""
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(request)
            while until is None or until not in received:
                try:
                    data = await reader.read(65536)
                except ConnectionError:  # it answered and closed while we were still sending
                    break
                if not data:
                    break
                received += data
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    version, code = status.split()[:2]
    return Answer(version, int(code), headers, body, loop.time() - began)


class Line:
    """Forwards connections to a server until it is cut."""

    def __init__(self, target: str | tuple[str, int]) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._swallowing = False
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Nobody gets through any more, whoever was through included."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    def swallow(self) -> None:
        """From now on it takes everything and answers nothing, also to whoever is through."""
        self._swallowing = True

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self._target, str):
            there, back = await asyncio.open_unix_connection(self._target)
        else:
            there, back = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back}
        with suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        for each in (writer, back):
            each.transport.abort()
            self._writers.discard(each)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not self._swallowing:
                writer.write(data)
        writer.transport.abort()


@asynccontextmanager
async def line(target: str | tuple[str, int]) -> AsyncIterator[Line]:
    """A line that is open."""
    opened = Line(target)
    await opened.open()
    try:
        yield opened
    finally:
        opened.cut()
