"""The example service of `deploy/examples`, as a process."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.processes import free_port

EXAMPLES = REPOSITORY / "deploy" / "examples"


@asynccontextmanager
async def render(folder: Path, *arguments: str) -> AsyncIterator[Path]:
    """The example service; yields the file that describes it to Playhead."""
    port = free_port()
    (tool,) = json.loads((EXAMPLES / "tools.json").read_text())
    tools = folder / "tools.json"
    tools.write_text(json.dumps([tool | {"url": f"http://127.0.0.1:{port}/"}]))
    process = await asyncio.create_subprocess_exec(
        sys.executable, EXAMPLES / "render.py", "--port", str(port), *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert b"listens" in await process.stdout.readline()
        yield tools
    finally:
        process.kill()
        await process.wait()
