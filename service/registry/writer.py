"""The only way into a log: numbered, batched, fenced, and repaired where the store forgets.

All appends of one process travel together: what gathers while one round trip is under way goes with the next one, one
batch a log. Nothing waits on a timer. An event is encoded once, when it is handed in.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog

from service.model.errors import LogUnavailable, TakenOver
from service.model.ids import Epoch, TaskId
from service.model.log import AppendResult, Batch, Fenced
from service.model.position import BEGINNING, Position
from service.registry.ports import LogStore
from service.registry.task_log import RETRY_WAITS, TaskLog

log = structlog.get_logger()

MAX_LOGS_A_TRIP: Final = 256
"""Batches in one round trip; the next ones go with the next."""


class LogWriter:
    """One process's way into all its logs. `log_writer` makes one."""

    def __init__(self, store: LogStore, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._store = store
        self._due: dict[TaskLog, None] = {}
        self._wake = asyncio.Event()

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
        )

    def wake(self, task_log: TaskLog) -> None:
        """This log has something to send."""
        self._due[task_log] = None
        self._wake.set()

    async def send_for_ever(self) -> None:
        """Send what is due, one round trip after the other."""
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            while due := self._take_due():
                try:
                    results = await self._store.append([batch for _, batch in due])
                except LogUnavailable as error:
                    if failures == 0:
                        log.warning("append_waits_for_store", cause=type(error.__cause__).__name__)
                    self._due.update((task_log, None) for task_log, _ in due)
                    await asyncio.sleep(RETRY_WAITS[min(failures, len(RETRY_WAITS) - 1)])
                    failures += 1
                    continue
                failures = 0
                for (task_log, _), result in zip(due, results, strict=True):
                    self._settle(task_log, result)

    def _take_due(self) -> list[tuple[TaskLog, Batch]]:
        due: list[tuple[TaskLog, Batch]] = []
        while self._due and len(due) < MAX_LOGS_A_TRIP:
            task_log = next(iter(self._due))
            del self._due[task_log]
            batch = task_log.next_batch()
            if batch is not None:
                due.append((task_log, batch))
        return due

    def _settle(self, task_log: TaskLog, result: AppendResult) -> None:
        wait = task_log.settle(result)
        if wait:
            asyncio.get_running_loop().call_later(wait, self.wake, task_log)
        elif task_log.next_batch() is not None:
            self.wake(task_log)


@asynccontextmanager
async def log_writer(store: LogStore, clock_ms: Callable[[], int]) -> AsyncGenerator[LogWriter]:
    """A writer that sends while the block runs. `clock_ms` is Unix time in milliseconds; it may go back."""
    writer = LogWriter(store, clock_ms)
    async with asyncio.TaskGroup() as tasks:
        sender = tasks.create_task(writer.send_for_ever(), name="log-sender")
        try:
            yield writer
        finally:
            sender.cancel()
