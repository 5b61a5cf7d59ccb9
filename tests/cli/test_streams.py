"""Standard streams that are closed, full, or a pipe whose reader is gone: a service goes on, a command says so."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from service.wiring import StoreUrls
from tests.processes import free_port

GONE = {
    "stderr has no reader": "2> >(exec true)",
    "stderr is full": "2>/dev/full",
    "stderr is closed": "2>&-",
    "stdout has no reader": "> >(exec true)",
    "stdout is full": ">/dev/full",
    "stdout is closed": ">&-",
    "all are closed": "<&- >&- 2>&-",
}


async def shell(folder: Path, command: str, settings: dict[str, str]) -> asyncio.subprocess.Process:
    """Run a line of bash, in which `playhead` is the command."""
    environment = os.environ | {f"PLAYHEAD_{name}": value for name, value in settings.items()}
    script = command.replace("playhead", f"{sys.executable} -m service")
    return await asyncio.create_subprocess_exec(
        *("bash", "-c", script),
        env=environment | {"TERM": "dumb", "NO_COLOR": "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    """Its exit code, and what it said on stderr."""
    async with asyncio.timeout(30):
        _, err = await process.communicate()
    return process.returncode, err.decode()


async def answering(url: str) -> None:
    async with asyncio.timeout(20), aiohttp.ClientSession() as http:
        while True:
            try:
                await http.get(f"{url}/healthz")
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)
            else:
                return


async def answer(http: aiohttp.ClientSession, text: str) -> str:
    """Say this in a session of its own; answers the whole stream."""
    session = await (await http.post("/sessions", json={})).json()
    accepted = await (await http.post(f"/sessions/{session['id']}/messages", json={"text": text})).json()
    return await (await http.get(accepted["stream"])).text()


@pytest.mark.parametrize("redirection", GONE.values(), ids=GONE)
async def test_the_service_goes_on_without_its_streams(
    tmp_path: Path, stores: StoreUrls, postgres_url: str, redirection: str
) -> None:
    """It takes turns, which it logs, and stops when it is told to."""
    port = free_port()
    settings = {"HTTP_PORT": str(port), "REDIS_URL": stores.redis, "POSTGRES_URL": postgres_url}
    process = await shell(tmp_path, f"exec playhead serve {redirection}", settings)
    try:
        url = f"http://127.0.0.1:{port}"
        await answering(url)
        async with aiohttp.ClientSession(url) as http:
            for _ in range(2):
                assert (await answer(http, "/say hello")).endswith("data: [DONE]\n\n")
        process.send_signal(signal.SIGTERM)
        code, err = await ended(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert code == 0, err
    assert "Traceback" not in err
    assert "Error" not in err


async def test_a_command_whose_output_cannot_be_written_says_so(tmp_path: Path) -> None:
    commands = [f"exec playhead schema print {gone}" for gone in (">/dev/full", ">&-", "> >(exec true)")]
    for code, err in await ran(tmp_path, commands, {}):
        assert (code, err.count("\n")) == (2, 1), err
        assert err.startswith("playhead: standard output: ")


async def test_a_line_that_cannot_be_written_changes_no_exit_code(tmp_path: Path) -> None:
    commands = [f"exec playhead serve {gone}" for gone in ("2>/dev/full", "2>&-", "2> >(exec true)")]
    assert await ran(tmp_path, commands, {"HTTP_PORT": "x"}) == [(2, "")] * 3


async def ran(folder: Path, commands: list[str], settings: dict[str, str]) -> list[tuple[int | None, str]]:
    """How each of them ended; they run at the same time."""
    processes = [await shell(folder, command, settings) for command in commands]
    return await asyncio.gather(*map(ended, processes))
