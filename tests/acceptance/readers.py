"""Readers of a task's stream: one to the byte, over a bare socket; one through httpx-sse."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
from httpx_sse import aconnect_sse

from tests.processes import http_to

DEADLINE_SECONDS = 45.0
"""Nothing here takes so long, however loaded the machine is."""

DONE = b"data: [DONE]\n\n"
_NOT_OF_THE_LOG = re.compile(rb"^(:|retry:).*\n", re.MULTILINE)
_POSITION = re.compile(rb"^id: (.*)$", re.MULTILINE)
_PIECE_BYTES = 64 * 1024


@dataclass(slots=True)
class RawStream:
    """One answer to one request, as its bytes come."""

    status: int
    head: list[str]
    """The header's lines, exactly."""
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    body: bytearray = field(default_factory=bytearray)
    """What came of the body; the chunks that HTTP packs it into are taken off."""
    wire_bytes: int = 0
    """What came of the body with its packing."""
    ended: bool = False
    """Whether the server said that the body ends here."""
    closed: bool = False
    """Whether the connection is closed."""
    _packed: bytes = b""
    _left: int = 0
    _is_last: bool = False

    def header(self, name: str) -> list[str]:
        """The values of a header."""
        pairs = [line.partition(": ") for line in self.head]
        return [value for key, _, value in pairs if key.lower() == name.lower()]

    async def receive(self, limit: int = _PIECE_BYTES) -> bool:
        """Take what comes next; False once the connection is closed."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                data = await self.reader.read(limit)
        except ConnectionError:
            data = b""
        self.closed = self.closed or not data
        self.wire_bytes += len(data)
        self._unpack(data)
        return not self.closed

    async def receive_all(self) -> None:
        """Take everything until the server closes the connection."""
        while await self.receive():
            pass

    async def receive_until(self, count: int) -> None:
        """Take until so many whole events are there."""
        seen = 0
        while (count := count - self.body.count(b"\n\n", seen)) > 0:
            # The first of the two line ends may be here already; the second is not, or it would have been counted.
            seen = max(0, len(self.body) - (not self.body.endswith(b"\n\n")))
            assert await self.receive(), "the stream ended early"

    def _unpack(self, data: bytes) -> None:
        packed = self._packed + data
        while packed:
            if self._left == 0:
                size, found, packed_rest = packed.partition(b"\r\n")
                if not found:
                    break
                packed, self._left = packed_rest, int(size, 16) + 2
                self._is_last = self._left == 2
                continue
            self.body += packed[: max(0, self._left - 2)]
            taken = min(self._left, len(packed))
            packed, self._left = packed[taken:], self._left - taken
            self.ended = self._is_last and self._left == 0
        self._packed = packed


@asynccontextmanager
async def raw_stream(
    url: str, task_id: str, headers: Mapping[str, str] | None = None, *, query: str = "", receive_buffer: int = 0
) -> AsyncIterator[RawStream]:
    """Ask for a stream over a connection of its own, which is dropped (RST) at the end of the block."""
    address = urlsplit(url)
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await asyncio.get_running_loop().sock_connect(sock, (address.hostname, address.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=receive_buffer or _PIECE_BYTES)
        try:
            lines = [f"GET /tasks/{task_id}/stream{query} HTTP/1.1", f"Host: {address.netloc}"]
            lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
        except BaseException:
            writer.transport.abort()
            raise
    try:
        yield RawStream(int(first.split(" ")[1]), rest, reader, writer)
    finally:
        writer.transport.abort()


def kept(body: bytes) -> bytes:
    """What a reader keeps of a body: no comments, no `retry:`, no end mark, and nothing of a frame that was cut."""
    whole = _NOT_OF_THE_LOG.sub(b"", body)
    whole = whole[: whole.rfind(b"\n\n") + 2] if b"\n\n" in whole else b""
    return whole.removesuffix(DONE)


def last_position(log_frames: bytes) -> str | None:
    """Where a reader of these frames stands."""
    begins = log_frames.rfind(b"id: ", 0, log_frames.rfind(b"\ndata: ") + 1) if log_frames else -1
    match = _POSITION.match(log_frames, begins) if begins >= 0 else None
    return match[1].decode() if match else None


@dataclass(slots=True)
class RawReader:
    """Reads a log to its end over as many connections as that takes, and keeps the bytes."""

    task_id: str
    log: bytes = b""
    connections: int = 0
    cuts: int = 0
    finished: bool = False
    """Whether the end was told: by the end mark and the close, or by 204."""

    @property
    def position(self) -> str | None:
        return last_position(self.log)

    async def read(self, url: str, cut_after: int | None = None) -> None:
        """Go on from where it stands until the connection ends, or is dropped after so many bytes of the body.

        The position goes by header and by query in turn.
        """
        headers, query, position = {}, "", self.position
        if position is not None and self.connections % 2:
            headers["Last-Event-ID"] = position
        elif position is not None:
            query = f"?last_message_id={position}"
        self.connections += 1
        async with raw_stream(url, self.task_id, headers, query=query) as stream:
            if stream.status == 204:
                await stream_has_no_body(stream)
                self.finished = True
                return
            assert stream.status == 200, stream.status
            while cut_after is None or stream.wire_bytes < cut_after:
                if not await stream.receive(_PIECE_BYTES if cut_after is None else cut_after - stream.wire_bytes):
                    break
            self.log += kept(bytes(stream.body))
            self.finished = stream.ended and stream.body.endswith(b"\n\n" + DONE)
            self.cuts += not self.finished

    async def read_to_the_end(self, url: str) -> None:
        """Go on until the end is told; a connection that breaks off is taken up again, if it brought something."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not self.finished:
                had = len(self.log)
                await self.read(url)
                assert self.finished or len(self.log) > had, "the stream broke off before it said anything"


async def stream_has_no_body(stream: RawStream) -> None:
    """Raises where a 204 says more than its header: its connection is kept open, and nothing may come over it."""
    stream.writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(DEADLINE_SECONDS):
        following = await stream.reader.read()
    assert following == b"" or following.startswith(b"HTTP/1.1 200 "), following[:100]


@dataclass(slots=True)
class SseReader:
    """Reads a log to its end through httpx-sse, over as many connections as that takes, and keeps (id, data) pairs."""

    task_id: str
    pairs: list[tuple[str, str]] = field(default_factory=list)
    connections: int = 0
    ends: int = 0
    """How often the end mark came."""

    async def read_to_the_end(self, url: str) -> None:
        """Go on from where it stands, whenever the connection breaks, until the end is told."""
        async with http_to(url, DEADLINE_SECONDS) as http:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not await self._read(http):
                    pass

    async def _read(self, http: httpx.AsyncClient) -> bool:
        headers, params = {}, {}
        if self.pairs and self.connections % 2:
            headers["Last-Event-ID"] = self.pairs[-1][0]
        elif self.pairs:
            params["last_message_id"] = self.pairs[-1][0]
        self.connections += 1
        try:
            async with aconnect_sse(
                http, "GET", f"/tasks/{self.task_id}/stream", headers=headers, params=params
            ) as source:
                if source.response.status_code == 204:
                    return True
                source.response.raise_for_status()
                async for event in source.aiter_sse():
                    assert event.event in ("", "message")
                    if event.data == "[DONE]":
                        self.ends += 1
                    else:
                        self.pairs.append((event.id, event.data))
        except (httpx.ReadError, httpx.RemoteProtocolError):
            return False
        return self.ends > 0
