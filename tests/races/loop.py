"""Event loops whose time passes when nothing is left to do: without sockets in a drawn order, and with sockets."""

import asyncio
import heapq
import itertools
import random
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

_Result = TypeVar("_Result")


PROCESS: ContextVar[Hashable] = ContextVar("process")
"""Whose task or callback it is, where a loop simulates several processes: said in the context of its first task."""


class _Idle(selectors.BaseSelector):
    """There are no sockets, and nobody waits."""

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return []

    def get_map(self) -> dict[Any, Any]:
        return {}


class _Due:
    """A handle without what only the debug mode of a loop asks for: there are hundreds in each run."""

    __slots__ = ("args", "callback", "context", "is_cancelled", "when_due")

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> None:
        self.when_due = when
        self.callback = callback
        self.args = args
        self.context = copy_context() if context is None else context
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True
        self.callback, self.args = _nothing, ()

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self.when_due


def _nothing() -> None:
    pass


class ShuffledLoop(asyncio.SelectorEventLoop):
    """Replayable by its seed. A process that is frozen does nothing, whatever becomes due, until it is thawed."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self._ready: deque[_Due]
        self.random = random.Random(seed)
        draw = self.random.random
        self._draw = lambda _: draw()
        self._timers: list[tuple[float, int, _Due]] = []
        self._numbers = itertools.count()
        self._frozen: dict[Hashable, list[_Due]] = {}
        super().__init__(_Idle())

    def time(self) -> float:
        return self.now

    def run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        """Run this and whatever else is due meanwhile."""
        return self.run_until_complete(coroutine)

    def freeze(self, process: Hashable) -> None:
        """From here on nothing of this process runs; what becomes due waits."""
        self._frozen.setdefault(process, [])

    def thaw(self, process: Hashable) -> None:
        """What became due meanwhile is due now, in any order."""
        self._ready.extend(self._frozen.pop(process, []))

    def is_frozen(self, process: Hashable) -> bool:
        """Whether it is."""
        return process in self._frozen

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Due:
        due = _Due(0.0, callback, args, context)
        self._ready.append(due)
        return due

    call_soon_threadsafe = call_soon  # type: ignore[assignment] - there is one thread

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Due:
        due = _Due(when, callback, args, context)
        heapq.heappush(self._timers, (when, next(self._numbers), due))
        return due

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Due:
        due = _Due(self.now + delay, callback, args, context)
        heapq.heappush(self._timers, (due.when_due, next(self._numbers), due))
        return due

    def _run_once(self) -> None:
        """The library's own, with virtual time and a drawn order. What a callback raises ends the run."""
        ready, timers = self._ready, self._timers
        match len(ready):
            case 0:
                self._pass_time()
            case 1:
                pass
            case 2:
                if self._draw(0) < 0.5:
                    ready.rotate()
            case _:
                order = sorted(ready, key=self._draw)
                ready.clear()
                ready.extend(order)
        while timers and timers[0][0] <= self.now:
            ready.append(heapq.heappop(timers)[2])
        if self._frozen:
            self._hold_back()
        for _ in range(len(ready)):
            due = ready.popleft()
            if not due.is_cancelled:
                due.context.run(due.callback, *due.args)

    def _pass_time(self) -> None:
        timers = self._timers
        while timers and timers[0][2].is_cancelled:
            heapq.heappop(timers)
        if not timers:
            raise RuntimeError("everything waits and nothing is scheduled: a deadlock")
        self.now = max(self.now, timers[0][0])

    def _hold_back(self) -> None:
        ready, held = self._ready, self._frozen
        for _ in range(len(ready)):
            due = ready.popleft()
            held.get(due.context.get(PROCESS), ready).append(due)

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
