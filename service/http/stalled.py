"""A client that takes nothing of what it is answered is cut off; one that goes on taking is not, however slow it is."""

import asyncio
import fcntl
import math
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LOOKS: Final = 8
"""How often a connection is looked at in the time that it has to take something."""


@contextmanager
def cut_when_stalled(transport: asyncio.Transport, seconds: float) -> Iterator[None]:
    """While the block runs, cut the connection once nothing of what waits for the client was taken for `seconds`.

    The block adds what it adds at its beginning, and an answer's end: less is waiting whenever something was taken.
    """
    loop = asyncio.get_running_loop()
    least, taken_at = math.inf, loop.time()
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal least, taken_at, timer
        waiting, now = _waiting(transport), loop.time()
        if waiting < least:
            least, taken_at = waiting, now
        elif now - taken_at >= seconds:
            transport.abort()
            return
        timer = loop.call_later(seconds / LOOKS, look)

    timer = loop.call_later(seconds / LOOKS, look)
    try:
        yield
    finally:
        timer.cancel()


def _waiting(transport: asyncio.Transport) -> int:
    """What the client has not taken: what the transport still has, and what the kernel has.

    The kernel asks the transport for more only when about a third of its own buffer is free: a slow reader takes longer
    for that than it may take. Where the kernel does not say how much it has, such a reader is cut off.
    """
    try:
        answer = fcntl.ioctl(transport.get_extra_info("socket"), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):  # it cannot say; or the connection has just been closed
        return transport.get_write_buffer_size()
    return transport.get_write_buffer_size() + int.from_bytes(answer, sys.byteorder)
