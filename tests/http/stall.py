"""How long one request holds up all others of its process."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LONGEST_STALL_SECONDS = 0.1
"""Of this process's own time, in one turn of its loop. It is to be half of that, on a machine that has little to do."""


@asynccontextmanager
async def longest_stall() -> AsyncIterator[list[float]]:
    """How much time of the processor each turn of the loop takes while the block runs."""
    loop, took = asyncio.get_running_loop(), [0.0]
    gc.collect()
    gc.freeze()  # what hundreds of tests have left would be gone through again and again: no service holds that
    began = time.thread_time()

    def turn() -> None:
        nonlocal began, handle
        now = time.thread_time()
        took.append(now - began)
        began, handle = now, loop.call_soon(turn)

    handle = loop.call_soon(turn)
    try:
        yield took
    finally:
        handle.cancel()
        gc.unfreeze()
