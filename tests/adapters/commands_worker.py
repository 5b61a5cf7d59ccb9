"""A worker that runs one command and says so; what it measures of itself it prints at the end.

python -m tests.adapters.commands_worker WORKSPACE GRACE_SECONDS COMMAND
"""

import asyncio
import resource
import sys
from pathlib import Path

from service.adapters.commands import Commands


async def work(workspace: Path, grace_seconds: float, command: str) -> None:
    async with Commands(workspace, grace_seconds=grace_seconds) as commands:
        warm = await commands.start("s", "warm", "true")
        await warm.wait()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        running = await commands.start("s", "job", command)
        print("started", flush=True)
        await running.wait()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(grown, running.output().splitlines()[-1], flush=True)


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]))
