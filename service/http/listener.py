"""The way in: connections are taken from a listening socket, no more at once than this process has room for."""

import asyncio
import math
import resource
import socket
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

log = structlog.get_logger()

MAX_CONNECTIONS: Final = 10_000
RESERVED_DESCRIPTORS: Final = 100
"""For the stores, the model's connections and the process itself."""

FEWEST_CONNECTIONS: Final = 10
AT_ONCE: Final = 64
"""So many connections are taken in one turn of the loop; the others' turn comes before the next."""

BACKLOG: Final = 256
"""So many wait in the kernel until they are taken."""

REST_SECONDS: Final = 0.5
"""Where the system has no descriptor left, it is asked again after this."""

TOLD_SECONDS: Final = 60.0


def descriptors_room() -> int:
    """How many connections this process has room for: what its descriptors allow, and MAX_CONNECTIONS at most."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(FEWEST_CONNECTIONS, min(MAX_CONNECTIONS, descriptors - RESERVED_DESCRIPTORS))


class Listener:
    """Takes connections while there is room for them.

    Without room, or without a free descriptor, who comes waits in the kernel until a connection has gone, as many as
    BACKLOG; later ones are not let in, and come back by themselves. The log says so, once in TOLD_SECONDS. Nobody is
    refused: that would take a connection of its own, and an EventSource gives up at a refusal, but not at silence.
    """

    def __init__(
        self,
        listening: socket.socket,
        make: Callable[[Callable[[], None]], asyncio.Protocol],
        room: Callable[[], int],
    ) -> None:
        """What `make` makes speaks on a connection; it calls what it was given when the connection is lost."""
        self._listening = listening
        self._make = partial(make, self._leave)
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._open = 0
        self._entering: set[asyncio.Task[object]] = set()
        self._waits = False
        self._rest: asyncio.TimerHandle | None = None
        self._told_at = -math.inf

    def start(self) -> None:
        """From now on connections are taken."""
        self._listening.setblocking(False)  # noqa: FBT003  it has no name
        self._listening.listen(BACKLOG)
        self._loop.add_reader(self._listening, self._take)

    async def stop(self) -> None:
        """Take no more; returns when those that were taken can speak."""
        self._waits = False
        self._loop.remove_reader(self._listening)
        if self._rest is not None:
            self._rest.cancel()
        self._listening.close()
        await asyncio.gather(*self._entering, return_exceptions=True)

    def _take(self) -> None:
        for _ in range(AT_ONCE):
            if self._open >= self._room():
                self._wait("connections_full")
                return
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor is free, or no memory
                self._wait("connections_not_taken", error=error.strerror)
                self._rest = self._loop.call_later(REST_SECONDS, self._go_on)
                return
            self._open += 1
            entering = self._loop.connect_accepted_socket(self._make, connection)
            task: asyncio.Task[object] = self._loop.create_task(entering, name="connection")
            self._entering.add(task)
            task.add_done_callback(partial(self._entered, connection))

    def _entered(self, connection: socket.socket, task: asyncio.Task[object]) -> None:
        """Whoever could not be given a protocol will never be told as lost."""
        self._entering.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("connection_failed", error=type(error).__name__)
            connection.close()
            self._leave()

    def _wait(self, action: str, **fields: object) -> None:
        self._waits = True
        self._loop.remove_reader(self._listening)
        if self._loop.time() - self._told_at >= TOLD_SECONDS:
            self._told_at = self._loop.time()
            log.warning(action, open=self._open, **fields)

    def _leave(self) -> None:
        self._open -= 1
        if self._waits and self._rest is None:
            self._go_on()

    def _go_on(self) -> None:
        self._waits, self._rest = False, None
        self._loop.add_reader(self._listening, self._take)
