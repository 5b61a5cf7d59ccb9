"""Ports that are traced on the way to the real ones, so that nobody inside has to know of it."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol

from service.model.errors import StoreUnavailable
from service.model.generation import CallEnded, Piece, Prompt
from service.model.ids import Epoch, TaskId
from service.model.log import AppendResult, Batch, Fenced, Head, Opened, Page, Stored
from service.model.position import Position
from service.model.task import Claim

if TYPE_CHECKING:
    from service.adapters.tracing import Tracing


class Logs(Protocol):
    """What is traced of a log store; its contract is the registry's."""

    async def open(self, task_id: TaskId, epoch: Epoch, floor: Position) -> Opened | Fenced: ...
    async def append(self, batches: Sequence[Batch]) -> Sequence[AppendResult]: ...
    async def read(self, task_id: TaskId, after: Position, count: int) -> Page: ...
    async def head(self, task_id: TaskId) -> Head: ...


class TracedLogs:
    """The port `LogStore`: each batch that is sent is a span of whoever wrote it."""

    def __init__(self, logs: Logs, tracing: "Tracing") -> None:
        self._logs = logs
        self._tracing = tracing
        self.open, self.read, self.head = logs.open, logs.read, logs.head

    async def append(self, batches: Sequence[Batch]) -> Sequence[AppendResult]:
        begun_ns = time.time_ns()
        try:
            results = await self._logs.append(batches)
        except StoreUnavailable as error:
            for batch in batches:
                self._note(batch, begun_ns, type(error).__name__)
            raise
        for batch, result in zip(batches, results, strict=True):
            self._note(batch, begun_ns, None if isinstance(result, Stored) else type(result).__name__)
        return results

    def _note(self, batch: Batch, begun_ns: int, failure: str | None) -> None:
        if batch.trace is not None:
            attributes: dict[str, str | int] = {
                "playhead.task_id": batch.task_id,
                "playhead.last_position": str(batch.last),
                "playhead.events": batch.last.n - batch.before.n,
            }
            self._tracing.note_append(batch.trace, begun_ns, failure, attributes)


class StreamingModel(Protocol):
    """What is traced of a model; its contract is the agent's."""

    @property
    def provider(self) -> str: ...
    def stream(self, task_id: TaskId, prompt: Prompt) -> AsyncGenerator[Piece]: ...


class TracedModel:
    """The port `Model`: each call is a span of the turn."""

    def __init__(self, model: StreamingModel, tracing: "Tracing") -> None:
        self._model = model
        self._tracing = tracing

    @property
    def provider(self) -> str:
        return self._model.provider

    async def stream(self, task_id: TaskId, prompt: Prompt) -> AsyncGenerator[Piece]:
        attributes = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": self._model.provider}
        with self._tracing.call("model call", attributes) as span:
            async with aclosing(self._model.stream(task_id, prompt)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, CallEnded):
                        span.set_attribute("gen_ai.usage.input_tokens", piece.usage.input_tokens)
                        span.set_attribute("gen_ai.usage.output_tokens", piece.usage.output_tokens)
                    yield piece


class Runs(Protocol):
    """What is traced of turns; its contract is the agent's."""

    async def run(self, claim: Claim, retake: Callable[[Claim], Awaitable[Claim]], cancellation: Any) -> bool: ...


class TracedTurns:
    """Turns, each run a span in the trace of the request that posted its message."""

    def __init__(self, turns: Runs, tracing: "Tracing") -> None:
        self._turns = turns
        self._tracing = tracing

    async def run(self, claim: Claim, retake: Callable[[Claim], Awaitable[Claim]], cancellation: Any) -> bool:
        attributes: dict[str, str | int] = {
            "playhead.task_id": claim.task.id,
            "playhead.session_id": claim.task.session_id,
            "playhead.epoch": claim.epoch,
        }
        with self._tracing.work("turn", claim.trace, attributes):
            return await self._turns.run(claim, retake, cancellation)
