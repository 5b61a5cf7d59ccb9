"""A stop that comes early, or late: nothing is left running, no traceback, exit code 0 as at any stop."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.wiring import StoreUrls
from tests.adapters.embedded.foreign import eventually

STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
STOP_SECONDS = 8.0


@asynccontextmanager
async def starting(
    folder: Path, settings: dict[str, str], environment: dict[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A service that is on its way."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "serve"),
        env=os.environ | {f"PLAYHEAD_{name}": value for name, value in settings.items()} | (environment or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def stopped(process: asyncio.subprocess.Process, number: signal.Signals) -> tuple[int | None, str]:
    process.send_signal(number)
    async with asyncio.timeout(STOP_SECONDS):
        _, err = await process.communicate()
    return process.returncode, err.decode()


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A port where nobody says a word, and when somebody came."""
    came = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        while await reader.read(4096):
            pass
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], came


@pytest.mark.parametrize("number", STOPS)
async def test_a_stop_while_a_database_does_not_answer(
    tmp_path: Path, stores: StoreUrls, number: signal.Signals
) -> None:
    async with silent_server() as (port, came):
        settings = {"REDIS_URL": stores.redis, "POSTGRES_URL": f"postgresql://u@127.0.0.1:{port}/d"}
        async with starting(tmp_path, settings) as process:
            await came.wait()
            code, err = await stopped(process, number)
    assert (code, err.count("\n")) == (0, 1), err
    assert '"action": "stopping"' in err


async def test_a_stop_while_initdb_works(tmp_path: Path) -> None:
    """Or any moment near it; what it had begun is begun anew by the next start."""
    data = tmp_path / "data"
    async with starting(tmp_path, {"DATA_DIR": str(data), "HTTP_PORT": "0"}) as process:
        await eventually((data / "postgres.init").exists, "initdb works")
        code, err = await stopped(process, signal.SIGTERM)
    assert (code, "Traceback" in err) == (0, False), err
    assert err.count("\n") == 1
    assert not list(data.glob("*.pid"))


async def test_a_stop_while_the_data_folder_is_held_by_a_run_that_has_ended(tmp_path: Path) -> None:
    (data := tmp_path / "data").mkdir()
    holder = await asyncio.create_subprocess_exec("flock", str(data / "lock"), "sleep", "60", start_new_session=True)
    try:
        await eventually((data / "lock").exists, "it is held")
        async with starting(tmp_path, {"DATA_DIR": str(data)}) as process:
            await eventually(lambda: has_open(process.pid, data / "lock"), "the start waits")
            assert (await stopped(process, signal.SIGTERM))[0] == 0
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        await holder.wait()


def has_open(pid: int, path: Path) -> bool:
    try:
        return str(path) in [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False


async def test_ctrl_c_while_the_program_is_loaded_is_no_traceback(tmp_path: Path) -> None:
    """As soon as it runs our code: in what is imported first a file is waited for."""
    (tmp_path / "typer.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    async with starting(tmp_path, {}, {"PYTHONPATH": str(tmp_path)}) as process:
        assert process.stdout is not None
        await process.stdout.readline()
        code, err = await stopped(process, signal.SIGINT)
    assert (code, err) == (-signal.SIGINT, "")


async def test_a_hang_up_that_is_ignored_stays_ignored(tmp_path: Path, stores: StoreUrls, postgres_url: str) -> None:
    """As `nohup` has it."""
    settings = {"REDIS_URL": stores.redis, "POSTGRES_URL": postgres_url, "HTTP_PORT": "0"}
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with starting(tmp_path, settings) as process:
            await printed(process, b"model")
            process.send_signal(signal.SIGHUP)
            code, err = await stopped(process, signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, ignored)
    assert (code, err.count("\n")) == (0, 1), err


async def test_a_stop_that_is_said_again_when_everything_is_closed(
    tmp_path: Path, stores: StoreUrls, postgres_url: str
) -> None:
    """As late as can be: the interpreter is about to end, and waits for a byte."""
    late = "lambda: print('closed', flush=True) or os.read(os.open('go', os.O_RDONLY), 1)"
    (tmp_path / "sitecustomize.py").write_text(f"import atexit, os\natexit.register({late})\n")
    os.mkfifo(tmp_path / "go")
    go = os.open(tmp_path / "go", os.O_RDWR)  # with both, neither end waits for the other to open it
    settings = {"REDIS_URL": stores.redis, "POSTGRES_URL": postgres_url, "HTTP_PORT": "0"}
    try:
        async with starting(tmp_path, settings, {"PYTHONPATH": str(tmp_path)}) as process:
            await printed(process, b"model")
            process.send_signal(signal.SIGTERM)
            await printed(process, b"closed")
            for number in STOPS:
                process.send_signal(number)
            os.write(go, b"!")
            async with asyncio.timeout(STOP_SECONDS):
                _, err = await process.communicate()
    finally:
        os.close(go)
    assert (process.returncode, err.decode().count("\n")) == (0, 1), err


async def printed(process: asyncio.subprocess.Process, word: bytes) -> None:
    assert process.stdout is not None
    while not (line := await process.stdout.readline()).startswith(word):
        assert line, "its output has ended"
