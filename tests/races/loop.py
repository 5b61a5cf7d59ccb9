"""Event loops whose time passes when nothing is left to do: without sockets in a drawn order, and with sockets."""

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


class _Impatient(selectors.DefaultSelector):
    """Waits for sockets as long as something may come; the rest of the time that it was to wait has then passed."""

    def __init__(self, patience_seconds: float) -> None:
        super().__init__()
        self.passed = 0.0
        self.threads: set[object] = set()
        self._patience_seconds = patience_seconds

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.threads or timeout is None or timeout <= self._patience_seconds:
            return super().select(timeout)
        ready = super().select(self._patience_seconds)
        if not ready:
            self.passed += timeout - self._patience_seconds
        return ready


class ImpatientLoop(asyncio.SelectorEventLoop):
    """An event loop with sockets, for both ends of a connection: where both wait, time passes at once."""

    def __init__(self, patience_seconds: float = 0.02) -> None:
        self._impatient = _Impatient(patience_seconds)
        super().__init__(self._impatient)

    def time(self) -> float:
        return super().time() + self._impatient.passed

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        """Whoever waits for a thread waits in earnest."""
        running = super().run_in_executor(executor, func, *args)
        self._impatient.threads.add(running)
        running.add_done_callback(self._impatient.threads.discard)
        return running
