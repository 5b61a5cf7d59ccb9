"""Waiting for a store that is away, for as long as one may."""

from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec, TypeVar

import structlog

from service.model.errors import StoreUnavailable, cause_of
from service.model.ids import TaskId

log = structlog.get_logger()

STORE_RETRY_SECONDS: Final = 0.25
"""Between two tries of a write whose store is away. Tries end with the lease: its holder is then stopped."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Patience:
    """What the holder of a task calls its stores with. `sleep` lets so many seconds pass."""

    def __init__(self, sleep: Callable[[float], Awaitable[object]]) -> None:
        self._sleep = sleep

    async def __call__(
        self,
        task_id: TaskId,
        call: Callable[_Arguments, Awaitable[_Result]],
        *arguments: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> _Result:
        """The call's result, as soon as its store is there: until then it is tried again, as long as the caller runs.

        That it waits is told once, and that it goes on.
        """
        away: str | None = None
        while True:
            try:
                result = await call(*arguments, **named)
            except StoreUnavailable as error:
                if away is None:
                    away = type(error).__name__
                    log.warning("turn_waits", task_id=task_id, because=away, cause=cause_of(error))
                await self._sleep(STORE_RETRY_SECONDS)
            else:
                if away is not None:
                    log.info("turn_goes_on", task_id=task_id, because=away)
                return result
