"""Work for the bench: turns of the demo model, whose answers are known beforehand, and readers of them."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.faults.recorder import Recorder
from tests.processes import http_to

POST_SECONDS = 8.0
ENDED_SECONDS = 40.0
"""Longer than any turn here, its faults and what must move again after them."""


@dataclass(slots=True)
class Turn:
    """One that was accepted, and who reads it."""

    task_id: str
    answer: str
    """What the demo model says, whole."""
    recorders: list[Recorder] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What was wrong while it ran."""


@dataclass(frozen=True, slots=True)
class Count:
    """The demo model counts."""

    to: int
    rate: float | None = None
    size: int = 0

    @property
    def line(self) -> str:
        rate = "" if self.rate is None else f" rate={self.rate:g}"
        return f"/count {self.to}{rate}" + (f" size={self.size}" if self.size else "")

    @property
    def answer(self) -> str:
        return "".join(f"{n}{'.' * (self.size - len(str(n)) - 1)} " for n in range(1, self.to + 1))


@dataclass(frozen=True, slots=True)
class Script:
    """The demo model does several things."""

    line: str
    answer: str
    """Of that, what is text."""


async def post(url: str, said: Count | Script, session: str | None = None) -> Turn:
    """Ask for it, in a session of its own or in this one. Raises httpx.HTTPError where nobody accepts it."""
    async with http_to(url, POST_SECONDS) as client:
        if session is None:
            session = (await client.post("/sessions")).raise_for_status().json()["id"]
        posted = await client.post(f"/sessions/{session}/messages", json={"text": said.line})
        return Turn(posted.raise_for_status().json()["task_id"], said.answer)


@asynccontextmanager
async def read(turn: Turn, urls: Sequence[str], readers: int) -> AsyncGenerator[list[asyncio.Task[None]]]:
    """Recorders of this turn, which begin at each of `urls` by turns; whoever still reads at the end is stopped."""
    for number in range(readers):
        at = number % len(urls)
        turn.recorders.append(Recorder(turn.task_id, [*urls[at:], *urls[:at]]))
    running = [
        asyncio.create_task(recorder.run(), name=f"reader of {turn.task_id}") for recorder in turn.recorders[-readers:]
    ]
    try:
        yield running
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def to_the_end(*readers: list[asyncio.Task[None]]) -> None:
    """Wait until all of these have been told the end. Fails where one is not, within ENDED_SECONDS."""
    running = [task for some in readers for task in some]
    _, left = await asyncio.wait(running, timeout=ENDED_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
    for task in running:
        if task.done():
            task.result()
    assert not left, f"I10: {len(left)} readers of {len(running)} are not told the end: {left.pop().get_name()} is one"
