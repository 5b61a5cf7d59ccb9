"""An event loop without sockets: its time passes when nothing is left to do; what is ready runs in a drawn order."""

import asyncio
import random
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class _Idle(selectors.BaseSelector):
    """Never waits: the time that a loop would have waited has passed."""

    loop: "ShuffledLoop"

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits and nothing is scheduled: a deadlock")
        self.loop.now += max(0.0, timeout)
        return []

    def get_map(self) -> dict[Any, Any]:
        return {}


class ShuffledLoop(asyncio.SelectorEventLoop):
    """Replayable by its seed."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        selector = _Idle()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        """Run this and whatever else is due meanwhile."""
        return self.run_until_complete(coroutine)

    def _run_once(self) -> None:
        ready = self._ready  # type: ignore[attr-defined]
        if len(ready) > 1:
            order = list(ready)
            self.random.shuffle(order)
            ready.clear()
            ready.extend(order)
        super()._run_once()  # type: ignore[misc]

    def _make_self_pipe(self) -> None:
        self._ssock = self._csock = None
        self._internal_fds = 0

    def _close_self_pipe(self) -> None:
        pass

    def _write_to_self(self) -> None:
        pass
