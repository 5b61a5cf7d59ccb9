"""Starting the stores in another process."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.embedded.foreign import Serve, Serving

REPOSITORY = Path(__file__).parents[3]
SERVE = ("-m", "tests.adapters.embedded.serve")


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start `serve.py` on a data folder; whatever of it still runs at the end is told to leave."""
    running: list[Serving] = []

    async def start(
        data: Path, *, command: Sequence[str] = (sys.executable, *SERVE), environment: Any = None, **how: Any
    ) -> Serving:
        process = await asyncio.create_subprocess_exec(
            *command,
            str(data),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=REPOSITORY,
            env=environment,
            start_new_session=True,
            **how,
        )
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        serving = Serving(process, data, json.loads(line or b"{}"))
        running.append(serving)
        return serving

    yield start
    for serving in running:
        if serving.process.returncode is None:
            await serving.leave()
