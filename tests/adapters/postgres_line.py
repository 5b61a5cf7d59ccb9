"""A line to a PostgreSQL that can fall silent: nothing gets through any more, and neither side is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit


@dataclass(eq=False, slots=True)
class _Wire:
    """One connection through the line, with the ends that are open: the client's, and the server's when it is there."""

    is_silent: bool
    ends: dict["_End", asyncio.Transport] = field(default_factory=dict)
    early: bytearray = field(default_factory=bytearray)
    """What the client said before the server was there."""
    is_over: bool = False

    def close(self) -> None:
        self.is_over = True
        for transport in self.ends.values():
            transport.abort()


@dataclass(slots=True)
class Line:
    """The way to the server, by `url`. `is_silent` is what a connection is from the beginning that is made now."""

    url: str = ""
    is_silent: bool = False
    _wires: set[_Wire] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def open(self) -> int:
        """Connections that neither side has closed."""
        return len(self._wires)

    def fall_silent(self) -> None:
        """The connections that there are; new ones still work."""
        for wire in self._wires:
            wire.is_silent = True

    async def changed(self) -> None:
        """Returns when the next connection is closed."""
        self._changed.clear()
        await self._changed.wait()

    def connected(self) -> _Wire:
        wire = _Wire(self.is_silent)
        self._wires.add(wire)
        return wire

    def closed(self, wire: _Wire) -> None:
        self._wires.discard(wire)
        self._changed.set()
        wire.close()

    def close(self) -> None:
        for wire in self._wires:
            wire.close()


class _End(asyncio.Protocol):
    """One end of a wire: what comes in goes out at the other one."""

    def __init__(self, line: Line, wire: _Wire) -> None:
        self._line = line
        self._wire = wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._wire.ends[self] = transport
        if len(self._wire.ends) == 2:
            transport.write(bytes(self._wire.early))

    def data_received(self, data: bytes) -> None:
        if self._wire.is_silent:
            return
        others = [transport for end, transport in self._wire.ends.items() if end is not self]
        for transport in others:
            transport.write(data)
        if not others:
            self._wire.early += data

    def connection_lost(self, exc: Exception | None) -> None:
        self._wire.ends.pop(self)
        self._line.closed(self._wire)


@asynccontextmanager
async def line_to(dsn: str) -> AsyncIterator[Line]:
    """Stand before this server while the block runs."""
    loop = asyncio.get_running_loop()
    connecting: set[asyncio.Task[None]] = set()
    line = Line()

    async def connect(wire: _Wire) -> None:
        url = urlsplit(dsn)
        asked = parse_qs(url.query)
        (folder,), (port,) = asked.get("host", [""]), asked.get("port", [str(url.port or 5432)])
        if folder.startswith("/"):
            await loop.create_unix_connection(lambda: _End(line, wire), f"{folder}/.s.PGSQL.{port}")
        else:
            await loop.create_connection(lambda: _End(line, wire), url.hostname, url.port)
        if wire.is_over:
            wire.close()  # the client has gone meanwhile

    def accepted() -> _End:
        wire = line.connected()
        task = loop.create_task(connect(wire))
        connecting.add(task)
        task.add_done_callback(connecting.discard)
        return _End(line, wire)

    server = await loop.create_server(accepted, "127.0.0.1", 0)
    host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    line.url = f"postgresql://postgres@{host}{urlsplit(dsn).path}?sslmode=disable"
    try:
        yield line
    finally:
        server.close()
        for _ in range(5):
            await asyncio.sleep(0)  # what has been accepted just now becomes a wire
        await asyncio.gather(*connecting)
        line.close()
        await server.wait_closed()
        await asyncio.sleep(0)  # what was aborted closes
