"""The command as a user runs it, loaded once a module."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PLAIN = {"TERM": "dumb", "NO_COLOR": "1"}


@dataclass(frozen=True)
class Ran:
    code: int | None
    out: str
    err: str


Command = Callable[..., Awaitable[Ran]]


@pytest.fixture(scope="module")
def loaded() -> Iterator[Path]:
    """Where a process listens that has the command loaded."""
    with tempfile.TemporaryDirectory(prefix="playhead-") as folder:
        command = (sys.executable, "-m", "tests.cli.loaded", f"{folder}/socket")
        environment = os.environ | PLAIN
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY, env=environment
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"listening\n"
            yield Path(folder, "socket")


@pytest.fixture
def playhead(loaded: Path) -> Command:
    """Run the command to its end, with these PLAYHEAD_ settings and no others."""

    async def run(folder: Path, *arguments: str, settings: Mapping[str, str] | None = None) -> Ran:
        asked = {"folder": str(folder), "environment": environment_of(settings or {}), "arguments": arguments}
        reader, writer = await asyncio.open_unix_connection(loaded, limit=1024 * 1024)
        writer.write(json.dumps(asked).encode() + b"\n")
        answer = json.loads(await reader.read())
        writer.close()
        await writer.wait_closed()
        return Ran(**answer)

    return run


def environment_of(settings: Mapping[str, str]) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PLAYHEAD_")}
    return environment | {f"PLAYHEAD_{name}": value for name, value in settings.items()} | PLAIN
