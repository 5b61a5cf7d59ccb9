"""Ports that count what goes through them on its way to the real ones, so that nobody inside has to."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from datetime import timedelta
from typing import Protocol

from service.adapters.metrics import Metrics
from service.model.failures import MESSAGES, ModelCallFailed
from service.model.generation import CallEnded, Piece, Prompt
from service.model.ids import Epoch, TaskId
from service.model.log import AppendResult, Batch, Fenced, Head, Hint, Interrupted, Listening, Opened, Page, Stored
from service.model.position import Position
from service.model.task import Claim, End, Ended, Held


class Logs(Protocol):
    """What is counted of a log store; its contract is the registry's."""

    async def open(self, task_id: TaskId, epoch: Epoch, floor: Position) -> Opened | Fenced: ...
    async def append(self, batches: Sequence[Batch]) -> Sequence[AppendResult]: ...
    async def read(self, task_id: TaskId, after: Position, count: int) -> Page: ...
    async def head(self, task_id: TaskId) -> Head: ...


class MeteredLogs:
    """The port `LogStore`: counts what is appended. `monotonic` is in seconds."""

    def __init__(self, logs: Logs, metrics: Metrics, monotonic: Callable[[], float]) -> None:
        self._logs = logs
        self._metrics = metrics
        self._monotonic = monotonic
        self.open, self.read, self.head = logs.open, logs.read, logs.head

    async def append(self, batches: Sequence[Batch]) -> Sequence[AppendResult]:
        metrics, begun = self._metrics, self._monotonic()
        results = await self._logs.append(batches)
        metrics.append_seconds.observe(self._monotonic() - begun)
        for batch, result in zip(batches, results, strict=True):
            metrics.appends.labels(type(result).__name__.lower()).inc()
            if isinstance(result, Stored):
                events = batch.last.n - batch.before.n
                metrics.append_batch_events.observe(events)
                metrics.appended_events.inc(events)
        return results


class Queue(Protocol):
    """What is counted of a task queue; its contract is that of the sessions' room."""

    async def claim(self, limit: int, lease_seconds: float, *, counts_lost: bool = True) -> Sequence[Claim]: ...
    async def renew(self, claims: Sequence[Claim], lease_seconds: float) -> Sequence[Held]: ...
    async def retake(self, claim: Claim, lease_seconds: float) -> Claim: ...
    async def end(self, claim: Claim, end: End) -> Ended: ...
    async def close(self, claim: Claim) -> None: ...


class MeteredQueue:
    """The port `TaskQueue`: counts what is claimed, how long it waited, and how it ends."""

    def __init__(self, queue: Queue, metrics: Metrics) -> None:
        self._queue = queue
        self._metrics = metrics
        self.renew, self.retake, self.close = queue.renew, queue.retake, queue.close

    async def claim(self, limit: int, lease_seconds: float, *, counts_lost: bool = True) -> Sequence[Claim]:
        claims = await self._queue.claim(limit, lease_seconds, counts_lost=counts_lost)
        for claim in claims:
            kind = "first" if claim.epoch == 1 else "taken over" if claim.lost_attempts else "again"
            self._metrics.claims.labels(kind).inc()
            if kind == "first" and claim.task.started_at is not None:
                _observe(self._metrics.queue_seconds.observe, claim.task.started_at - claim.task.created_at)
        return claims

    async def end(self, claim: Claim, end: End) -> Ended:
        ended = await self._queue.end(claim, end)
        self._metrics.tasks_ended.labels(end.status).inc()
        if claim.task.started_at is not None:
            _observe(self._metrics.task_seconds.observe, end.finished_at - claim.task.started_at)
        return ended


def _observe(observe: Callable[[float], None], span: timedelta) -> None:
    """Two clocks may disagree; what seems to have ended before it began took no time."""
    observe(max(0.0, span.total_seconds()))


class StreamingModel(Protocol):
    """What is counted of a model; its contract is the agent's."""

    @property
    def provider(self) -> str: ...
    def stream(self, task_id: TaskId, prompt: Prompt) -> AsyncGenerator[Piece]: ...


class MeteredModel:
    """The port `Model`: counts its calls, their times and tokens. `monotonic` is in seconds."""

    def __init__(self, model: StreamingModel, metrics: Metrics, monotonic: Callable[[], float]) -> None:
        self._model = model
        self._metrics = metrics
        self._monotonic = monotonic

    @property
    def provider(self) -> str:
        return self._model.provider

    async def stream(self, task_id: TaskId, prompt: Prompt) -> AsyncGenerator[Piece]:
        metrics, begun = self._metrics, self._monotonic()
        is_first, outcome = True, "left"  # by its reader: a cancellation, or a stop
        try:
            async with aclosing(self._model.stream(task_id, prompt)) as pieces:
                async for piece in pieces:
                    if is_first:
                        metrics.model_first_output_seconds.observe(self._monotonic() - begun)
                        is_first = False
                    if isinstance(piece, CallEnded):
                        outcome = "ok"
                        metrics.model_tokens.labels("input").inc(piece.usage.input_tokens)
                        metrics.model_tokens.labels("output").inc(piece.usage.output_tokens)
                    yield piece
        except ModelCallFailed as error:
            outcome = error.error_type if error.error_type in MESSAGES else "other"
            raise
        finally:
            metrics.model_calls.labels(outcome).inc()
            metrics.model_call_seconds.observe(self._monotonic() - begun)


class Feed(Protocol):
    """One connection's hints; the contract is the registry's."""

    async def subscribe(self, task_id: TaskId) -> None: ...
    async def unsubscribe(self, task_id: TaskId) -> None: ...
    def items(self) -> AsyncGenerator[Hint | Listening | Interrupted]: ...


class Carrier(Protocol):
    """What carries hints; the contract is the registry's."""

    def connect(self) -> AbstractAsyncContextManager[Feed]: ...


class MeteredHints:
    """The port `Hints`: sees how late they come. `clock_ms` is Unix time in milliseconds."""

    def __init__(self, hints: Carrier, metrics: Metrics, clock_ms: Callable[[], int]) -> None:
        self._hints = hints
        self._metrics = metrics
        self._clock_ms = clock_ms

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator["MeteredFeed"]:
        async with self._hints.connect() as feed:
            yield MeteredFeed(feed, self._metrics, self._clock_ms)


class MeteredFeed:
    """The port `HintFeed`."""

    def __init__(self, feed: Feed, metrics: Metrics, clock_ms: Callable[[], int]) -> None:
        self._feed = feed
        self._observe = metrics.hint_lag_seconds.observe
        self._clock_ms = clock_ms
        self.subscribe, self.unsubscribe = feed.subscribe, feed.unsubscribe

    async def items(self) -> AsyncGenerator[Hint | Listening | Interrupted]:
        async with aclosing(self._feed.items()) as items:
            async for item in items:
                if isinstance(item, Hint):
                    self._observe(max(0, self._clock_ms() - item.last.ms) / 1000)
                yield item
