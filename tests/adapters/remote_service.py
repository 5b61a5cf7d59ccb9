"""A remote tool's service for tests: a real socket that takes a whole request, and then does what it was told.

async with Service(said(b'{"a": 1}')) as service:
    ... a call to service.url ...
    service.requests[0].headers, .body, .peer; await service.has(1)

async with wiping(folder) as (service, file):
    ... `file` describes the tool `wipe` to Playhead, which needs an approval ...
"""

import asyncio
import base64
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from multidict import CIMultiDict

SECRET = "body-of-the-service"
"""Stands in bodies that nobody may repeat."""


@dataclass(frozen=True)
class Act:
    """What comes back, and what then becomes of the connection."""

    data: bytes = b""
    then: str = "close"
    """`close` (FIN), `reset` (RST), `hold` (until the other side goes)."""
    reads: bool = True
    """Whether the request is read first."""


def said(body: bytes, status: str = "200 OK", *headers: str) -> Act:
    """A whole answer."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return Act("\r\n".join(head).encode() + body)


@dataclass
class Received:
    line: str
    headers: CIMultiDict[str]
    raw: bytes
    peer: tuple[str, int]

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


@dataclass
class Service:
    """Does what it was told with each connection, or what follows from what came over it."""

    act: Act | Callable[[Received], Act]
    tls: ssl.SSLContext | None = None
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    _came: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http{'s' if self.tls else ''}://127.0.0.1:{port}/run"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def has(self, count: int) -> None:
        """Wait until so many requests were read."""
        async with self._came:
            await self._came.wait_for(lambda: len(self.requests) >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            act = await self._act(reader, writer)
            writer.write(act.data)
            await writer.drain()
            if act.then == "hold":
                await reader.read()
            if act.then == "reset":
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side went
        finally:
            writer.close()

    async def _act(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Act:
        if not isinstance(self.act, Act):
            return self.act(await self._read(reader, writer))
        if self.act.reads:
            await self._read(reader, writer)
        return self.act

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Received:
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        headers = CIMultiDict(tuple(each.split(": ", 1)) for each in lines)
        raw = await reader.readexactly(int(headers["Content-Length"]))
        received = Received(line, headers, raw, writer.get_extra_info("peername"))
        self.requests.append(received)
        async with self._came:
            self._came.notify_all()
        return received


@asynccontextmanager
async def wiping(folder: Path) -> AsyncIterator[tuple[Service, Path]]:
    """A service whose tool `wipe` needs an approval, and the file that describes it to Playhead.

    What it answers is what the demo model is to do `then`; without that it takes the call, and says nothing more.
    """
    file = folder / "tools.json"
    async with Service(_wipe) as service:
        tool = {
            "name": "wipe",
            "description": "Wipes.",
            "schema": {"type": "object", "properties": {"then": {"type": "string"}}, "additionalProperties": False},
            "url": service.url,
            "secret": f"whsec_{base64.b64encode(b'wipe' * 8).decode()}",
            "needs_approval": True,
        }
        file.write_text(json.dumps([tool]))
        yield service, file


def _wipe(received: Received) -> Act:
    then = received.body["arguments"].get("then")
    return said(b"", "202 Accepted") if then is None else said(json.dumps(then).encode())
