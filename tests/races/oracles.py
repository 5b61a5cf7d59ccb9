"""Who watches the stores, from beside them: what no call of anybody may do at the moment when it takes effect."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

from service.adapters.memory_database import MemoryDatabase
from service.adapters.memory_log import MemoryLogStore
from service.adapters.memory_tasks import MemoryTasks
from service.model.encoding import frames, unframed
from service.model.ids import Epoch, MessageId, TaskId
from service.model.log import AppendResult, Batch, Fenced, Opened, Stored, StoredEvent
from service.model.position import BEGINNING, Position
from service.model.session import Promoted
from service.model.step import CompletedStep, KeptStep
from service.model.task import Claim, End, Ended, Held

FIRST = Epoch(1)


def _nothing() -> None:
    pass


class Annals:
    """A log store, and what it ever had: whose each event is, what was acknowledged, what a closed log said."""

    def __init__(self, store: MemoryLogStore, database: MemoryDatabase) -> None:
        self.store = store
        self.ever_stored: set[StoredEvent] = set()
        self.acknowledged: defaultdict[TaskId, set[StoredEvent]] = defaultdict(set)
        self.closed: defaultdict[TaskId, list[bytes]] = defaultdict(list)
        """The frames of each log as it was closed; more than once only where the store forgot that."""
        self.epochs: defaultdict[TaskId, list[Epoch]] = defaultdict(list)
        """Of each event that is there: by whom."""
        self.batches: defaultdict[TaskId, list[int]] = defaultdict(list)
        """How many events there were after each batch: a store loses no half of one."""
        self.closed_at = 0.0
        self.when_closed: dict[TaskId, Callable[[], object]] = {}
        """Done once, as a log is closed."""
        self.broken: list[str] = []
        self._database = database
        self._now = database.seconds
        self._opens: defaultdict[TaskId, list[tuple[int, Epoch]]] = defaultdict(list)
        self.read, self.head = store.read, store.head

    async def open(self, task_id: TaskId, epoch: Epoch, floor: Position = BEGINNING) -> Opened | Fenced:
        opened = await self.store.open(task_id, epoch, floor)
        if isinstance(opened, Opened):
            self._opens[task_id].append((len(self.epochs[task_id]), epoch))
        return opened

    async def append(self, batches: Sequence[Batch]) -> Sequence[AppendResult]:
        return [await self._append(batch) for batch in batches]

    async def _append(self, batch: Batch) -> AppendResult:
        events = self.store._there(batch.task_id).events
        before = len(events)
        (result,) = await self.store.append([batch])
        new = events[before:]
        self.ever_stored.update(new)
        self.epochs[batch.task_id] += [batch.epoch] * len(new)
        if new:
            self.batches[batch.task_id].append(len(events))
        if isinstance(result, Stored):
            self.acknowledged[batch.task_id].update(unframed(batch.frames))
        if new and batch.epoch < max(epoch for _, epoch in self._opens[batch.task_id]):
            self.broken.append("a holder that was fenced has written")
        if new and batch.terminal:
            self.closed[batch.task_id].append(frames(events))
            self.closed_at = self._now()
            if not self._database.tasks[batch.task_id].task.has_ended:
                self.broken.append("a log says that its task has ended, and the database does not know it")
            self.when_closed.pop(batch.task_id, _nothing)()
        return result

    def lose(self, task_id: TaskId, batches: int, *, drawn: bool) -> None:
        """The store comes back as it was before the newest batches; `drawn` decides on an opening right before them."""
        log = self.store._there(task_id)
        keep = [0, *self.batches[task_id]][-batches - 1]
        del self.epochs[task_id][keep:], self.batches[task_id][-batches:]
        self._opens[task_id] = [(n, epoch) for n, epoch in self._opens[task_id] if n < keep or (n == keep and drawn)]
        if keep == 0 and not self._opens[task_id]:
            self.store.forget(task_id)
        else:
            self.store.lose(task_id, keep)
            log.epoch = self._opens[task_id][-1][1]

    def is_whole(self, task_id: TaskId) -> bool:
        """Whether all that was acknowledged is there."""
        return self.acknowledged[task_id] <= set(self.store._there(task_id).events)


class Ledger:
    """A queue, and who holds what by what it has granted."""

    def __init__(self, tasks: MemoryTasks, now: Callable[[], float]) -> None:
        self.tasks = tasks
        self.broken: list[str] = []
        self.claims: defaultdict[TaskId, list[Epoch]] = defaultdict(list)
        self._now = now
        self._granted: dict[TaskId, tuple[Epoch, float]] = {}
        self.at_take_over: list[Callable[[], object]] = []
        """Done once each, as a second holder takes a task."""
        self.read, self.cancel, self.facts = tasks.read, tasks.cancel, tasks.facts

    async def claim(self, limit: int, lease_seconds: float, *, counts_lost: bool = True) -> Sequence[Claim]:
        claims = await self.tasks.claim(limit, lease_seconds, counts_lost=counts_lost)
        for claim in claims:
            epoch, until = self._granted.get(claim.task.id, (0, 0.0))
            if until > self._now():
                self.broken.append("a task is taken from a holder whose lease goes on")
            if claim.epoch <= epoch:
                self.broken.append("a new holder has no higher epoch")
            self.claims[claim.task.id].append(claim.epoch)
            self._grant(claim, lease_seconds)
            if claim.epoch > FIRST:
                acts, self.at_take_over = self.at_take_over, []
                for act in acts:
                    act()
        return claims

    def _grant(self, claim: Claim, lease_seconds: float) -> None:
        self._granted[claim.task.id] = (claim.epoch, self._now() + lease_seconds)

    async def renew(self, claims: Sequence[Claim], lease_seconds: float) -> Sequence[Held]:
        held = await self.tasks.renew(claims, lease_seconds)
        for claim in claims:
            if any(one.task_id == claim.task.id for one in held) and self._holds(claim):
                self._grant(claim, lease_seconds)
        return held

    async def retake(self, claim: Claim, lease_seconds: float) -> Claim:
        taken = await self.tasks.retake(claim, lease_seconds)
        if not self._holds(claim):
            self.broken.append("who lost a task takes it again")
        self._grant(taken, lease_seconds)
        return taken

    async def end(self, claim: Claim, end: End) -> Ended:
        ended = await self.tasks.end(claim, end)
        if not self._holds(claim):
            self.broken.append("who lost a task ends it")
        return ended

    async def promote(self, claim: Claim, step: CompletedStep, told: Collection[MessageId]) -> Sequence[Promoted]:
        promoted = await self.tasks.promote(claim, step, told)
        if not self._holds(claim):
            self.broken.append("who lost a task takes messages into it")
        return promoted

    async def begin_call(self, claim: Claim, call_id: str) -> bool:
        begun = await self.tasks.begin_call(claim, call_id)
        if not self._holds(claim):
            self.broken.append("who lost a task begins a call of it")
        return begun

    async def steps(self, task_id: TaskId, behind: int) -> Sequence[KeptStep]:
        return await self.tasks.steps(task_id, behind)

    async def close(self, claim: Claim) -> None:
        await self.tasks.close(claim)
        if self._holds(claim):
            self._grant(claim, 0)

    def _holds(self, claim: Claim) -> bool:
        return self._granted.get(claim.task.id, (0, 0.0))[0] == claim.epoch


def is_dense(positions: Sequence[Position]) -> bool:
    """Numbers without a gap from 1, and time that never goes back."""
    return [p.n for p in positions] == list(range(1, len(positions) + 1)) and list(positions) == sorted(positions)
