"""A TCP proxy for one link between two processes, which misbehaves as it is told."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

from tests.faults.wire import BlackHole, Delay, Fault, Hold, OneWay, Refuse, Reset, Slices, SwallowReply, Way

MAX_WAITING_BYTES: Final = 256 * 1024
"""Held of one connection and way; beyond it the sender is not read any more, and the kernel makes it wait."""

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: closing drops what is unsent and sends RST."""

Target = Path | tuple[str, int]
"""A Unix socket, or a host and a port."""


class _Ended(Enum):
    """How a side went away."""

    WELL = "well"
    BY_RESET = "by reset"


@dataclass(slots=True)
class Link:
    """The way to one server: clients connect to `port` of 127.0.0.1.

    `target` may change; it is where the next connection goes.
    """

    name: str
    target: Target
    port: int = 0
    fault: Fault | None = None
    held: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a `Hold` has found its pattern."""
    _wires: "set[_Wire]" = field(default_factory=set)
    _connecting: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._wires)

    def break_by(self, fault: Fault) -> None:
        """From now on this is wrong with the link."""
        self.fault = fault
        self.held.clear()
        if isinstance(fault, Reset | Refuse):
            self.cut()
        self._go_on()

    def heal(self) -> None:
        """From now on everything passes, first of all what was held back."""
        self.fault = None
        for wire in self._wires:
            wire.stopped = None
        self._go_on()

    def cut(self) -> None:
        """Reset all connections, and drop what was held back."""
        for wire in list(self._wires):
            wire.reset()

    def _go_on(self) -> None:
        for wire in list(self._wires):
            wire.up.go_on()
            wire.down.go_on()

    def accepted(self) -> "_End":
        """A client is there."""
        wire = _Wire(self)
        self._wires.add(wire)
        task = asyncio.create_task(self._connect(wire), name=f"connect-{self.name}")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return _End(wire, wire.up, wire.down)

    def closed(self, wire: "_Wire") -> None:
        """Neither side has it any more."""
        self._wires.discard(wire)

    async def _connect(self, wire: "_Wire") -> None:
        loop = asyncio.get_running_loop()
        if isinstance(self.fault, Refuse):
            wire.reset()
            return
        try:
            if isinstance(self.target, Path):
                await loop.create_unix_connection(lambda: _End(wire, wire.down, wire.up), str(self.target))
            else:
                await loop.create_connection(lambda: _End(wire, wire.down, wire.up), *self.target)
        except OSError:
            wire.reset()  # the server is not there: its client is told so
        if wire.is_over:
            wire.reset()  # the client has gone meanwhile

    async def close(self) -> None:
        """Cut everything."""
        await asyncio.gather(*self._connecting)
        self.cut()


class _Wire:
    """One connection: two ends, and what flows between them."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.up = _Flow(self, Way.UP)
        self.down = _Flow(self, Way.DOWN)
        self.stopped: Way | None = None
        """The way on which a `Hold` has stopped it."""
        self.behind: int | None = None
        """So many answers are still let through before the next one is held; None while the pattern was not seen."""
        self.is_over = False

    def stops(self, way: Way) -> bool:
        """Whether nothing may go this way now."""
        match self.link.fault:
            case BlackHole():
                return True
            case OneWay(passes):
                return way is not passes
            case _:
                return self.stopped is way

    def reset(self) -> None:
        self.is_over = True
        self.link.closed(self)
        for flow in (self.up, self.down):
            flow.drop()


class _Flow:
    """What goes one way: taken from `source`, kept while the fault wants it, given to `sink`."""

    def __init__(self, wire: _Wire, way: Way) -> None:
        self.wire = wire
        self.way = way
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        self.sink_is_full = False
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._end: _Ended | None = None
        self._end_is_told = False
        self._seen = b""

    @property
    def is_over(self) -> bool:
        """Whether its source has said goodbye, and nothing waits any more."""
        return self._end is not None and not self._waiting

    def take(self, data: bytes) -> None:
        """Bytes came from the source."""
        fault = self.wire.link.fault
        if isinstance(fault, SwallowReply) and self.way is Way.DOWN:
            self.wire.reset()
            if fault.once:
                self.wire.link.heal()
            return
        if isinstance(fault, Hold):
            self._look_for(fault, data)
        late = fault.seconds if isinstance(fault, Delay) else 0.0
        self._waiting.append((asyncio.get_running_loop().time() + late, data))
        self._size += len(data)
        if self._size > MAX_WAITING_BYTES and self.source is not None:
            self.source.pause_reading()
        self.go_on()

    def _look_for(self, hold: Hold, data: bytes) -> None:
        wire = self.wire
        if self.way is Way.DOWN and wire.behind is not None and wire.stopped is None:
            wire.behind -= 1
            wire.stopped = Way.DOWN if wire.behind < 0 else None
        if self.way is Way.UP and not wire.link.held.is_set():
            self._seen = self._seen[-len(hold.pattern) :] + data
            if hold.pattern in self._seen:
                wire.link.held.set()
                wire.stopped = Way.UP if hold.way is Way.UP else None
                wire.behind = hold.behind if hold.way is Way.DOWN else None

    def end(self, how: _Ended) -> None:
        """Nothing more comes from the source; the sink is told behind what is still waiting."""
        self._end = self._end or how
        self.go_on()

    def go_on(self) -> None:
        """Give on what may go and is due."""
        if self._timer is not None or self.sink is None or self.sink_is_full or self.wire.stops(self.way):
            return
        loop = asyncio.get_running_loop()
        fault = self.wire.link.fault
        while self._waiting and not self.sink_is_full:
            due, data = self._waiting.popleft()
            if due > loop.time():
                self._waiting.appendleft((due, data))
                self._timer = loop.call_at(due, self._woken)
                return
            piece = data[: fault.size] if isinstance(fault, Slices) else data
            self.sink.write(piece)
            self._size -= len(piece)
            if len(piece) < len(data):
                self._waiting.appendleft((due, data[len(piece) :]))
                self._timer = loop.call_later(0, self._woken)
                break
        if self._size <= MAX_WAITING_BYTES and self.source is not None:
            self.source.resume_reading()
        if self._end is not None and not self._waiting:
            self._pass_end_on(self._end)

    def _pass_end_on(self, how: _Ended) -> None:
        """As a TCP connection that is whole: a side that has said goodbye still gets the answer to it."""
        assert self.sink is not None
        other = self.wire.down if self.way is Way.UP else self.wire.up
        if how is _Ended.BY_RESET or other.source is None or other.is_over:
            _close(self.sink, how)
        elif not self._end_is_told:
            self._end_is_told = True
            self.sink.write_eof()

    def _woken(self) -> None:
        self._timer = None
        self.go_on()

    def drop(self) -> None:
        """Forget what waits, and cut both sides."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for side in (self.source, self.sink):
            if side is not None:
                _close(side, _Ended.BY_RESET)


def _close(transport: asyncio.Transport, how: _Ended) -> None:
    if how is _Ended.WELL:
        transport.close()
        return
    sock = transport.get_extra_info("socket")
    if sock.family != socket.AF_UNIX and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


class _End(asyncio.Protocol):
    """One end of a wire: what comes in goes `out`, what flows `towards` it is written here."""

    def __init__(self, wire: _Wire, out: _Flow, towards: _Flow) -> None:
        self._wire = wire
        self._out = out
        self._towards = towards

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._out.source = self._towards.sink = transport
        if self._wire.is_over:
            _close(transport, _Ended.BY_RESET)
            return
        self._towards.go_on()

    def data_received(self, data: bytes) -> None:
        self._out.take(data)

    def eof_received(self) -> bool:
        self._out.end(_Ended.WELL)
        return True  # the other direction goes on until it is closed, too

    def pause_writing(self) -> None:
        self._towards.sink_is_full = True

    def resume_writing(self) -> None:
        self._towards.sink_is_full = False
        self._towards.go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._out.source = self._towards.sink = None
        self._out.end(_Ended.WELL if exc is None else _Ended.BY_RESET)
        if self._towards.source is None and self._out.sink is None:
            self._wire.link.closed(self._wire)


@asynccontextmanager
async def link_to(target: Target, name: str = "link") -> AsyncGenerator[Link]:
    """Stand before a server while the block runs."""
    link = Link(name, target)
    server = await asyncio.get_running_loop().create_server(link.accepted, "127.0.0.1", 0)
    link.port = server.sockets[0].getsockname()[1]
    try:
        yield link
    finally:
        server.close()
        await asyncio.sleep(0)  # what has been accepted just now becomes a wire
        await link.close()
        await server.wait_closed()
        await asyncio.sleep(0)  # what was aborted closes
