"""The worker: claims tasks, keeps their leases, and has their turns run."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import structlog

from service.agent.turn import Turns
from service.model.errors import StoreUnavailable
from service.model.task import Claim
from service.sessions.ports import Doorbell, TaskQueue

log = structlog.get_logger()

POLL_SECONDS: Final = 1.0
"""A task whose ring was lost is found after this at the latest."""

MAX_CLAIMS: Final = 64
"""Tasks claimed at once."""

DRAIN_SECONDS: Final = 10.0
"""How long running turns may go on after a stop; then they are stopped, and let go for another worker."""

STOP_SECONDS: Final = 2.0
"""How long a turn that is stopped at the end of a drain may take for it; the lease of a slower one has to lapse."""


@dataclass(slots=True, eq=False)
class _Holding:
    """A task that this process works on, and until when it may, by the monotonic clock."""

    claim: Claim
    until: float
    work: asyncio.Task[None] | None = None


class Worker:
    """Works on up to `capacity` tasks at once."""

    def __init__(
        self,
        queue: TaskQueue,
        turns: Turns,
        doorbell: Doorbell,
        monotonic: Callable[[], float],
        *,
        lease_seconds: float,
        capacity: int = 256,
    ) -> None:
        self._queue = queue
        self._turns = turns
        self._doorbell = doorbell
        self._monotonic = monotonic
        self._lease_seconds = lease_seconds
        self._capacity = capacity
        self._wake = asyncio.Event()
        self._held: set[_Holding] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish what runs, within DRAIN_SECONDS; let go what is not finished then."""
        async with asyncio.TaskGroup() as tasks:
            helpers = [
                tasks.create_task(self._listen(), name="doorbell"),
                tasks.create_task(self._keep_leases(), name="leases"),
                tasks.create_task(self._stop_the_lapsed(), name="lapsed"),
                tasks.create_task(self._wake_at(stop), name="stop"),
            ]
            while not stop.is_set():
                await self._claim(tasks)
                await self._rest()
            await self._drain()
            for helper in helpers:
                helper.cancel()

    async def _claim(self, tasks: asyncio.TaskGroup) -> None:
        """Take what is due, as long as there is room and something comes."""
        while (room := self._capacity - len(self._held)) > 0:
            asked = self._monotonic()
            limit = min(room, MAX_CLAIMS)
            try:
                claims = await self._queue.claim(limit, self._lease_seconds)
            except StoreUnavailable as error:
                log.warning("claim_failed", cause=type(error.__cause__).__name__)
                return
            for claim in claims:
                log.info("task_claimed", task_id=claim.task.id, session_id=claim.task.session_id, epoch=claim.epoch)
                holding = _Holding(claim, self._until(asked))
                self._held.add(holding)
                holding.work = tasks.create_task(self._work(holding), name=f"turn-{claim.task.id}")
            if len(claims) < limit:
                return

    async def _work(self, holding: _Holding) -> None:
        async def retake(claim: Claim) -> Claim:
            asked = self._monotonic()
            holding.claim = await self._queue.retake(claim, self._lease_seconds)
            holding.until = self._until(asked)
            return holding.claim

        try:
            await self._turns.run(holding.claim, retake)
        except Exception:
            # The edge of the worker's loop: the task is left to its next holder, and the others here go on.
            log.exception("task_left", task_id=holding.claim.task.id, epoch=holding.claim.epoch)
        finally:
            if len(self._held) >= self._capacity:
                self._wake.set()  # what is due may have been waiting for room
            self._held.discard(holding)

    async def _rest(self) -> None:
        """Until something may be due."""
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _listen(self) -> None:
        async with self._doorbell.listen() as rings, aclosing(rings):
            async for _ in rings:
                self._wake.set()

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    async def _keep_leases(self) -> None:
        """Renew all leases at once."""
        while True:
            await asyncio.sleep(self._lease_seconds / 5)
            sent = self._monotonic()
            try:
                async with asyncio.timeout(self._lease_seconds / 6):
                    await self._renew(sent)
            except (StoreUnavailable, TimeoutError) as error:
                log.warning("renewal_failed", cause=type(error).__name__)

    async def _stop_the_lapsed(self) -> None:
        """Stop what can no longer be sure of its lease; asks the clock alone, so that no store can delay it."""
        while True:
            await asyncio.sleep(self._lease_seconds / 30)
            for holding in self._held:
                work = holding.work
                # Once: a second time would interrupt how it closes what it has open.
                if self._monotonic() >= holding.until and work is not None and not work.cancelling():
                    log.warning("lease_lapsed", task_id=holding.claim.task.id, epoch=holding.claim.epoch)
                    work.cancel()

    async def _renew(self, sent: float) -> None:
        holdings = {(h.claim.task.id, h.claim.epoch): h for h in self._held}
        if holdings:
            for renewed in await self._queue.renew([h.claim for h in holdings.values()], self._lease_seconds):
                holdings[renewed].until = self._until(sent)

    def _until(self, asked: float) -> float:
        """A third of the lease is left as a margin between this clock and the database's."""
        return asked + self._lease_seconds * 2 / 3

    async def _drain(self) -> None:
        works = {holding.work: holding for holding in self._held if holding.work is not None}
        if not works:
            return
        _, late = await asyncio.wait(works, timeout=DRAIN_SECONDS)
        if not late:
            return
        for work in late:
            work.cancel()
        stopped, _ = await asyncio.wait(late, timeout=STOP_SECONDS)
        if stopped:
            await self._let_go([works[work].claim for work in stopped])

    async def _let_go(self, claims: Sequence[Claim]) -> None:
        """Have others take these at once. Only what has stopped: nobody may take what is still being written."""
        try:
            async with asyncio.timeout(self._lease_seconds / 6):
                released = await self._queue.renew(claims, 0)
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("release_failed", cause=type(error).__name__)  # their leases lapse
            return
        log.info("tasks_released", task_ids=[task_id for task_id, _ in released])
        await self._doorbell.ring()
