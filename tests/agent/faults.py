"""Faults at a port: the process dies there, a reply is lost there, or something breaks there.

A `Watched` port passes every call on, and asks a `Fault` in front of and behind each.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from service.model.log import Batch


def label(verb: str, arguments: tuple[Any, ...]) -> str:
    """What a call is called in a test: its verb; an append that holds the terminal event is the verb `finish`."""
    if verb == "append" and any(batch.terminal for batch in arguments[0] if isinstance(batch, Batch)):
        return "finish"
    return verb


@dataclass
class Fault:
    """Nothing goes wrong, but every call is written down."""

    calls: list[str] = field(default_factory=list)

    async def before(self, verb: str) -> None:
        self.calls.append(verb)

    async def behind(self, verb: str) -> None:
        pass


@dataclass
class Death(Fault):
    """The process dies in front of or behind its n-th call: nothing after that happens. `died` tells."""

    at: int = 0
    is_behind: bool = False
    died: asyncio.Event = field(default_factory=asyncio.Event)

    async def before(self, verb: str) -> None:
        await super().before(verb)
        if not self.is_behind:
            await self._die(is_it=len(self.calls) - 1 == self.at)

    async def behind(self, verb: str) -> None:
        if self.is_behind:  # another call may have begun meanwhile
            await self._die(is_it=0 <= self.at < len(self.calls) and self.calls[self.at] == verb)

    async def _die(self, *, is_it: bool) -> None:
        if self.died.is_set() or is_it:
            self.died.set()
            await asyncio.Event().wait()


@dataclass
class Once(Fault):
    """The first call of one verb raises, in front of it or behind; or something else is done there."""

    verb: str = ""
    act: Callable[[], object] = lambda: None
    is_behind: bool = False
    done: bool = False

    async def before(self, verb: str) -> None:
        await super().before(verb)
        if not self.is_behind:
            self._act(verb)

    async def behind(self, verb: str) -> None:
        if self.is_behind:
            self._act(verb)

    def _act(self, verb: str) -> None:
        if verb == self.verb and not self.done:
            self.done = True
            self.act()


@dataclass
class Pause(Fault):
    """Whoever calls one verb waits in front of it until `go_on`, once."""

    verb: str = ""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def before(self, verb: str) -> None:
        await super().before(verb)
        if verb == self.verb:
            self.arrived.set()
            await self.go_on.wait()


class Watched:
    """A port with a fault."""

    def __init__(self, port: Any, fault: Fault) -> None:
        self._port = port
        self._fault = fault

    def __getattr__(self, verb: str) -> Any:
        call = getattr(self._port, verb)

        async def watched(*arguments: Any, **named: Any) -> Any:
            name = label(verb, arguments)
            await self._fault.before(name)
            result = await call(*arguments, **named)
            await self._fault.behind(name)
            return result

        return watched
