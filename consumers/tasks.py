"""The worker: claims tasks, keeps their leases, and has their turns run."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, assert_never

import structlog

from consumers.outage import Answers, Edge
from service.agent.cancellation import Cancellation
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

LOG_PATIENCE_SECONDS: Final = 60.0
"""How long turns wait for a log store that does not answer this process; then they are let go for one that it answers.

Longer than a restart or a failover takes, since whoever goes on with a turn asks its model again; no longer than people
would wait for a cancellation.
"""


class Runs(Protocol):
    """What runs a task that is claimed: `agent.turn.Turns`."""

    async def run(self, claim: Claim, retake: Callable[[Claim], Awaitable[Claim]], cancellation: Cancellation) -> bool:
        """Bring it to its end; answers whether its end began a next turn."""


@dataclass(slots=True, eq=False)
class _Holding:
    """A task that this process works on, until when it may by the monotonic clock, and whether it was told to stop."""

    claim: Claim
    until: float
    cancellation: Cancellation = field(default_factory=Cancellation)
    is_stopping: bool = False


class Worker:
    """Works on up to `capacity` tasks at once.

    `logs_away_seconds` says for how long the log store has not answered this process, None while it answers. Until it
    does, nothing is claimed; after LOG_PATIENCE_SECONDS what runs is stopped and let go for others whom it may answer.

    The turns are tasks of the loop that this keeps itself: a TaskGroup would wait without a limit for one that does
    not stop.
    """

    def __init__(
        self,
        queue: TaskQueue,
        turns: Runs,
        doorbell: Doorbell,
        monotonic: Callable[[], float],
        logs_away_seconds: Callable[[], float | None],
        *,
        lease_seconds: float,
        capacity: int = 256,
    ) -> None:
        self._queue = queue
        self._turns = turns
        self._doorbell = doorbell
        self._monotonic = monotonic
        self._logs_away_seconds = logs_away_seconds
        self._lease_seconds = lease_seconds
        self._capacity = capacity
        self._answers = Answers(lease_seconds, monotonic)
        self._holds_back = False
        self._letting_go = asyncio.Lock()
        self._wake = asyncio.Event()
        self._held: dict[asyncio.Task[None], _Holding] = {}
        self._lapsed: Sequence[Claim] = ()
        """Whose turns were stopped since their leases seemed to have lapsed; the newest, `capacity` of them at most."""
        self._releasing = Edge("release_failed", "release_goes_on", monotonic)

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
                    tasks.create_task(self._let_go_without_logs(stop), name="patience"),
                    tasks.create_task(self._wake_at(stop), name="stop"),
                ]
                claiming = Edge("claim_failed", "claim_goes_on", self._monotonic)
                while not stop.is_set():
                    if self._may_claim():
                        with claiming.round():
                            await self._claim(stop)
                    await self._rest()
                if self._held:
                    await asyncio.wait(self._held, timeout=DRAIN_SECONDS)
                async with self._letting_go:
                    for helper in helpers:
                        helper.cancel()
        finally:
            await self._stop_the_rest()

    async def _claim(self, stop: asyncio.Event) -> None:
        """Take what is due, as long as there is room and something comes."""
        while not stop.is_set() and self._may_claim():
            asked, counts_lost = self._monotonic(), self._answers.have_lasted()
            limit = min(self._capacity - len(self._held), MAX_CLAIMS)
            with self._answers.asking():
                claims = await self._queue.claim(limit, self._lease_seconds, counts_lost=counts_lost)
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

    def _may_claim(self) -> bool:
        """Whether there is room, and the log store answers; told where that changes."""
        away_seconds = self._logs_away_seconds()
        if away_seconds is None and self._holds_back:
            log.info("claims_go_on")
        elif away_seconds is not None:
            self._answers.expect()  # of the database nothing is heard either, unless by renewals
            if not self._holds_back:
                log.warning("claims_held_back", because="LogUnavailable")
        self._holds_back = away_seconds is not None
        return not self._holds_back and len(self._held) < self._capacity

    async def _work(self, holding: _Holding) -> None:
        async def retake(claim: Claim) -> Claim:
            asked = self._monotonic()
            holding.claim = await self._queue.retake(claim, self._lease_seconds)
            holding.until = self._until(asked)
            return holding.claim

        try:
            if await self._turns.run(holding.claim, retake, holding.cancellation):
                await self._doorbell.ring(TaskDue())
        except Exception:
            # The edge of the worker's loop: the task is left to its next holder, and the others here go on.
            log.exception("task_left", task_id=holding.claim.task.id, epoch=holding.claim.epoch)

    def _forget(self, work: asyncio.Task[None]) -> None:
        """When it is done; a callback, since a task that is cancelled before its first step never runs a `finally`."""
        del self._held[work]
        self._wake.set()  # what is due may have been waiting for its session, or for room

    async def _rest(self) -> None:
        """Until something may be due."""
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _listen(self) -> None:
        listening = Edge("doorbell_failed", "doorbell_goes_on", self._monotonic)
        while True:
            with listening.round():
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
        pause, renewing = usual, Edge("renewal_failed", "renewal_goes_on", self._monotonic)
        while True:
            await asyncio.sleep(pause)
            if not (holdings := self._renewable()) and not renewing.is_failing and not self._lapsed:
                continue
            sent, pause = self._monotonic(), soon
            with renewing.round():
                async with asyncio.timeout(self._lease_seconds / 6):
                    await self._renew(holdings, sent)
                    await self._give_back_the_lapsed()
                pause = usual

    async def _stop_the_lapsed(self) -> None:
        """Stop what can no longer be sure of its lease; asks the clock alone, so that no store can delay it."""
        while True:
            await asyncio.sleep(self._lease_seconds / 30)
            for work, holding in self._held.items():
                if self._monotonic() >= holding.until and not holding.is_stopping:
                    log.warning("lease_lapsed", task_id=holding.claim.task.id, epoch=holding.claim.epoch)
                    _tell_to_stop(work, holding)
                    work.add_done_callback(partial(self._note_lapsed, holding.claim))

    def _note_lapsed(self, claim: Claim, work: asyncio.Task[None]) -> None:
        self._lapsed = [*self._lapsed, claim][-self._capacity :]

    async def _let_go_without_logs(self, stop: asyncio.Event) -> None:
        """Stop what has waited for the log store for too long, and let it go. What has not stopped keeps its lease."""
        while not stop.is_set():
            await asyncio.sleep(POLL_SECONDS)
            away_seconds = self._logs_away_seconds()
            if away_seconds is None or away_seconds < LOG_PATIENCE_SECONDS:
                continue
            held = {work: holding for work, holding in self._held.items() if not holding.is_stopping}
            if held:
                ids = [holding.claim.task.id for holding in held.values()]
                log.warning("turns_without_logs", task_ids=ids, after_seconds=round(away_seconds, 1))
                async with self._letting_go:
                    await self._stop(held)

    def _renewable(self) -> Sequence[_Holding]:
        """What is being stopped is not renewed: another may have it as soon as its lease has lapsed."""
        return [holding for holding in self._held.values() if not holding.is_stopping]

    async def _renew(self, holdings: Sequence[_Holding], sent: float) -> None:
        by_claim = {(holding.claim.task.id, holding.claim.epoch): holding for holding in holdings}
        with self._answers.asking():
            renewed = await self._queue.renew([holding.claim for holding in holdings], self._lease_seconds)
        for held in renewed:
            holding = by_claim[held.task_id, held.epoch]
            holding.until = self._until(sent)
            if held.cancel_requested:
                holding.cancellation.request()

    async def _give_back_the_lapsed(self) -> None:
        """A renewal that was given up may have arrived since: then nobody could take these for another lease."""
        if lapsed := self._lapsed:
            await self._release(lapsed)
            self._lapsed = [claim for claim in self._lapsed if claim not in lapsed]

    def _until(self, asked: float) -> float:
        """A third of the lease is left as a margin between this clock and the database's."""
        return asked + self._lease_seconds * 2 / 3

    async def _stop_the_rest(self) -> None:
        """Stop what still runs; let go what has stopped; abort what has not."""
        held = {work: holding for work, holding in self._held.items() if not work.done()}
        if stuck := await self._stop(held):
            for work in stuck:
                work.cancel()
            _, left = await asyncio.wait(stuck, timeout=ABORT_SECONDS)
            aborted, running = ([held[work].claim.task.id for work in works] for works in (stuck, left))
            log.error("turns_aborted", task_ids=aborted, still_running=running)

    async def _stop(self, held: Mapping[asyncio.Task[None], _Holding]) -> set[asyncio.Task[None]]:
        """Stop these within STOP_SECONDS and let go what has stopped; answers what has not."""
        if not held:
            return set()
        for work, holding in held.items():
            _tell_to_stop(work, holding)
        stopped, stuck = await asyncio.wait(held, timeout=STOP_SECONDS)
        if stopped:
            await self._let_go([held[work].claim for work in stopped])
        return stuck

    async def _let_go(self, claims: Sequence[Claim]) -> None:
        """Have others take these at once. Only what has stopped: nobody may take what is still being written."""
        with self._releasing.round():  # else their leases lapse
            async with asyncio.timeout(self._lease_seconds / 6):
                await self._release(claims)

    async def _release(self, claims: Sequence[Claim]) -> None:
        if released := await self._queue.renew(claims, 0):
            log.info("tasks_released", task_ids=[held.task_id for held in released])
            await self._doorbell.ring(TaskDue())


def _tell_to_stop(work: asyncio.Task[None], holding: _Holding) -> None:
    """Once: a second time would interrupt how it closes what it has open."""
    if not holding.is_stopping:
        holding.is_stopping = True
        work.cancel()
