"""A reader that keeps every byte it got, over all its reconnects, and everything that happened to it."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from tests.acceptance.readers import RawStream, raw_stream

SILENCE_SECONDS: Final = 4.0
"""A stream that is silent for longer is given up and asked for again: its heartbeat is every second."""

BACK_SECONDS: Final = (0.05, 0.25)
"""It comes back after a time between these."""

_BROKEN: Final = (OSError, TimeoutError, asyncio.IncompleteReadError)
_COMMENTS: Final = (b":", b"retry:")


@dataclass(slots=True)
class Recorder:
    """Follows one task to its end, by turns at each of `urls`."""

    task_id: str
    urls: Sequence[str]
    frames: list[bytes] = field(default_factory=list)
    """What it has of the log, in the order in which it came; from the last gap on, if one was told."""
    known: dict[bytes, bytes] = field(default_factory=dict)
    """Every frame that it ever got, by its position."""
    position: bytes = b""
    gaps: list[dict[str, Any]] = field(default_factory=list)
    rewritten: list[bytes] = field(default_factory=list)
    """Positions that came again with something else in them."""
    end: str = ""
    """How it was told that there is no more: `done`, `204`, or `gone`."""
    breaks: int = 0
    """Streams that broke off."""
    refusals: Counter[int] = field(default_factory=Counter)
    """By HTTP status."""
    connections: int = 0
    longest_pause: float = 0.0
    """Seconds between two events."""
    delays: list[float] = field(default_factory=list)
    """Seconds from when an event was numbered, by the worker's clock, to its arrival here."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a stream has answered."""
    _last_at: float = 0.0
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Until the end is told."""
        while not self.end:
            url = self.urls[self.connections % len(self.urls)]
            self.connections += 1
            try:
                async with AsyncExitStack() as stack:
                    headers = {"Last-Event-ID": self.position.decode()} if self.position else {}
                    async with asyncio.timeout(SILENCE_SECONDS):
                        stream = await stack.enter_async_context(raw_stream(url, self.task_id, headers))
                    await self._take(stream)
            except _BROKEN:
                pass
            if not self.end:
                self.breaks += 1
                await asyncio.sleep(random.uniform(*BACK_SECONDS))

    async def has(self, count: int) -> None:
        """Wait until it has so many events."""
        while len(self.known) < count:
            self._moved.clear()
            await self._moved.wait()

    async def _take(self, stream: RawStream) -> None:
        match stream.status:
            case 200:
                self.begun.set()
                await self._read(stream)
            case 204:
                self.end = "204"
            case 410:
                length = int(stream.header("content-length")[0])
                async with asyncio.timeout(SILENCE_SECONDS):
                    self.gaps.append(orjson.loads(await stream.reader.readexactly(length)))
                self.end = "gone"
            case status:
                self.refusals[status] += 1

    async def _read(self, stream: RawStream) -> None:
        goes_on = True
        while goes_on and not self.end:
            async with asyncio.timeout(SILENCE_SECONDS):
                goes_on = await stream.receive()
            *blocks, rest = bytes(stream.body).split(b"\n\n")
            stream.body[:] = rest
            for block in blocks:
                self._frame([line for line in block.split(b"\n") if not line.startswith(_COMMENTS)])
            self._moved.set()

    def _frame(self, lines: list[bytes]) -> None:
        match lines:
            case [b"data: [DONE]"]:
                self.end = "done"
            case [gap]:
                told = orjson.loads(gap.removeprefix(b"data: "))
                assert told["type"] == "data-gap", told
                self.gaps.append(told["data"])
                self.frames.clear()
            case [position, data]:
                self._event(position.removeprefix(b"id: "), b"%b\n%b\n\n" % (position, data))
            case _:
                raise AssertionError(f"this is no frame: {lines}")

    def _event(self, position: bytes, frame: bytes) -> None:
        now = time.monotonic()
        self.longest_pause = max(self.longest_pause, now - (self._last_at or now))
        self._last_at = now
        self.delays.append(time.time() - int(position.partition(b"-")[0]) / 1000)
        self.position = position
        self.frames.append(frame)
        if self.known.setdefault(position, frame) != frame:
            self.rewritten.append(position)
