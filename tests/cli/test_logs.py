"""What lands in a log when something goes wrong: where and what, and nothing of what was said."""

import io
import json
import subprocess
import sys
from collections.abc import Callable

import pytest
import structlog
from pydantic import BaseModel

from service.cli.logs import MAX_EXCEPTIONS, rendering, traceback_of

SECRET = "hush-hush"

PROGRAM = """
import asyncio, gc, logging, sys, threading
import structlog
from service.cli.logs import configure_logs

def say(): return "-".join(["hush", "hush"])

class Words(Exception):
    pass

class Holder:
    def __repr__(self):
        return say()
    def __del__(self):
        raise Words(say())

async def crash(error):
    raise error

async def main():
    asyncio.create_task(crash(Words(say())), name="never-asked")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    loop = asyncio.get_running_loop()
    loop.call_soon(lambda text: 1 / 0, say())
    await asyncio.sleep(0)
    context = {"message": "Fatal error on transport", "transport": say(), "exception": Words(say())}
    loop.call_exception_handler(context)

configure_logs()
asyncio.run(main())
try:
    raise Words(say())
except Words as error:
    structlog.get_logger().exception("caught", number=1)
    logging.getLogger("aiohttp.server").exception("Error handling request from %s", say())
logging.getLogger("some.library").warning(f"about {say()}")
logging.getLogger("some.library").info("not told")
holder = Holder()
del holder
thread = threading.Thread(target=lambda: asyncio.run(crash(Words(say()))))
thread.start()
thread.join()
raise Words(say()) from ValueError(say())
"""


def test_nothing_that_reaches_stderr_repeats_what_was_said() -> None:
    """The house's logs and the libraries', and what nobody catches, wherever it is raised."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False)
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert SECRET not in ran.stdout + ran.stderr
    assert ran.returncode == 1
    told = [
        (line["action"], line.get("logger"), line.get("said"), line.get("exception", "").partition("\n")[0])
        for line in lines
    ]
    assert told == [
        ("library_logged", "asyncio", "Task exception was never retrieved", "__main__.Words"),
        ("library_logged", "asyncio", "Exception in callback main.", "ZeroDivisionError"),
        ("library_logged", "asyncio", "Fatal error on transport", "__main__.Words"),
        ("caught", None, None, "__main__.Words"),
        ("library_logged", "aiohttp.server", None, "__main__.Words"),
        ("library_logged", "some.library", None, ""),
        ("uncaught", None, None, "__main__.Words"),
        ("uncaught", None, None, "__main__.Words"),
        ("uncaught", None, None, "__main__.Words"),
    ]
    assert "in crash" in lines[0]["exception"]
    assert "\ncaused by ValueError" in lines[-1]["exception"]
    assert lines[4]["place"].endswith(", in <module>")


COMMAND = """
import asyncio, sys
from service.cli.app import app, main

@app.command()
def crash():
    async def fail():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(9))
            raise RuntimeError("-".join(["hush", "hush"]))
    asyncio.run(fail())

sys.argv = ["playhead", "crash"]
main()
"""


def test_a_command_that_crashes_says_so_in_the_log() -> None:
    ran = subprocess.run([sys.executable, "-c", COMMAND], capture_output=True, text=True, timeout=30, check=False)
    assert SECRET not in ran.stdout + ran.stderr
    (line,) = [json.loads(line) for line in ran.stderr.splitlines()]
    assert (ran.returncode, line["action"], line["level"]) == (1, "uncaught", "critical")
    assert "\nwith RuntimeError\n" in line["exception"]


class Form(BaseModel):
    number: int


def chained() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        raise RuntimeError(SECRET) from error


def amid() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        raise RuntimeError(SECRET)  # noqa: B904 - that is the case


def grouped() -> None:
    raise ExceptionGroup(SECRET, [ValueError(SECRET), ExceptionGroup(SECRET, [TypeError(SECRET)])])


def noted() -> None:
    error = ValueError(SECRET)
    error.add_note(SECRET)
    raise error


def compiled() -> None:
    compile(f"{SECRET}!", "<text>", "exec")


def validated() -> None:
    Form.model_validate({"number": SECRET})


def deep() -> None:
    secret = SECRET
    assert secret
    deep()


def round_and_round() -> None:
    first, second = ValueError(SECRET), TypeError(SECRET)
    first.__cause__, second.__cause__ = second, first
    raise first


def many() -> None:
    raise ExceptionGroup(SECRET, [ValueError(SECRET) for _ in range(1000)])


def long_chain() -> None:
    error = ValueError(SECRET)
    for _ in range(5000):
        earlier, error = error, ValueError(SECRET)
        error.__cause__ = earlier
    raise error


WRONG: dict[Callable[[], None], list[str]] = {
    chained: ["RuntimeError", "caused by ValueError"],
    amid: ["RuntimeError", "amid ValueError"],
    grouped: ["ExceptionGroup", "with ValueError", "with ExceptionGroup", "with TypeError"],
    noted: ["ValueError"],
    compiled: ["SyntaxError"],
    validated: ["pydantic_core._pydantic_core.ValidationError"],
    deep: ["RecursionError"],
    round_and_round: ["ValueError", "caused by TypeError"],
    many: ["ExceptionGroup", *["with ValueError"] * (MAX_EXCEPTIONS - 1), "and more"],
    long_chain: ["ValueError", *["caused by ValueError"] * (MAX_EXCEPTIONS - 1), "and more"],
}


@pytest.mark.parametrize("for_people", [True, False], ids=["people", "JSON"])
@pytest.mark.parametrize("wrong", WRONG)
def test_an_exception_is_told_by_type_and_place(wrong: Callable[[], None], *, for_people: bool) -> None:
    lines = io.StringIO()
    log = structlog.wrap_logger(structlog.PrintLogger(lines), rendering(for_people=for_people))
    try:
        wrong()
    except Exception as error:
        log.exception("failed", number=1)
        told = traceback_of(error)
    assert SECRET not in lines.getvalue()
    assert len(lines.getvalue()) < 20_000
    assert [line for line in told.splitlines() if not line.startswith("  ")] == WRONG[wrong]
    assert f", in {wrong.__name__}\n" in told
    assert (told if for_people else json.dumps(told)) in lines.getvalue()
