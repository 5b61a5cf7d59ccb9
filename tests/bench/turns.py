"""M13: what a turn costs beside its model and its tools, on one process of the service.

The demo model answers `/say hi` at once. p50: milliseconds from the POST of a message until the terminal event is at
the reader, who connects when the POST is answered; one turn after the other. Sustained: turns a second with 64
sessions, each posting again as soon as it has its terminal event.
"""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from statistics import median
from typing import Any, Final

from tests.bench.ground import Ground
from tests.bench.ours import serving
from tests.bench.table import Row, Target, alone

SESSIONS: Final = 64
MESSAGE: Final = {"parts": [{"type": "text", "text": "/say hi"}]}


class Session:
    """One person: a connection to post over, and a new one for each stream, as a browser would."""

    def __init__(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._port = port
        self._reader = reader
        self._writer = writer
        self._path = ""

    async def open(self) -> None:
        """Create the session."""
        self._path = f"/sessions/{(await self._post('/sessions', {}))['id']}/messages"

    async def turn(self) -> float:
        """Post, follow, and answer the milliseconds until the terminal event was there."""
        begun = time.perf_counter()
        posted = await self._post(self._path, MESSAGE)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(f"GET {posted['stream']} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await reader.readuntil(b'"type":"finish"')
            return (time.perf_counter() - begun) * 1e3
        finally:
            writer.close()

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        assert answer.startswith("HTTP/1.1 2"), answer
        length = answer.lower().partition("content-length: ")[2].partition("\r")[0]
        fields: dict[str, Any] = json.loads(await self._reader.readexactly(int(length)))
        return fields


async def open_session(stack: AsyncExitStack, port: int) -> Session:
    """A new one, closed with the stack."""
    session = Session(port, *await asyncio.open_connection("127.0.0.1", port))
    stack.push_async_callback(session.close)
    await session.open()
    return session


async def run(ground: Ground) -> list[Row]:
    """Two rows."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(ground))
        alone_in_it = await open_session(stack, port)
        sessions = [await open_session(stack, port) for _ in range(SESSIONS)]
        for _ in range(20):
            await alone_in_it.turn()
        medians: list[float] = []
        rates: list[float] = []
        for _ in range(ground.rounds):
            medians.append(median([await alone_in_it.turn() for _ in range(ground.sized(100, 30))]))
            rates.append(await turns_a_second(sessions, 1.0 if ground.quick else 5.0))
    await ground.clear()
    return [
        alone("M13", "a turn, post → terminal event, p50", "ms", medians, Target(8, at_least=False)),
        alone("M13", f"turns, {SESSIONS} sessions in a closed loop", "/s", rates, Target(300)),
    ]


async def turns_a_second(sessions: list[Session], seconds: float) -> float:
    """All sessions at once, each one turn after the other."""
    turns = 0
    begun = time.monotonic()

    async def repeat(session: Session) -> None:
        nonlocal turns
        while time.monotonic() - begun < seconds:
            await session.turn()
            turns += 1

    await asyncio.gather(*map(repeat, sessions))
    return turns / (time.monotonic() - begun)
