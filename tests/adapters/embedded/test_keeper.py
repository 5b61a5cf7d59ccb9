"""The keeper as the script that it is."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from service.adapters.embedded.kept import KEEPER
from tests.adapters.embedded.foreign import eventually, is_running, needs_linux, pid_in


async def keep(
    pid_file: Path, script: str, *, seconds: float = 5.0, number: signal.Signals = signal.SIGTERM
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", KEEPER, "run", "same", str(int(number)), str(seconds), pid_file, "/bin/sh", "-c",
        script, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def started(keeper: asyncio.subprocess.Process) -> None:
    """The script's first line says that it has come to where it waits."""
    assert keeper.stdout is not None
    assert await keeper.stdout.readline() == b"up\n"


WAIT = "echo up; n=0; while [ $n != 1000 ]; do n=$((n+1)); sleep 0.02; done"  # bounded, for when a test fails


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("exit 0", 0)])
async def test_it_ends_as_its_server_did(tmp_path: Path, script: str, code: int) -> None:
    keeper = await keep(tmp_path / "pid", script)
    assert await keeper.wait() == code
    assert not (tmp_path / "pid").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_end_of_its_input_sends_the_stop_signal(tmp_path: Path, number: signal.Signals) -> None:
    keeper = await keep(tmp_path / "pid", f"trap 'exit {int(number) + 40}' {number.name[3:]}; {WAIT}", number=number)
    await started(keeper)
    assert keeper.stdin is not None
    keeper.stdin.close()
    assert await keeper.wait() == number + 40


async def test_a_stop_that_comes_with_the_start_is_not_lost(tmp_path: Path) -> None:
    """Between its fork and its exec the server must not swallow the signal as the keeper would."""
    keepers = [await keep(tmp_path / f"pid{n}", "exec sleep 60", seconds=600) for n in range(8)]
    for keeper in keepers:
        assert keeper.stdin is not None
        keeper.stdin.close()
    async with asyncio.timeout(10):
        assert {await keeper.wait() for keeper in keepers} == {128 + signal.SIGTERM}


async def test_a_server_that_does_not_stop_is_killed_after_the_bound(tmp_path: Path) -> None:
    keeper = await keep(tmp_path / "pid", f"trap '' TERM; {WAIT}", seconds=0.3)
    await started(keeper)
    assert keeper.stdin is not None
    keeper.stdin.close()
    async with asyncio.timeout(5):
        assert await keeper.wait() == 137


async def test_an_interrupt_does_not_reach_the_server_and_a_terminate_stops_it(tmp_path: Path) -> None:
    keeper = await keep(tmp_path / "pid", f"trap 'exit 50' TERM; trap 'exit 51' INT; {WAIT}")
    await started(keeper)
    keeper.send_signal(signal.SIGINT)
    keeper.send_signal(signal.SIGHUP)
    keeper.send_signal(signal.SIGTERM)
    assert await keeper.wait() == 50


@needs_linux
async def test_the_server_goes_with_a_killed_keeper(tmp_path: Path) -> None:
    keeper = await keep(tmp_path / "pid", f"trap 'echo told > {tmp_path}/told; exit' TERM; {WAIT}")
    await started(keeper)
    server = pid_in(tmp_path / "pid")
    os.kill(keeper.pid, signal.SIGKILL)
    await keeper.wait()
    await eventually(lambda: not is_running(server), "the server is gone")
    assert (tmp_path / "told").exists()  # by the gentle signal
