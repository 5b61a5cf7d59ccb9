"""Restarts and their bound, with small programs in place of servers."""

import asyncio
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.adapters.embedded import supervised
from service.adapters.embedded.kept import Ground, Program, run_kept
from service.adapters.embedded.supervised import SupervisedServer
from service.model.errors import ConfigurationError
from tests.adapters.embedded.foreign import eventually, is_running, needs_linux, parent_of, pid_in


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path, os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT), str(tmp_path))


def shell(script: str) -> Program:
    return Program("server", ("/bin/sh", "-c", script), signal.SIGTERM)


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


async def test_a_server_that_ends_at_once_says_why(ground: Ground) -> None:
    server = SupervisedServer(shell("echo FATAL:  no room; echo good-bye; exit 3"), ground, no)
    async with asyncio.timeout(5):
        with pytest.raises(ConfigurationError, match=r"server cannot start: no room$"):
            await server.start()
    await server.stop()


async def test_a_program_that_is_not_there_says_so(ground: Ground) -> None:
    server = SupervisedServer(Program("server", ("/no/such/program",), signal.SIGTERM), ground, no)
    with pytest.raises(ConfigurationError, match="cannot run /no/such/program: .*No such file"):  # noqa: RUF043
        await server.start()
    await server.stop()


async def test_a_server_that_never_answers_is_given_up(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "READY_SECONDS", 0.3)
    server = SupervisedServer(shell("exec sleep 60"), ground, no)
    with pytest.raises(ConfigurationError, match="server did not answer within"):
        await server.start()
    assert not (ground.data / "server.pid").exists()
    await server.stop()


async def test_restarts_are_bounded_and_the_last_word_is_said_once(ground: Ground) -> None:
    server = SupervisedServer(shell("echo x >> starts; exit 3"), ground, yes, pauses=(0.0, 0.01, 0.02))
    with capture_logs() as logs:
        await server.start()
        await eventually(lambda: any(e["event"] == "embedded_server_left_down" for e in logs), "left down")
        await server.stop()
    assert (ground.data / "starts").read_text().split() == ["x"] * 4
    assert [e["event"] for e in logs].count("embedded_server_died") == 4
    assert {key: value for key, value in logs[-1].items() if key in ("event", "server", "restarts")} == {
        "event": "embedded_server_left_down",
        "server": "server",
        "restarts": 3,
    }


async def test_another_one_starts_only_when_all_of_the_dead_one_is_gone(ground: Ground) -> None:
    child = "(n=0; until [ -e go ] || [ $n = 1000 ]; do n=$((n+1)); sleep 0.02; done; sleep 0.5; touch gone) &"
    second = "if [ -e gone ]; then echo alone > word; else echo together > word; fi; mv word second; exec sleep 60"
    script = f"if [ -e first ]; then {second}; fi; touch first; {child} exit 3"
    server = SupervisedServer(shell(script), ground, yes)
    with capture_logs() as logs:
        await server.start()
        await eventually(lambda: any(e["event"] == "embedded_server_died" for e in logs), "it died")
        await eventually(lambda: not (ground.data / "server.pid").exists(), "it is gone, its child is not")
        (ground.data / "go").touch()
        await eventually((ground.data / "second").exists, "the second one")
        await server.stop()
    assert (ground.data / "second").read_text() == "alone\n"


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """As in a service with as many readers as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    taken: list[int] = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_server_that_dies_while_there_are_no_descriptors_is_started_when_there_are(
    ground: Ground,
) -> None:
    starts = ground.data / "starts"
    starts.touch()
    script = "echo x >> starts; exec sleep 60"
    server = SupervisedServer(shell(script), ground, yes, pauses=(0.0, *[0.05] * 200))
    with capture_logs() as logs:
        await server.start()
        await eventually(lambda: pid_in(ground.data / "server.pid") != 0, "the pid file")
        await eventually(lambda: starts.read_text().split() == ["x"], "it has said so")
        pid = pid_in(ground.data / "server.pid")
        with no_descriptors_left():
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda: [e["event"] for e in logs].count("embedded_server_restart_failed") > 2, "tries")
        await eventually(lambda: logs[-1]["event"] == "embedded_server_restarted", "it is back")
        await eventually(lambda: starts.read_text().split() == ["x"] * 2, "once")
        await server.stop()
    assert [e["event"] for e in logs].count("embedded_server_died") == 1
    assert "Too many open files" in logs[1]["reason"]


async def test_whatever_a_restart_fails_with_the_watch_goes_on(ground: Ground) -> None:
    asked = 0

    async def answers() -> bool:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise LookupError("a mistake of ours")
        return True

    server = SupervisedServer(shell("echo x >> starts; exec sleep 60"), ground, answers)
    with capture_logs() as logs:
        await server.start()
        await eventually(lambda: pid_in(ground.data / "server.pid") != 0, "the pid file")
        os.kill(pid_in(ground.data / "server.pid"), signal.SIGKILL)
        await eventually(lambda: any(e["event"] == "embedded_server_restart_failed" for e in logs), "it failed")
        await server.stop()
    assert [e["event"] for e in logs if e.get("exc_info")] == ["embedded_server_restart_failed"]


async def test_stopping_during_a_pause_ends_the_watch(ground: Ground) -> None:
    server = SupervisedServer(shell("exit 3"), ground, yes, pauses=(600.0,))
    with capture_logs() as logs:
        await server.start()
        await eventually(lambda: any(e["event"] == "embedded_server_died" for e in logs), "it died")
        async with asyncio.timeout(5):
            await server.stop()
            await server.stop()  # a repeat does nothing


@needs_linux
async def test_the_pid_file_of_a_killed_keeper_goes_with_its_server(ground: Ground) -> None:
    server = SupervisedServer(shell("exec sleep 60"), ground, yes, pauses=(600.0,))
    with capture_logs():
        await server.start()
        await eventually(lambda: pid_in(ground.data / "server.pid") != 0, "the pid file")
        os.kill(parent_of(pid_in(ground.data / "server.pid")), signal.SIGKILL)
        await server.stop()
    assert not (ground.data / "server.pid").exists()


async def test_a_stop_is_gentle_first(ground: Ground) -> None:
    server = SupervisedServer(
        shell("trap 'echo stopped > how; exit 0' TERM; while :; do sleep 0.05; done"), ground, yes
    )
    await server.start()
    await eventually(lambda: pid_in(ground.data / "server.pid") != 0, "the pid file")
    pid = pid_in(ground.data / "server.pid")
    await eventually(lambda: "trap" in Path(f"/proc/{pid}/cmdline").read_text(), "the shell")
    await server.stop()
    assert not is_running(pid)
    assert not (ground.data / "server.pid").exists()


async def test_a_log_over_its_bound_is_emptied_at_the_start(ground: Ground) -> None:
    (ground.data / "server.log").write_bytes(b"old\n" * (1 << 19))
    await run_kept(shell("echo new"), ground, 5)
    assert (ground.data / "server.log").read_text() == "new\n"
    await run_kept(shell("echo newer"), ground, 5)
    assert (ground.data / "server.log").read_text() == "new\nnewer\n"


async def test_a_program_that_takes_too_long_is_stopped(ground: Ground) -> None:
    with pytest.raises(ConfigurationError, match="server did not end within 0 seconds"):
        await run_kept(shell("exec sleep 60"), ground, 0.2)
    assert not (ground.data / "server.pid").exists()
