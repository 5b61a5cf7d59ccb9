"""The service as a user starts it: a real process, known by what it prints."""

import asyncio
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

START_SECONDS = 30.0
STOP_SECONDS = 30.0


def http_to(url: str, timeout_seconds: float) -> httpx.AsyncClient:
    """A client of a door. It speaks no TLS: loading the certificates for it takes longer than its requests."""
    return httpx.AsyncClient(base_url=url, timeout=timeout_seconds, verify=False)


def free_port() -> int:
    """A port that nobody listens on, and below those that the kernel gives to whoever connects: it stays free."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


@dataclass(slots=True)
class Service:
    """A running `playhead serve`."""

    process: asyncio.subprocess.Process
    lines: list[str]
    """What it printed on its standard output until it was ready."""
    log: Path
    """Its standard error."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._said("listening on")

    @property
    def redis_url(self) -> str:
        return self._said("redis")

    @property
    def postgres_url(self) -> str:
        return self._said("postgres")

    def _said(self, prefix: str) -> str:
        return next(line.removeprefix(prefix).strip() for line in self.lines if line.startswith(prefix))

    async def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Tell it to stop and wait until it has; answers its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal_number)
        async with asyncio.timeout(STOP_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def serve(
    log: Path, settings: Mapping[str, str], *arguments: str, ready: str = "listening on"
) -> AsyncIterator[Service]:
    """Start `playhead serve` with these PLAYHEAD_ settings (names without the prefix), stop it at the end.

    Ready when it prints a line that begins with `ready`: "listening on", or "model" for a worker alone.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PLAYHEAD_")}
    environment |= {f"PLAYHEAD_{name}": value for name, value in ({"HTTP_PORT": "0"} | dict(settings)).items()}
    with log.open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "service",
            "serve",
            *arguments,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            cwd=log.parent,
        )
    service = Service(process, [], log)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            while not (service.lines and service.lines[-1].startswith(ready)):
                line = await process.stdout.readline()
                assert line, f"the service did not start: {log.read_text()}"
                service.lines.append(line.decode().rstrip())
        yield service
    finally:
        await service.stop(signal.SIGKILL if process.returncode is None and not service.lines else signal.SIGTERM)
