"""Readers by the hundred: this process' side of `readers`."""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from tests.bench.ground import Ground
from tests.bench.processes import started

ANSWER_SECONDS: Final = 60.0


class UnevenDelivery(Exception):
    """Some readers got more frames than others: what was counted is no delivery of every event to every reader."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """All readers have all they were to get."""

    begun: float
    """When counting began."""
    done: float
    frames_a_read: float


@dataclass(frozen=True, slots=True)
class Ages:
    """How old events were when they arrived, in milliseconds."""

    p50: float
    p99: float
    count: int


class Crowd:
    """A process of readers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.readers = 0

    async def connect(self, port: int, readers: int, path: str) -> None:
        """Let so many readers follow a path; returns when each has its headers and what comes with them."""
        await self._tell("connect", port, readers, path)
        await self._answer()
        self.readers = readers
        await asyncio.sleep(0.3)

    async def expect(self, frames: int) -> None:
        """From here on count towards so many frames for each reader."""
        await self._tell("expect", frames, self.readers)
        await self._answer()

    async def delivered(self) -> Delivered:
        """Wait until every reader has what was expected. Raises UnevenDelivery, also for what never comes."""
        try:
            answer = await self._answer()
        except TimeoutError:
            await self._tell("status")
            frames = (await self._answer())["frames"]
            raise UnevenDelivery(f"{len(frames)} readers stand at {min(frames)} to {max(frames)} frames") from None
        if answer["odd"]:
            raise UnevenDelivery(f"{answer['odd']} readers")
        return Delivered(answer["begun"], answer["done"], answer["frames_a_read"])

    async def time(self) -> None:
        """From here on look at how old events are when they arrive."""
        await self._tell("time")
        await self._answer()

    async def times(self) -> "Ages":
        """What was seen since then."""
        await self._tell("times")
        answer = await self._answer()
        return Ages(answer["p50"], answer["p99"], answer["count"])

    async def replay(self, port: int, readers: int, path: str, frames: int) -> float:
        """Seconds until so many new readers have so many frames each, their connections included."""
        await self._tell("replay", port, readers, path, frames)
        delivered = await self.delivered()
        await self.close()
        return delivered.done - delivered.begun

    async def close(self) -> None:
        """Hang up."""
        await self._tell("close")
        await self._answer()
        await asyncio.sleep(0.1)

    async def _tell(self, *words: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        await self._process.stdin.drain()

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(ANSWER_SECONDS):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the readers are gone; see readers.log")
        fields: dict[str, Any] = json.loads(line)
        return fields


@asynccontextmanager
async def open_crowd(ground: Ground) -> AsyncGenerator[Crowd]:
    """A process without readers yet."""
    async with started([sys.executable, "-m", "tests.bench.readers"], ground.folder / "readers.log") as process:
        yield Crowd(process)
