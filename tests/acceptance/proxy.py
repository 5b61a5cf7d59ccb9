"""A proxy that cuts: each connection ends after so many bytes towards the reader, in the middle of anything."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from urllib.parse import urlsplit

_PIECE_BYTES = 16 * 1024
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing drops what is unsent and sends RST."""


@dataclass(slots=True)
class CuttingProxy:
    """What is known of a proxy while it runs."""

    url: str
    cuts: int = 0
    """Connections that were cut in the middle."""


@asynccontextmanager
async def cutting_proxy(target: str, budgets: Iterable[int]) -> AsyncIterator[CuttingProxy]:
    """Stand before `target` while the block runs.

    The connections are cut, in the order in which they come, after so many bytes as the budgets say, one by FIN and the
    next by RST; when the budgets are used up nothing is cut any more. Holds one piece a connection and direction.
    """
    left, ways, address = iter(budgets), cycle((False, True)), urlsplit(target)
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        upstream: asyncio.StreamWriter | None = None
        try:
            source, upstream = await asyncio.open_connection(address.hostname, address.port, limit=_PIECE_BYTES)
            upwards = asyncio.create_task(_pump(reader, upstream, None))
            try:
                if await _pump(source, writer, next(left, None)):
                    proxy.cuts += 1
                    _cut(writer, reset=next(ways))
            finally:
                upwards.cancel()
                await asyncio.gather(upwards, return_exceptions=True)
        except (ConnectionError, asyncio.CancelledError):
            pass  # a side is gone, or the proxy stops: the other side is closed below
        finally:
            writer.close()
            if upstream is not None:
                upstream.transport.abort()
            serving.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=_PIECE_BYTES)
    proxy = CuttingProxy(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield proxy
    finally:
        server.close()
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.wait_closed()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, budget: int | None) -> bool:
    """Pass bytes on until the source ends (False) or the budget is used up (True)."""
    while budget is None or budget > 0:
        data = await source.read(_PIECE_BYTES if budget is None else min(budget, _PIECE_BYTES))
        if not data:
            return False
        budget = None if budget is None else budget - len(data)
        sink.write(data)
        await sink.drain()
    return True


def _cut(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
