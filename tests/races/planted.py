"""Mistakes that such systems have had, one a part: the simulation must see each of them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

from service.adapters.memory_log import MemoryLogStore
from service.adapters.memory_tasks import MemoryTasks
from service.agent.cancellation import Cancellation
from service.agent.ending import closing
from service.agent.recorder import Recorder
from service.agent.runner import TaskRunner
from service.agent.step import Steps
from service.agent.tools import Toolbox
from service.model.encoding import framed, unframed
from service.model.generation import Prompt
from service.model.ids import Epoch, MessageId, TaskId
from service.model.log import AppendResult, Batch, Closed, Hint, Interrupted, Listening, Page
from service.model.position import BEGINNING, Position
from service.model.session import Promoted
from service.model.step import CompletedStep
from service.model.task import Claim, End, Ended
from service.registry.follow import Followed, Follower, _Reading
from service.registry.hub import Channel, Hub, hub
from service.registry.ports import HintFeed, Hints, LogStore
from service.registry.replay import fold_log
from service.registry.task_log import TaskLog
from service.registry.writer import LogWriter


class ReadsThenSubscribes(Follower):
    """Pitfall 1: the store is read before anyone listens."""

    async def follow(self, task_id: TaskId, after: Position) -> AsyncGenerator[Followed]:
        nobody = Channel(task_id, -1, listening=True)
        reading = _Reading((self._pages, self._archived), self._directory, nobody, after, self._heartbeat_seconds)
        items = reading.items()
        yield await anext(items)
        async with self._hub.attach(task_id) as channel:
            await channel.confirmed()
            reading._channel = channel
            reading._trusted = channel.generation
            async for item in items:
                yield item


class ShowsBeforeItStores(MemoryLogStore):
    """Pitfall 10: readers get an event live, and the store may still refuse it."""

    def _append(self, batch: Batch) -> AppendResult:
        frames = batch.hinted_frames
        self._hints.publish(Hint(batch.task_id, batch.epoch, batch.before, batch.last, batch.terminal, frames))
        return super()._append(batch)


class _DeafFeed:
    """Says nothing of lost connections: neither that one broke, nor that it is back."""

    def __init__(self, feed: HintFeed) -> None:
        self._feed = feed
        self.subscribe, self.unsubscribe = feed.subscribe, feed.unsubscribe

    async def items(self) -> AsyncGenerator[Hint | Listening | Interrupted]:
        confirmed = set()
        async with aclosing(self._feed.items()) as items:
            async for item in items:
                match item:
                    case Hint():
                        yield item
                    case Listening(task_id) if task_id not in confirmed:
                        confirmed.add(task_id)
                        yield item


class _DeafHints:
    def __init__(self, hints: Hints) -> None:
        self._hints = hints

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[HintFeed]:
        async with self._hints.connect() as feed:
            yield _DeafFeed(feed)


@asynccontextmanager
async def deaf_hub(hints: Hints, *, tick_seconds: float) -> AsyncIterator[Hub]:
    """Pitfall 11: a connection that broke is nobody's concern."""
    async with hub(_DeafHints(hints), tick_seconds=tick_seconds) as made:
        yield made


class EndsTwice(MemoryTasks):
    """Pitfall 19: the last one that ends a task wins."""

    async def end(self, claim: Claim, end: End) -> Ended:
        if (row := self._held(claim)) is not None:
            row.ending = None
        return await super().end(claim, end)


class Unfenced(MemoryLogStore):
    """Pitfall 22: whoever comes may append."""

    def _append(self, batch: Batch) -> AppendResult:
        self._logs.setdefault(batch.task_id, self._there(batch.task_id)).epoch = batch.epoch
        return super()._append(batch)


class StoresTwice(MemoryLogStore):
    """Pitfall 24: what comes again is appended again, as by a plain XADD."""

    def _append(self, batch: Batch) -> AppendResult:
        log = self._there(batch.task_id)
        if log.epoch == batch.epoch and log.last.n >= batch.last.n and not log.closed:
            data = [event[1] for event in unframed(batch.frames)]
            last = Position(log.last.ms, log.last.n + len(data))
            frames = framed(log.last.ms, log.last.n + 1, data)
            batch = replace(batch, before=log.last, last=last, frames=frames)
        return super()._append(batch)


class GoesOnWriting(Steps):
    """Pitfall 25: a turn that is cancelled has ended, and its coroutine writes on."""

    async def make(self, claim: Claim, recorder: Recorder, prompt: Prompt, tools: Toolbox) -> None:
        making = asyncio.create_task(super().make(claim, recorder, prompt, tools))
        making.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(making)


class _Early:
    """The log as it was before it was opened."""

    def __init__(self, writer: LogWriter, logs: LogStore) -> None:
        self._writer = writer
        self._logs = logs
        self._pages: dict[TaskId, Page] = {}

    async def open(self, task_id: TaskId, epoch: Epoch, **named: Any) -> TaskLog:
        self._pages[task_id] = await self._logs.read(task_id, BEGINNING, 1000)
        return await self._writer.open(task_id, epoch, **named)

    async def read(self, task_id: TaskId, after: Position, count: int) -> Page:
        page = self._pages[task_id]
        return replace(page, events=[event for event in page.events if Position.stored(event[0]) > after])


class ReadsBeforeItOpens(TaskRunner):
    """Pitfall 61: the new holder looks at the log before the old one is fenced."""

    def __init__(self, *, writer: LogWriter, logs: LogStore, **named: Any) -> None:
        early = _Early(writer, logs)
        super().__init__(writer=early, logs=early, **named)  # type: ignore[arg-type]


class ClosedComesFirst(MemoryLogStore):
    """Pitfall 62: the last batch that comes again is told that the log is closed."""

    def _append(self, batch: Batch) -> AppendResult:
        log = self._there(batch.task_id)
        return Closed() if log.closed and log.epoch == batch.epoch else super()._append(batch)


class FinishesBeforeItCommits(TaskRunner):
    """Pitfall 69: the log says that the task has ended before the database knows how."""

    async def _attempt(self, claim: Claim, task_log: TaskLog, decide: Any, cancellation: Cancellation) -> Any:
        if claim.owed is not None or task_log.was_closed:
            return await super()._attempt(claim, task_log, decide, cancellation)
        fold = await fold_log(self._logs, claim.task.id, task_log.last)
        end = await decide(claim, Recorder(task_log, fold), cancellation)
        await task_log.append(*closing(claim, fold, end.ending))
        await self._queue.end(claim, end)
        await self._queue.close(claim)
        return end.status, False


class EndsWhatIsNotHis(MemoryTasks):
    """Pitfall 70: a worker that was paused before its commit commits over its successor."""

    async def end(self, claim: Claim, end: End) -> Ended:
        return await super().end(replace(claim, epoch=self._database.tasks[claim.task.id].epoch), end)


class PromotesWhatIsNotHis(MemoryTasks):
    """Pitfall 22: a worker that was paused takes messages into its successor's turn."""

    async def promote(self, claim: Claim, step: CompletedStep, told: Collection[MessageId]) -> Sequence[Promoted]:
        return await super().promote(replace(claim, epoch=self._database.tasks[claim.task.id].epoch), step, told)


class PromotesOnce(MemoryTasks):
    """What was taken in is answered once: whoever did not hear it never does."""

    async def promote(self, claim: Claim, step: CompletedStep, told: Collection[MessageId]) -> Sequence[Promoted]:
        waiting = {each.id for each in self._database.sessions[claim.task.session_id].pending}
        return [each for each in await super().promote(claim, step, told) if each.id in waiting]


class EndsOverTheMailbox(MemoryTasks):
    """Pitfall 42: the end does not look into the mailbox again."""

    async def end(self, claim: Claim, end: End) -> Ended:
        pending = self._database.sessions[claim.task.session_id].pending
        waiting = pending[:]
        pending.clear()
        try:
            return await super().end(claim, end)
        finally:
            pending[:] = waiting
