"""One model call, with an end whatever the model does."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from service.agent.ports import Model
from service.model.failures import ModelCallFailed
from service.model.generation import Piece, Prompt
from service.model.ids import TaskId

MAX_SILENCE_SECONDS: Final = 300.0
"""Without a piece the call ends as a `timeout`, though its connection may show signs of life."""

MAX_CALL_SECONDS: Final = 3600.0
"""Of one call, however steadily it speaks; beyond it, it ends as a `timeout` that is not tried again."""


async def pieces_of(model: Model, task_id: TaskId, prompt: Prompt) -> AsyncGenerator[Piece]:
    """The pieces of one call, as the model says them. Raises ModelCallFailed.

    What the caller does with a piece is not the model's silence: it may wait for a store in the meantime.
    """
    now = asyncio.get_running_loop().time
    latest = now() + MAX_CALL_SECONDS
    async with aclosing(model.stream(task_id, prompt)) as pieces:
        while (piece := await _next(pieces, now() + MAX_SILENCE_SECONDS, latest)) is not None:
            yield piece


async def _next(pieces: AsyncGenerator[Piece], until: float, latest: float) -> Piece | None:
    try:
        async with asyncio.timeout_at(min(until, latest)) as patience:
            return await anext(pieces, None)
    except TimeoutError as error:
        if not patience.expired():
            raise
        raise ModelCallFailed("timeout", is_retryable=until < latest) from error
