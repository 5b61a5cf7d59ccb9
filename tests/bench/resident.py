"""M8: what a reader costs that follows a log in which nothing happens, in resident memory of the service's process.

10,000 readers of ten tasks. Resident memory is read before they come and when each has had two heartbeats.
"""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from tests.bench.crowd import open_crowd
from tests.bench.ground import Ground
from tests.bench.ours import open_tasks, serving_process
from tests.bench.table import Row, Target, alone

READERS: Final = 10_000
TASKS: Final = 10
HEARTBEATS_SECONDS: Final = 31.0
TARGET: Final = Target(24, at_least=False)


async def run(ground: Ground) -> list[Row]:
    """One row."""
    readers = ground.sized(READERS, 500)
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(serving_process(ground, "--only", "http"))
        tasks = await stack.enter_async_context(open_tasks(ground))
        paths = [(await tasks.filled(10)).path for _ in range(TASKS)]
        crowds = [await stack.enter_async_context(open_crowd(ground)) for _ in range(2)]
        await crowds[0].connect(served.port, 10, paths[0])  # so that what is made once is there
        before = resident_kib(served.pid)
        file = ground.folder / "paths"
        file.write_text("\n".join((paths * readers)[: readers - 10]))
        await crowds[1].connect(served.port, readers - 10, f"@{file}")
        await asyncio.sleep(1.0 if ground.quick else HEARTBEATS_SECONDS)
        each = (resident_kib(served.pid) - before) / (readers - 10)
    await ground.clear()
    return [alone("M8", f"{readers} idle readers, each", "KiB", [each], TARGET)]


def resident_kib(pid: int) -> float:
    """A process' resident memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return float(status.partition("VmRSS:")[2].split()[0])
