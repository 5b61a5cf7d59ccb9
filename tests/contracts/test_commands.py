"""The ports `Commands` and `RunningCommand`: with real processes, and in memory."""

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from service.adapters.commands import Commands as RealCommands
from service.adapters.memory_commands import MemoryCommands
from service.agent.ports import Commands
from service.model.errors import CommandNotStarted, InvalidInput, TooManyCommands
from service.model.ids import SessionId
from service.model.job import CommandEnd, Exited, Signalled
from tests.adapters.embedded.foreign import eventually, needs_linux

S = SessionId("s")
TERMINATED = Signalled(signal.SIGTERM)
LONG = "echo up; sleep 1000"

Opened = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture(params=["memory", pytest.param("processes", marks=needs_linux)])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    if request.param == "memory":
        return MemoryCommands
    return lambda **bounds: RealCommands(tmp_path, **bounds)


@pytest.fixture
async def commands(opened: Opened) -> AsyncIterator[Commands]:
    async with opened() as running:
        yield running


@pytest.mark.parametrize(
    ("command", "end", "output"),
    [
        ("echo one; echo two", Exited(0), "one\ntwo\n"),
        ("echo one; exit 3; echo two", Exited(3), "one\n"),
        ("echo one; kill -9 $$; echo two", Signalled(9), "one\n"),
        ("sleep 0.01; echo late", Exited(0), "late\n"),
        ("exit 127", Exited(127), ""),
    ],
)
async def test_a_command_ends_as_it_says(commands: Commands, command: str, end: CommandEnd, output: str) -> None:
    running = await commands.start(S, "j", command)
    assert [await running.wait(), await running.wait(), await running.kill()] == [end] * 3
    assert running.output() == output


async def test_what_it_printed_is_there_while_it_runs_and_behind_its_kill(commands: Commands) -> None:
    running = await commands.start(S, "j", LONG)
    await eventually(lambda: running.output() == "up\n", "the output")
    assert [await running.kill(), await running.kill(), await running.wait()] == [TERMINATED] * 3
    assert running.output() == "up\n"


async def test_of_a_long_output_there_are_head_and_tail(commands: Commands) -> None:
    running = await commands.start(S, "j", f"echo begin {'x' * 20_000} end")
    assert await running.wait() == Exited(0)
    assert running.output().startswith("begin x")
    assert running.output().endswith("x end\n")
    assert "characters are left out.]" in running.output()
    assert len(running.output()) <= 16_000


@pytest.mark.parametrize("command", ["a\0b", "#" * 100_001])
async def test_what_no_shell_can_be_given_is_refused(commands: Commands, command: str) -> None:
    with pytest.raises(InvalidInput):
        await commands.start(S, "j", command)


@pytest.mark.parametrize("job_id", ["", "../up", "-rf", "a/b"])
async def test_an_odd_job_is_refused(commands: Commands, job_id: str) -> None:
    with pytest.raises(InvalidInput):
        await commands.start(S, job_id, "exit 0")


@pytest.mark.parametrize("session_id", ["", "../up", "é", "x" * 300])
async def test_an_odd_session_is_not(commands: Commands, session_id: str) -> None:
    assert await (await commands.start(SessionId(session_id), "j", "exit 0")).wait() == Exited(0)


async def test_a_job_runs_once_and_so_many_run_at_once(opened: Opened) -> None:
    async with opened(open_at_once=2) as commands:
        first = await commands.start(S, "j1", LONG)
        with pytest.raises(InvalidInput):
            await commands.start(S, "j1", "exit 0")
        await commands.start(S, "j2", LONG)
        with pytest.raises(TooManyCommands):
            await commands.start(S, "j3", "exit 0")
        await first.kill()
        assert await (await commands.start(S, "j1", "exit 0")).wait() == Exited(0)


async def test_who_leaves_kills_what_runs_and_starts_no_more(opened: Opened) -> None:
    async with opened() as commands:
        running = await commands.start(S, "j", LONG)
    assert await running.wait() == TERMINATED
    with pytest.raises(CommandNotStarted):
        await commands.start(S, "j", "exit 0")
