"""Servers of a benchmark: real processes, known by their ids, gone when the block ends."""

import asyncio
import resource
import signal
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[2]
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0


@asynccontextmanager
async def started(
    argv: Sequence[str], log: Path, *, cwd: Path = REPOSITORY, env: Mapping[str, str] | None = None
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A process with pipes for its input and output, its errors in a file; told to stop at the end, then killed."""
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=cwd,
            env=env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=1024 * 1024,
            start_new_session=True,  # Ctrl-C is for the benchmark, which ends its servers in order
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def said(process: asyncio.subprocess.Process, prefix: str, log: Path, seconds: float = START_SECONDS) -> str:
    """What stands behind `prefix` in the first line that begins with it."""
    assert process.stdout is not None
    async with asyncio.timeout(seconds):
        while line := (await process.stdout.readline()).decode():
            if line.startswith(prefix):
                return line.removeprefix(prefix).strip()
    raise RuntimeError(f"it ended before it said {prefix!r}: {log.read_text()[-2000:]}")


async def listening(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    """Wait until something listens on a port of the loopback."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                if process.returncode is not None:
                    raise RuntimeError(f"it did not start: {log.read_text()[-2000:]}") from None
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


def free_port() -> int:
    """A TCP port of the loopback that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def raise_descriptor_limit() -> None:
    """As many descriptors as this user may have; children inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
