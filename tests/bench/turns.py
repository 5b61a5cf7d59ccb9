"""M13: what a turn costs beside its model and its tools, on one process of the service.

The demo model answers `/say hi` at once. p50: milliseconds from the POST of a message until the terminal event is at
the reader, who connects when the POST is answered; one turn after the other, ten a session, since a turn reads the
conversation so far: what a long one adds is a row of its own. Sustained: turns a second with 64 sessions, each posting
again as soon as it has its terminal event.
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
TURNS_A_SESSION: Final = 10
LONG_CONVERSATION: Final = 300
"""Turns, each of two messages."""

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
    """Three rows."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(ground))
        await _in_turn(await open_session(stack, port), 2 * TURNS_A_SESSION)
        medians: list[float] = []
        rates: list[float] = []
        for _ in range(ground.rounds):
            alone_in_it = [await open_session(stack, port) for _ in range(ground.sized(10, 3))]
            medians.append(median([ms for each in alone_in_it for ms in await _in_turn(each, TURNS_A_SESSION)]))
            together = [await open_session(stack, port) for _ in range(SESSIONS)]
            rates.append(await turns_a_second(together, 1.0 if ground.quick else 5.0))
        long = await open_session(stack, port)
        await _in_turn(long, ground.sized(LONG_CONVERSATION, TURNS_A_SESSION))
        late = [median(await _in_turn(long, TURNS_A_SESSION)) for _ in range(ground.rounds)]
    await ground.clear()
    return [
        alone("M13", "a turn, post → terminal event, p50", "ms", medians, Target(8, at_least=False)),
        alone("M13", f"turns, {SESSIONS} sessions in a closed loop", "/s", rates, Target(300)),
        alone("M13", f"a turn after {ground.sized(LONG_CONVERSATION, TURNS_A_SESSION)} others, p50", "ms", late, None),
    ]


async def _in_turn(session: Session, turns: int) -> list[float]:
    """Milliseconds of each."""
    return [await session.turn() for _ in range(turns)]


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
