"""The worker: claims tasks, keeps their leases, and has their turns run."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Final, assert_never

import structlog

from service.agent.cancellation import Cancellation
from service.agent.turn import Turns
from service.model.errors import StoreUnavailable, cause_of
from service.model.ids import TaskId
from service.model.task import CancelRequested, Claim, TaskDue
from service.sessions.ports import Doorbell, TaskQueue

log = structlog.get_logger()

POLL_SECONDS: Final = 1.0
"""A task whose ring was lost is found after this at the latest."""

CANCEL_POLL_SECONDS: Final = 2.0
"""A cancellation whose ring was lost is found after this at the latest, with the renewal of the leases."""

MAX_CLAIMS: Final = 64
"""Tasks claimed at once."""

DRAIN_SECONDS: Final = 10.0
"""How long running turns may go on after a stop; then they are stopped, and let go for another worker."""

STOP_SECONDS: Final = 2.0
"""How long a turn that is stopped may take for it; then it is interrupted, and its lease has to lapse."""

ABORT_SECONDS: Final = 1.0
"""How long a turn that is interrupted is waited for; a process that ends is not held up by it."""


@dataclass(slots=True, eq=False)
class _Holding:
    """A task that this process works on, until when it may by the monotonic clock, and whether it was told to stop."""

    claim: Claim
    until: float
    cancellation: Cancellation = field(default_factory=Cancellation)
    is_stopping: bool = False


class Worker:
    """Works on up to `capacity` tasks at once.

    The turns are tasks of the loop that this keeps itself: a TaskGroup would wait without a limit for one that does
    not stop.
    """

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
        self._held: dict[asyncio.Task[None], _Holding] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish what runs, within DRAIN_SECONDS; let go what is not finished then.

        What has not stopped STOP_SECONDS later is interrupted, named in the log, and waited for ABORT_SECONDS more. So
        this returns, at the latest, after these three, with a sixth of the lease for letting go and whatever a claim
        that is under way may take. Cancelled, it leaves out the first.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = [
                    tasks.create_task(self._listen(), name="doorbell"),
                    tasks.create_task(self._keep_leases(), name="leases"),
                    tasks.create_task(self._stop_the_lapsed(), name="lapsed"),
                    tasks.create_task(self._wake_at(stop), name="stop"),
                ]
                while not stop.is_set():
                    with _loop_edge("claim_failed"):
                        await self._claim(stop)
                    await self._rest()
                if self._held:
                    await asyncio.wait(self._held, timeout=DRAIN_SECONDS)
                for helper in helpers:
                    helper.cancel()
        finally:
            await self._stop_the_rest()

    async def _claim(self, stop: asyncio.Event) -> None:
        """Take what is due, as long as there is room and something comes."""
        while not stop.is_set() and (room := self._capacity - len(self._held)) > 0:
            asked = self._monotonic()
            limit = min(room, MAX_CLAIMS)
            claims = await self._queue.claim(limit, self._lease_seconds)
            until = self._until(asked)
            if claims and self._monotonic() >= until:
                log.warning("claims_came_late", task_ids=[claim.task.id for claim in claims])  # their leases lapse
                return
            for claim in claims:
                log.info("task_claimed", task_id=claim.task.id, session_id=claim.task.session_id, epoch=claim.epoch)
                holding = _Holding(claim, until)
                work = asyncio.create_task(self._work(holding), name=f"turn-{claim.task.id}")
                self._held[work] = holding
                work.add_done_callback(self._forget)
            if len(claims) < limit:
                return

    async def _work(self, holding: _Holding) -> None:
        async def retake(claim: Claim) -> Claim:
            asked = self._monotonic()
            holding.claim = await self._queue.retake(claim, self._lease_seconds)
            holding.until = self._until(asked)
            return holding.claim

        try:
            await self._turns.run(holding.claim, retake, holding.cancellation)
        except Exception:
            # The edge of the worker's loop: the task is left to its next holder, and the others here go on.
            log.exception("task_left", task_id=holding.claim.task.id, epoch=holding.claim.epoch)

    def _forget(self, work: asyncio.Task[None]) -> None:
        """When it is done; a callback, since a task that is cancelled before its first step never runs a `finally`."""
        if len(self._held) >= self._capacity:
            self._wake.set()  # what is due may have been waiting for room
        del self._held[work]

    async def _rest(self) -> None:
        """Until something may be due."""
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _listen(self) -> None:
        while True:
            with _loop_edge("doorbell_failed"):
                async with self._doorbell.listen() as rings, aclosing(rings):
                    async for rung in rings:
                        match rung:
                            case TaskDue():
                                self._wake.set()
                            case CancelRequested(task_id):
                                self._wake.set()  # it may be queued, and only to be ended
                                self._cancel(task_id)
                            case other:
                                assert_never(other)
            await asyncio.sleep(POLL_SECONDS)

    def _cancel(self, task_id: TaskId) -> None:
        for holding in self._held.values():
            if holding.claim.task.id == task_id:
                holding.cancellation.request()

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    async def _keep_leases(self) -> None:
        """Renew all leases at once; where it fails, again soon: at the usual pace there is time for one failure."""
        usual = min(self._lease_seconds / 5, CANCEL_POLL_SECONDS)
        soon = min(self._lease_seconds / 30, usual)
        pause = usual
        while True:
            await asyncio.sleep(pause)
            sent, pause = self._monotonic(), soon
            with _loop_edge("renewal_failed"):
                async with asyncio.timeout(self._lease_seconds / 6):
                    await self._renew(sent)
                pause = usual

    async def _stop_the_lapsed(self) -> None:
        """Stop what can no longer be sure of its lease; asks the clock alone, so that no store can delay it."""
        while True:
            await asyncio.sleep(self._lease_seconds / 30)
            for work, holding in self._held.items():
                if self._monotonic() >= holding.until and not holding.is_stopping:
                    log.warning("lease_lapsed", task_id=holding.claim.task.id, epoch=holding.claim.epoch)
                    _tell_to_stop(work, holding)

    async def _renew(self, sent: float) -> None:
        """What is being stopped is not renewed: another may have it as soon as its lease has lapsed."""
        holdings = {(h.claim.task.id, h.claim.epoch): h for h in self._held.values() if not h.is_stopping}
        if holdings:
            for held in await self._queue.renew([h.claim for h in holdings.values()], self._lease_seconds):
                holding = holdings[held.task_id, held.epoch]
                holding.until = self._until(sent)
                if held.cancel_requested:
                    holding.cancellation.request()

    def _until(self, asked: float) -> float:
        """A third of the lease is left as a margin between this clock and the database's."""
        return asked + self._lease_seconds * 2 / 3

    async def _stop_the_rest(self) -> None:
        """Stop what still runs; let go what has stopped; abort what has not."""
        held = {work: holding for work, holding in self._held.items() if not work.done()}
        if not held:
            return
        for work, holding in held.items():
            _tell_to_stop(work, holding)
        stopped, stuck = await asyncio.wait(held, timeout=STOP_SECONDS)
        if stopped:
            await self._let_go([held[work].claim for work in stopped])
        if stuck:
            for work in stuck:
                work.cancel()
            _, left = await asyncio.wait(stuck, timeout=ABORT_SECONDS)
            aborted, running = ([held[work].claim.task.id for work in works] for works in (stuck, left))
            log.error("turns_aborted", task_ids=aborted, still_running=running)

    async def _let_go(self, claims: Sequence[Claim]) -> None:
        """Have others take these at once. Only what has stopped: nobody may take what is still being written."""
        with _loop_edge("release_failed"):  # then their leases lapse
            async with asyncio.timeout(self._lease_seconds / 6):
                released = await self._queue.renew(claims, 0)
            log.info("tasks_released", task_ids=[held.task_id for held in released])
            await self._doorbell.ring(TaskDue())


def _tell_to_stop(work: asyncio.Task[None], holding: _Holding) -> None:
    """Once: a second time would interrupt how it closes what it has open."""
    if not holding.is_stopping:
        holding.is_stopping = True
        work.cancel()


@contextmanager
def _loop_edge(event: str) -> Iterator[None]:
    """Whatever goes wrong inside is told as `event`, and ends nothing but this round of a loop."""
    try:
        yield
    except StoreUnavailable as error:
        log.warning(event, cause=cause_of(error))
    except TimeoutError:
        log.warning(event, cause="TimeoutError")
    except Exception:
        log.exception(event)
