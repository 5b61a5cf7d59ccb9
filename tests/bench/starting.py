"""M14: seconds from `make run` in a fresh clone until the demo model's first answer is at its reader; then once more.

What is cloned is the HEAD of this working tree. The first start installs everything from the package cache, which one
before it has filled (not with --quick), and makes both embedded stores; the second start finds them. With uv, and with
pip, which is reported.
"""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.bench.ground import Ground
from tests.bench.processes import REPOSITORY, free_port, said, started
from tests.bench.table import Row, Target, alone, skipped
from tests.bench.turns import open_session

INSTALL_SECONDS = 300.0


async def run(ground: Ground) -> list[Row]:
    """Rows for uv, and for pip unless in a hurry."""
    rows: list[Row] = []
    uv = shutil.which("uv")
    if uv is None:
        rows.append(skipped("M14", "make run in a fresh clone, uv", "uv"))
    else:
        if not ground.quick:
            await _starts(ground, os.environ["PATH"], "warm")  # fills the cache where it is empty
        starts = [await _starts(ground, os.environ["PATH"], f"uv{number}") for number in range(ground.rounds)]
        rows += _rows("uv", starts, first=Target(6, at_least=False), second=Target(1.5, at_least=False))
    if not ground.quick:
        rows += _rows("pip", [await _starts(ground, _path_without("uv"), "pip")])
    return rows


def _rows(
    name: str, starts: list[tuple[float, float]], *, first: Target | None = None, second: Target | None = None
) -> list[Row]:
    return [
        alone("M14", f"make run in a fresh clone, {name}", "s", [cold for cold, _ in starts], first),
        alone("M14", f"the second start, {name}", "s", [warm for _, warm in starts], second),
    ]


async def _starts(ground: Ground, path: str, name: str) -> tuple[float, float]:
    """Seconds of the first and of the second start in a clone of its own."""
    async with _clone(ground, name) as clone:
        return await _seconds_to_answer(ground, clone, path), await _seconds_to_answer(ground, clone, path)


@asynccontextmanager
async def _clone(ground: Ground, name: str) -> AsyncGenerator[Path]:
    clone = ground.folder / f"clone-{name}"
    git = await asyncio.create_subprocess_exec("git", "clone", "--quiet", "--no-hardlinks", str(REPOSITORY), str(clone))
    if await git.wait():
        raise RuntimeError("the working tree cannot be cloned")
    try:
        yield clone
    finally:
        shutil.rmtree(clone)


async def _seconds_to_answer(ground: Ground, clone: Path, path: str) -> float:
    """Until the answer of a turn is there: the service stands, with its stores, its doors and its worker."""
    # PYTHONDONTWRITEBYTECODE, which containers like to set, would have every start compile every module again.
    hidden = ("PLAYHEAD_", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "MAKE", "MFLAGS", "UV_PROJECT")
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    environment |= {"PATH": path, "PLAYHEAD_HTTP_PORT": str(port), "PLAYHEAD_DATA_DIR": str(clone / "data")}
    begun = time.monotonic()
    log = ground.folder / "make.log"
    async with started(["make", "run"], log, cwd=clone, env=environment) as process, AsyncExitStack() as stack:
        await said(process, "listening on", log, INSTALL_SECONDS)
        session = await open_session(stack, port)
        await session.turn()
        return time.monotonic() - begun


def _path_without(program: str) -> str:
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if not (Path(folder) / program).exists())
