"""The only way into a log: numbered, batched, fenced, and repaired where the store forgets.

All appends of one process travel together, a few round trips at once, and a log with one of them only: what gathers
for it meanwhile is its next batch. Nothing waits on a timer. An event is encoded once, when it is handed in.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog

from service.model.errors import LogUnavailable, TakenOver, cause_of
from service.model.ids import Epoch, TaskId
from service.model.log import AppendResult, Batch, Fenced
from service.model.position import BEGINNING, Position
from service.model.trace import CurrentTrace, untraced
from service.registry.ports import LogStore
from service.registry.task_log import RETRY_WAITS, TaskLog

log = structlog.get_logger()

TRIPS_AT_ONCE: Final = 3
"""Round trips under way: while the store works on one, the next is packed and the last one's replies are taken in."""

MAX_LOGS_A_TRIP: Final = 16
"""Batches in one round trip: more make the store and this process wait for each other."""

MAX_TRIP_BYTES: Final = 1024 * 1024
"""A trip takes no further batch beyond this."""


class LogWriter:
    """One process's way into all its logs. `log_writer` makes one."""

    def __init__(self, store: LogStore, clock_ms: Callable[[], int], current_trace: CurrentTrace) -> None:
        self._clock_ms = clock_ms
        self._current_trace = current_trace
        self._store = store
        self._due: dict[TaskLog, None] = {}
        self._under_way: set[TaskLog] = set()
        self._idle: deque[asyncio.Future[None]] = deque()

    async def open(
        self, task_id: TaskId, epoch: Epoch, *, floor: Position = BEGINNING, later_than_ms: int = 0
    ) -> TaskLog:
        """Take the log: older holders are fenced when this returns, and it reaches as far as it ever will by them.

        `floor` is the last position that is known to be stored elsewhere; `later_than_ms` is the highest time that this
        holder gave to an event which the store lost. Raises TakenOver where a later holder was here, LogUnavailable.
        """
        opened = await self._store.open(task_id, epoch, floor)
        if isinstance(opened, Fenced):
            raise TakenOver
        return TaskLog(
            task_id,
            epoch,
            opened,
            min_ms=later_than_ms + 1,
            clock_ms=self._clock_ms,
            wake=self.wake,
            trace=self._current_trace(),
        )

    def wake(self, task_log: TaskLog) -> None:
        """This log has something to send. One that is under way, or rests after a refusal, is looked at behind that."""
        if task_log in self._due or task_log in self._under_way:
            return
        self._due[task_log] = None
        while self._idle:
            sender = self._idle.popleft()
            if not sender.done():  # it may have been told to stop
                sender.set_result(None)
                break

    async def send_for_ever(self) -> None:
        """Send what is due, one round trip after the other; several of these share the work."""
        failures = 0
        while True:
            trip = self._take_due()
            if not trip:
                await self._until_something_is_due()
                continue
            try:
                results = await self._store.append([batch for _, batch in trip])
            except LogUnavailable as error:
                if failures == 0:
                    log.warning("append_waits_for_store", cause=cause_of(error))
                await asyncio.sleep(RETRY_WAITS[min(failures, len(RETRY_WAITS) - 1)])
                failures += 1
                for task_log, _ in trip:
                    self._back(task_log)
                continue
            failures = 0
            for (task_log, _), result in zip(trip, results, strict=True):
                self._settle(task_log, result)

    async def _until_something_is_due(self) -> None:
        something: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(something)
        await something

    def _take_due(self) -> list[tuple[TaskLog, Batch]]:
        trip: list[tuple[TaskLog, Batch]] = []
        size = 0
        while self._due and len(trip) < MAX_LOGS_A_TRIP and size < MAX_TRIP_BYTES:
            task_log = next(iter(self._due))
            del self._due[task_log]
            batch = task_log.next_batch()
            if batch is not None:
                self._under_way.add(task_log)
                trip.append((task_log, batch))
                size += len(batch.frames)
        return trip

    def _settle(self, task_log: TaskLog, result: AppendResult) -> None:
        wait = task_log.settle(result)
        if wait:
            asyncio.get_running_loop().call_later(wait, self._back, task_log)
        else:
            self._back(task_log)

    def _back(self, task_log: TaskLog) -> None:
        self._under_way.discard(task_log)
        if task_log.next_batch() is not None:
            self.wake(task_log)


@asynccontextmanager
async def log_writer(
    store: LogStore, clock_ms: Callable[[], int], current_trace: CurrentTrace = untraced
) -> AsyncGenerator[LogWriter]:
    """A writer that sends while the block runs. `clock_ms` is Unix time in milliseconds; it may go back.

    What is written into a log belongs to the trace in which its holder opened it.
    """
    writer = LogWriter(store, clock_ms, current_trace)
    async with asyncio.TaskGroup() as tasks:
        senders = [
            tasks.create_task(writer.send_for_ever(), name=f"log-sender-{number}") for number in range(TRIPS_AT_ONCE)
        ]
        try:
            yield writer
        finally:
            for sender in senders:
                sender.cancel()
