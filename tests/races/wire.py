"""Processes that can die or be paused at any moment, and the wire between them and the stores."""

import asyncio
from collections.abc import Callable, Collection
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from service.model.errors import PlayheadError, StoreUnavailable
from tests.agent.faults import label
from tests.races.loop import PROCESS, ShuffledLoop

DEADLINE_SECONDS = 0.4
"""A call without an answer fails after this; whether it takes effect, and when, is another matter."""

USUAL_SECONDS = 0.01
SLOW_SECONDS = 0.2
SLOW_SHARE = 0.1

LATE_SECONDS = 2.0
"""So late a request may take effect whose answer is lost; as often it is not late at all."""

Strike = Callable[[str, bool], None]
"""Told of each call by its label: in front of it, and (True) when it has taken effect. It may freeze its process."""


Fate = Literal["arrives", "is lost", "is late"]


@dataclass(slots=True)
class Trouble:
    """How likely it is that a request is lost, and that its answer is, the request itself being late."""

    requests: float = 0.0
    answers: float = 0.0
    verbs: Collection[str] = ()
    """Of which calls; none is all."""

    def draw(self, verb: str, random: Callable[[], float]) -> "Fate":
        """What becomes of a call."""
        drawn = random()
        if drawn >= self.requests + self.answers or (self.verbs and verb not in self.verbs):
            return "arrives"
        return "is lost" if drawn < self.requests else "is late"


def spare(verb: str, has_happened: bool) -> None:
    """Nothing hits this process."""


@dataclass(eq=False)
class Process:
    """A process: frozen it does nothing, dead it does nothing any more. What it has sent arrives all the same."""

    loop: ShuffledLoop
    strike: Strike = spare
    context: Context = field(default_factory=copy_context)
    is_dead: bool = False

    def __post_init__(self) -> None:
        self.context.run(PROCESS.set, self)

    def kill(self) -> None:
        self.is_dead = True
        self.loop.freeze(self)

    def pause(self) -> None:
        self.loop.freeze(self)

    def wake(self) -> None:
        if not self.is_dead:
            self.loop.thaw(self)


class Wire:
    """A port as one process reaches it. The call of a process that is cut off for good is over."""

    def __init__(self, port: Any, process: Process, trouble: Trouble, away: type[StoreUnavailable]) -> None:
        self._port = port
        self._process = process
        self._loop = process.loop
        self._random = process.loop.random.random
        self._trouble = trouble
        self._away = away
        self._network = Context()
        self.is_cut = False

    def __getattr__(self, verb: str) -> Any:
        call = partial(self._call, verb)
        setattr(self, verb, call)
        return call

    async def _call(self, verb: str, *arguments: Any, **named: Any) -> Any:
        if self.is_cut:
            raise asyncio.CancelledError
        name, call = label(verb, arguments), partial(getattr(self._port, verb), *arguments, **named)
        self._process.strike(name, False)
        if self._loop.is_frozen(self._process):
            await asyncio.sleep(0)  # it has stopped in front of the call
        reply = self._loop.create_future()
        fate = self._trouble.draw(name, self._random)
        if fate == "arrives":
            self._later(self._seconds(), self._serve, name, call, reply)
        else:
            self._later(DEADLINE_SECONDS, _settle, reply, self._away())
        if fate == "is late":
            late = self._random() * LATE_SECONDS if self._random() < 0.5 else self._seconds()
            self._later(late, self._serve, name, call, None)
        return await reply

    def _seconds(self) -> float:
        return self._random() * (SLOW_SECONDS if self._random() < SLOW_SHARE else USUAL_SECONDS)

    def _later(self, seconds: float, act: Callable[..., object], *arguments: Any) -> None:
        self._loop.call_later(seconds, act, *arguments, context=self._network)

    def _serve(self, name: str, call: Callable[[], Any], reply: "asyncio.Future[Any] | None") -> None:
        if self.is_cut:
            return
        try:
            answer = at_once(call())
        except PlayheadError as error:
            answer = error
        if reply is not None:
            self._later(self._seconds(), _settle, reply, answer)
        self._process.strike(name, True)


def at_once(call: Any) -> Any:
    """What a coroutine answers that waits for nothing."""
    try:
        call.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


def _settle(reply: "asyncio.Future[Any]", answer: Any) -> None:
    if reply.done():
        return
    if isinstance(answer, PlayheadError):
        reply.set_exception(answer)
    else:
        reply.set_result(answer)
