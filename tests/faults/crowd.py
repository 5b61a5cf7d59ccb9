"""Conversations that never stop: a turn runs in each at any time, and readers follow it through whatever happens."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import httpx

from tests.faults.battery import Trouble
from tests.faults.bench import Bench
from tests.faults.checks import assert_kept, i10_everything_moves, standing
from tests.faults.turns import POST_SECONDS, Count, Turn, read, to_the_end
from tests.processes import http_to

CONVERSATIONS: Final = 20
READERS: Final = 3
"""Of each turn."""

TURN: Final = Count(24, rate=16)
AGAIN_SECONDS: Final = 0.1


class Crowd:
    """Each turn is checked when it is over; what was wrong while it ran is told with its failure."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._turns: dict[str, Turn] = {}
        self._stopping = False
        self._now: str | None = None
        self._finished = asyncio.Semaphore(0)
        self.finished = 0
        self.interrupted = 0
        """Streams that broke off, and requests that were refused: what the faults did to readers."""

    async def talk(self, number: int) -> None:
        """One conversation's turns, one after the other."""
        while not self._stopping:
            turn = await self._post(number)
            self._turns[turn.task_id] = turn
            if self._now is not None:
                turn.faults.append(self._now)
            async with read(turn, self._bench.urls, READERS) as readers:
                await to_the_end(readers)
            await assert_kept(self._bench.truth, turn)
            self.finished += 1
            self._finished.release()
            self.interrupted += sum(r.breaks + r.refusals.total() for r in turn.recorders)
            del self._turns[turn.task_id]

    async def suffer(self, trouble: Trouble, seconds: float) -> float:
        """Have something be wrong for so long; answers after how many seconds everything moves again."""
        loop = asyncio.get_running_loop()
        self._now = trouble.name
        for turn in self._turns.values():
            turn.faults.append(self._now)
        await trouble.begin()
        await asyncio.sleep(seconds)
        await trouble.end()
        healed_at = loop.time()
        try:
            await i10_everything_moves(self._bench.truth, await standing(self._bench.truth))
        except AssertionError as error:
            error.add_note(f"after {self._now}")
            raise
        self._now = None
        return loop.time() - healed_at

    async def has_finished(self, turns: int) -> None:
        """Wait until so many more turns are over."""
        for _ in range(turns):
            await self._finished.acquire()

    def stop(self) -> None:
        """The turns that run now are the last ones."""
        self._stopping = True

    async def _post(self, number: int) -> Turn:
        """Ask until a turn is there: a request whose answer was lost may have been taken."""
        url = self._bench.doors[number % 2].service.url
        async with http_to(url, POST_SECONDS) as client:
            session: str | None = None
            while True:
                try:
                    if session is None:
                        session = (await client.post("/sessions")).raise_for_status().json()["id"]
                    posted = await client.post(f"/sessions/{session}/messages", json={"text": TURN.line})
                    return Turn(posted.raise_for_status().json()["task_id"], TURN.answer)
                except httpx.HTTPError:
                    taken = await self._bench.truth.tasks_of(session) if session else []
                    if taken:
                        return Turn(taken[0], TURN.answer)
                    await asyncio.sleep(AGAIN_SECONDS)


@asynccontextmanager
async def crowd_at(bench: Bench) -> AsyncGenerator[Crowd]:
    """A crowd that talks while the block runs; at its end the last turns come to theirs."""
    crowd = Crowd(bench)
    async with asyncio.TaskGroup() as talks:
        for number in range(CONVERSATIONS):
            talks.create_task(crowd.talk(number), name=f"conversation-{number}")
        yield crowd
        crowd.stop()
