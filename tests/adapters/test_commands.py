"""Background commands, with real processes."""

import asyncio
import hashlib
import os
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.adapters.commands import Commands, Running, session_folder
from service.adapters.commands.excerpt import MAX_CHARACTERS, Excerpt
from service.adapters.commands.folders import checked_name
from service.adapters.commands.runner import MAX_COMMAND_BYTES
from service.model.errors import CommandNotStarted, InvalidInput, TooManyCommands
from service.model.job import Exited, Lost, Signalled
from tests.adapters.embedded.foreign import eventually, is_running, needs_linux, parent_of

pytestmark = needs_linux

TERMINATED, KILLED = Signalled(signal.SIGTERM), Signalled(signal.SIGKILL)

WAIT = "while :; do sleep 0.05; done"
"""Until it is killed; without end, since nothing that we start may be left."""


@asynccontextmanager
async def opened(workspace: Path, open_at_once: int = 16, grace_seconds: float = 5.0) -> AsyncIterator[Commands]:
    """With a bound for what a test waits for, and a look at what is left open."""
    descriptors = set(os.listdir("/proc/self/fd"))
    async with asyncio.timeout(30):
        async with Commands(workspace, open_at_once=open_at_once, grace_seconds=grace_seconds) as commands:
            yield commands
    assert set(os.listdir("/proc/self/fd")) == descriptors


@pytest.fixture
async def commands(tmp_path: Path) -> AsyncIterator[Commands]:
    async with opened(tmp_path / "work") as open_commands:
        yield open_commands


async def printed(running: Running, count: int) -> list[str]:
    """The first words that it prints, when they are whole."""
    await eventually(lambda: running.output().count("\n") >= count, f"{count} lines of output")
    return running.output().split()


def warden_of(main: str) -> int:
    return parent_of(int(main))


@pytest.mark.parametrize(
    ("command", "end", "output"),
    [
        ("echo out; echo err >&2; echo out", Exited(0), "out\nerr\nout\n"),
        ("exit 3", Exited(3), ""),
        ("exit 137", Exited(137), ""),
        ("kill -9 $$", KILLED, ""),
        ("kill -SEGV $$", Signalled(signal.SIGSEGV), ""),
        ("cat; read line || echo no input", Exited(0), "no input\n"),
        ("-x", Exited(127), None),
        ("nothing-of-this-name", Exited(127), None),
    ],
)
async def test_a_command_ends_as_its_shell_does(
    commands: Commands, command: str, end: Exited | Signalled, output: str | None
) -> None:
    running = await commands.start("s", "j", command)
    assert await running.wait() == end
    assert await running.wait() == end
    assert output is None or running.output() == output


async def test_it_runs_in_its_session_s_folder_which_is_for_nobody_else(commands: Commands, tmp_path: Path) -> None:
    running = await commands.start("session-1", "j", "umask 022; pwd; echo $HOME; touch made")
    assert await running.wait() == Exited(0)
    folder = tmp_path / "work" / "session-1"
    assert running.output().split() == [str(folder), str(folder)]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "made").exists()


async def test_it_has_nothing_of_the_service_s(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYHEAD_MODEL_KEY", "hunter2")
    monkeypatch.setenv("BASH_ENV", "/nowhere")
    inherited = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    # The folder is listed without a pipe, which would be open in there while it is laid.
    script = "env -0 | tr '\\0' '\\n' | cut -d= -f1 | sort | tr '\\n' ' '; ls -m /proc/$$/fd; ulimit -Hc"
    running = await commands.start("s", "j", script)
    assert await running.wait() == Exited(0)
    os.close(inherited)
    names, *rest = running.output().partition(" 0, 1, 2")
    assert set(names.split()) <= {"HOME", "LANG", "PATH", "PWD", "OLDPWD", "SHLVL", "_"}
    assert "".join(rest).split() == ["0,", "1,", "2", "0"]


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "/etc", "a/b", "-rf", ".x", "a\0b", "a\n", "é", "x" * 129])
async def test_an_id_that_leads_elsewhere_leads_nowhere(commands: Commands, tmp_path: Path, name: str) -> None:
    """A job of it is refused; a session of it has a folder that no other has."""
    with pytest.raises(InvalidInput):
        await commands.start("s", name, "true")
    assert list(tmp_path.iterdir()) == []
    running = await commands.start(name, "j", "pwd")
    assert await running.wait() == Exited(0)
    (folder,) = (tmp_path / "work").iterdir()
    assert folder.name == "_" + hashlib.sha256(name.encode()).hexdigest()
    assert running.output() == f"{folder}\n"


def test_a_session_whose_id_no_unicode_has_has_a_folder_too(tmp_path: Path) -> None:
    folder = session_folder(tmp_path, "\ud800")
    assert folder.is_dir()
    with pytest.raises(InvalidInput):
        checked_name(folder.name)  # so no other session is called so


async def test_a_folder_that_is_a_link_is_refused(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "s").symlink_to("/tmp")
    (tmp_path / "work" / "t").write_text("a file")
    for session_id in ("s", "t"):
        with pytest.raises(CommandNotStarted):
            await commands.start(session_id, "j", "true")


@pytest.mark.parametrize("command", ["a\0b", "#" * (MAX_COMMAND_BYTES + 1), "\ud800"])
async def test_a_command_that_no_shell_can_be_given_is_refused(commands: Commands, command: str) -> None:
    with pytest.raises(InvalidInput):
        await commands.start("s", "j", command)


async def test_the_longest_command_runs(commands: Commands) -> None:
    running = await commands.start("s", "j", "true #".ljust(MAX_COMMAND_BYTES, "x"))
    assert await running.wait() == Exited(0)


async def test_of_a_long_output_there_are_head_and_tail_and_how_much_is_between(commands: Commands) -> None:
    running = await commands.start("s", "j", "seq 1 20000")
    assert await running.wait() == Exited(0)
    whole = "".join(f"{n}\n" for n in range(1, 20001))
    head, note, tail = running.output().partition("\n[")
    left_out, _, tail = (note + tail).removeprefix("\n[").partition(" characters are left out.]\n")
    assert whole == head + whole[len(head) : len(head) + int(left_out)] + tail
    assert MAX_CHARACTERS - 64 <= len(running.output()) <= MAX_CHARACTERS


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_an_excerpt_is_whole_up_to_its_bound_however_it_comes(size: int) -> None:
    whole = ("é€😀 " * (MAX_CHARACTERS // 4)).encode()
    excerpt = Excerpt()
    for start in range(0, len(whole), size):
        excerpt.take(whole[start : start + size])
    assert excerpt.text() == whole.decode()
    excerpt.take(b"!\xf0\x9f")
    excerpt.end()
    assert excerpt.text().endswith("é€😀 !\ufffd")
    assert "characters are left out.]" in excerpt.text()
    assert len(excerpt.text()) <= MAX_CHARACTERS


async def test_junk_is_text_without_nul(commands: Commands) -> None:
    running = await commands.start("s", "j", r"printf 'a\0b\377\376c\303('; head -c 99999 /dev/urandom; printf 'z\303'")
    assert await running.wait() == Exited(0)
    text = running.output()
    assert text.startswith("a\ufffdb\ufffd\ufffdc\ufffd(")
    assert text.endswith("z\ufffd")
    assert "\0" not in text
    text.encode()


async def test_ten_million_lines_take_no_room(tmp_path: Path) -> None:
    async with worker(tmp_path, "seq 10000000", grace_seconds=5) as process:
        assert process.stdout is not None
        _, measured = await process.stdout.readline(), await process.stdout.readline()
    grown_kib, last = measured.split()
    assert last == b"10000000"
    assert int(grown_kib) < 8 * 1024  # of 79 MB that were printed


async def test_what_waits_in_the_pipe_at_the_end_is_read(commands: Commands) -> None:
    """Also of one that was made larger, where nobody could read until all had ended."""
    script = "import fcntl, os; fcntl.fcntl(1, 1031, 1 << 20); os.write(1, b'x' * 1_000_000 + b'end')"
    running = await commands.start("s", "j", f'{sys.executable} -I -S -c "{script}"')
    while is_running(running._warden.pid):
        time.sleep(0.01)  # noqa: ASYNC251 - the loop is to stand still
    assert await running.wait() == Exited(0)
    assert running.output().endswith("xend")


async def test_output_is_there_while_it_runs(commands: Commands) -> None:
    running = await commands.start("s", "j", f"echo first; {WAIT}")
    assert await printed(running, 1) == ["first"]
    assert not running.ended.done()
    assert await running.kill() == TERMINATED


async def test_it_ends_with_its_main_process_and_nothing_that_it_started_is_left(commands: Commands) -> None:
    """Whether they keep the output open, ignore signals, or left the group and the session."""
    away = "setsid sh -c 'echo $$; touch away; sleep 1000 & wait' & while [ ! -e away ]; do sleep 0.02; done"
    running = await commands.start("s", "j", f"({WAIT}) & echo $!; (trap '' TERM; {WAIT}) & echo $!; {away}")
    assert await running.wait() == Exited(0)
    pids = [int(pid) for pid in running.output().split()]
    assert len(pids) == 3
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


DAEMON = """import os, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.setsid()
for fd in range(3): os.close(fd)
open("daemon", "w").write(f"{os.getpid()}\\n")
time.sleep(1000)"""
"""As daemons do: forks twice, leaves the session, keeps nothing open."""


async def test_a_kill_reaches_a_daemon_and_lets_it_go_by_itself(tmp_path: Path) -> None:
    (tmp_path / "work" / "s").mkdir(parents=True)
    (tmp_path / "work" / "s" / "daemon.py").write_text(DAEMON)
    async with opened(tmp_path / "work", grace_seconds=20) as commands:
        running = await commands.start("s", "j", f"{sys.executable} -I -S daemon.py; {WAIT}")
        daemon = await daemon_of(tmp_path)
        async with asyncio.timeout(15):
            assert await running.kill() == TERMINATED
        assert not Path(f"/proc/{daemon}").exists()


async def daemon_of(tmp_path: Path) -> int:
    path = tmp_path / "work" / "s" / "daemon"
    await eventually(lambda: path.exists() and path.read_text().endswith("\n"), "the daemon runs")
    return int(path.read_text())


async def test_a_kill_lets_it_clean_up(commands: Commands) -> None:
    running = await commands.start("s", "j", f"trap 'echo cleaned; exit 4' TERM; echo up; {WAIT}")
    await printed(running, 1)
    assert await running.kill() == Exited(4)
    assert running.output().endswith("\ncleaned\n")


async def test_in_its_grace_the_others_of_its_group_clean_up_too(commands: Commands) -> None:
    child = f"(trap 'sleep 0.1; echo cleaned; exit' TERM; echo up; {WAIT})"
    running = await commands.start("s", "j", f"{child} & wait")
    await printed(running, 1)
    assert await running.kill() == TERMINATED
    assert running.output().endswith("\ncleaned\n")


async def test_who_ignores_it_is_killed_after_the_grace(tmp_path: Path) -> None:
    async with opened(tmp_path, grace_seconds=0.2) as commands:
        running = await commands.start("s", "j", f"trap '' TERM; echo $$; {WAIT}")
        await printed(running, 1)
        assert await running.kill() == KILLED
        assert not Path(f"/proc/{running.output().strip()}").exists()


async def test_a_kill_may_be_repeated_at_once_and_behind_the_end(tmp_path: Path) -> None:
    async with opened(tmp_path, grace_seconds=0.2) as commands:
        running = await commands.start("s", "j", f"trap '' TERM; echo up; {WAIT}")
        await printed(running, 1)
        assert await asyncio.gather(running.kill(), running.kill(), running.wait()) == [KILLED] * 3
        assert await running.kill() == KILLED
        ended = await commands.start("s", "k", "exit 5")
        assert await ended.wait() == Exited(5)
        assert await ended.kill() == Exited(5)


async def test_a_kill_whose_waiting_is_cancelled_is_done(commands: Commands) -> None:
    running = await commands.start("s", "j", WAIT)
    waiting, killing = asyncio.create_task(running.wait()), asyncio.create_task(running.kill())
    await asyncio.sleep(0)
    waiting.cancel()
    killing.cancel()
    assert await running.wait() == TERMINATED


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    """Wherever the cancellation comes: each turn of the loop is another place."""
    async with opened(tmp_path, open_at_once=1) as commands:
        for turns in (0, 1, 2, 3, 5, 8, 200):
            marker = f"{tmp_path.name}-{turns}"
            starting = asyncio.create_task(commands.start("s", marker, f": {marker}; {WAIT}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            starting.cancel()
            await asyncio.wait([starting])
            assert starting.cancelled()
            await eventually(lambda marker=marker: not named(marker), "nothing is left")
            running = None
            while running is None:
                try:
                    running = await commands.start("s", "next", "true")
                except TooManyCommands:
                    await asyncio.sleep(0.01)
            assert await running.wait() == Exited(0)


def named(marker: str) -> list[int]:
    """The processes whose command line holds the marker."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if marker.encode() in command_line(pid)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


async def test_sixteen_run_at_once_each_for_itself_and_no_more(commands: Commands) -> None:
    script = "echo {n}; while [ ! -e go ]; do sleep 0.05; done; exit {n}"
    runs = await asyncio.gather(*(commands.start("s", f"j{n}", script.format(n=n)) for n in range(16)))
    with pytest.raises(TooManyCommands):
        await commands.start("s", "one-more", "true")
    with pytest.raises(InvalidInput):
        await commands.start("s", "j3", "true")
    await asyncio.gather(*(printed(running, 1) for running in runs))
    go = await asyncio.gather(*(running.kill() for running in runs[8:]))
    assert set(go) == {TERMINATED}
    assert await (await commands.start("s", "go", "touch go")).wait() == Exited(0)
    assert [await running.wait() for running in runs[:8]] == [Exited(n) for n in range(8)]
    assert [running.output() for running in runs] == [f"{n}\n" for n in range(16)]
    assert await (await commands.start("s", "j3", "true")).wait() == Exited(0)


async def test_who_leaves_kills_what_runs_and_starts_no_more(tmp_path: Path) -> None:
    async with opened(tmp_path) as commands:
        runs = [await commands.start("s", f"j{n}", f"echo $$; {WAIT}") for n in range(3)]
        pids = [int((await printed(running, 1))[0]) for running in runs]
    assert [running.ended.result() for running in runs] == [TERMINATED] * 3
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    with pytest.raises(CommandNotStarted):
        await commands.start("s", "j", "true")


async def test_a_warden_that_is_killed_takes_the_group_along(commands: Commands) -> None:
    running = await commands.start("s", "j", f"({WAIT}) & echo $$ $!; {WAIT}")
    main, child = await printed(running, 1)
    os.kill(warden_of(main), signal.SIGKILL)
    assert await running.wait() == Lost()
    await eventually(lambda: not is_running(int(main)) and not is_running(int(child)), "both are gone")
    assert await running.kill() == Lost()


async def test_a_warden_that_is_asked_to_stop_stops_its_command(commands: Commands) -> None:
    running = await commands.start("s", "j", f"echo $$; {WAIT}")
    (main,) = await printed(running, 1)
    os.kill(warden_of(main), signal.SIGTERM)
    assert await running.wait() == TERMINATED


@asynccontextmanager
async def worker(tmp_path: Path, command: str, grace_seconds: float) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker process that runs one command; the command runs when this begins."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.adapters.commands_worker", tmp_path / "work", str(grace_seconds), command,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            assert process.stdout is not None
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_worker_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    """Neither one that ignores a stop, nor one that left group and session and was left by its parents."""
    (tmp_path / "work" / "s").mkdir(parents=True)
    (tmp_path / "work" / "s" / "daemon.py").write_text(DAEMON)
    stubborn = f"(trap '' TERM; {WAIT}) & echo $! $$ > pids"
    async with worker(tmp_path, f"{stubborn}; {sys.executable} -I -S daemon.py; {WAIT}", grace_seconds=0.3) as process:
        daemon = await daemon_of(tmp_path)
        pids = [daemon, *map(int, (tmp_path / "work" / "s" / "pids").read_text().split())]
        pids.append(parent_of(pids[-1]))  # the warden
        assert all(map(is_running, pids))
        process.kill()
        await process.wait()
        await eventually(lambda: not any(map(is_running, pids)), "all are gone", seconds=5)


async def test_a_command_goes_with_its_worker_and_its_warden(tmp_path: Path) -> None:
    """Both killed, as by who kills all that is called python."""
    path = tmp_path / "work" / "s" / "pid"
    async with worker(tmp_path, f"echo $$ > new; mv new pid; {WAIT}", grace_seconds=5) as process:
        await eventually(path.exists, "the command runs")
        main = int(path.read_text())
        warden = parent_of(main)
        os.kill(warden, signal.SIGSTOP)  # so that it does not do it
        process.kill()
        os.kill(warden, signal.SIGKILL)
        await eventually(lambda: not is_running(main), "the command is gone", seconds=5)


PEEK = """if True:
    import ctypes, os
    from service.adapters.commands import hide_memory
    if os.getuid() == 0:
        os.setuid(65534)
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as in a process that was never root
    def peek():
        reader = os.fork()
        if reader == 0:
            try:
                os._exit(0 if open(f"/proc/{os.getppid()}/environ", "rb").read() else 1)
            except OSError:
                os._exit(2)
        return os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1])
    before = peek()
    hide_memory()
    print(before, peek())
"""


async def test_who_hides_its_memory_has_an_environment_that_others_of_its_user_cannot_read() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PEEK, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    printed, errors = await process.communicate()
    assert (printed.split(), errors) == ([b"0", b"2"], b"")
