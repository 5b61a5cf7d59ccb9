"""What the documents say is so."""

import asyncio
import re
import shutil
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from service.adapters.redis_client import connect
from service.adapters.redis_keys import log_key, meta_key
from service.model.ids import TaskId
from service.settings import PREFIX, Settings
from service.wiring import StoreUrls
from tests.conftest import REPOSITORY
from tests.processes import serve
from tests.sessions.databases import SERVERS, own_database, server_url

BLOCK = re.compile(r"^```(sh|text)?\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
END = "---end of block---"


def test_every_setting_stands_in_the_example_with_its_default() -> None:
    lines = (REPOSITORY / "deploy" / "env.example").read_text().splitlines()
    shown = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    defaults = {PREFIX + name.upper(): field.default for name, field in Settings.model_fields.items()}
    assert shown == {name: "" if default is None else str(default) for name, default in defaults.items()}


def test_the_constraints_name_no_place_to_download_from() -> None:
    assert "://" not in (REPOSITORY / "deploy" / "constraints.txt").read_text()


def tour() -> list[tuple[str, str]]:
    """The README's tour: each block of commands, and what it is to print."""
    text = (REPOSITORY / "README.md").read_text().partition("## A tour")[2].partition("\n## ")[0]
    blocks = [(kind, body) for kind, body in BLOCK.findall(text)]
    steps: list[tuple[str, str]] = []
    for kind, body in blocks:
        if kind == "sh":
            steps.append((body, ""))
        elif kind == "text":
            steps[-1] = steps[-1][0], body
    return steps


def matches(expected: str, printed: str) -> bool:
    """Whether this was printed; `…` stands for anything in its line, a line of nothing else for any lines."""
    lines = expected.rstrip("\n").split("\n")
    pattern = "".join(r"(?:.*\n)*" if line == "…" else _in_one_line(line) for line in lines)
    return re.fullmatch(pattern + r"\n*", printed.rstrip("\n") + "\n") is not None


def _in_one_line(line: str) -> str:
    return ".*".join(map(re.escape, line.split("…"))) + r"\n"


@pytest.mark.parametrize(
    ("expected", "printed", "is_so"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\nb", True),
        ("a\nb\n", "a\n\nb\n", False),
        ("a…\nc\n", "a and so on\nc\n", True),
        ("a…\nc\n", "a\nc\n", True),
        ("a…\nc\n", "a\nb\nc\n", False),
        ("a…\n", "a\nb\n", False),
        ("a…z\n", "a\nz\n", False),
        ("a\n…\nc\n", "a\nb\nb\nc\n", True),
        ("a\n…\nc\n", "a\nc\n", True),
        ("a\n…\n", "a\nb\nb\n", True),
        ("a\n…\n", "ab\n", False),
        ("a.c\n", "abc\n", False),
        ("\na\n\n", "\na\n\n", True),
    ],
)
def test_what_is_left_out_of_an_output_is_left_out_of_its_line(expected: str, printed: str, is_so: bool) -> None:
    assert matches(expected, printed) is is_so


@pytest.fixture(params=SERVERS)
def tour_stores(request: pytest.FixtureRequest) -> Iterator[StoreUrls]:
    """The embedded stores, or a Redis 7 and a PostgreSQL that are not ours; nothing is left in either."""
    redis_url: str = request.getfixturevalue("redis_url" if request.param == "embedded" else "redis7_url")
    with own_database(server_url(request.param, request)) as postgres_url:
        urls = StoreUrls(redis_url, postgres_url)
        yield urls
        asyncio.run(remove_logs(urls))


async def remove_logs(urls: StoreUrls) -> None:
    """Remove the logs of all tasks in this database."""
    redis, connection = connect(urls.redis), await asyncpg.connect(urls.postgres)
    tasks = [TaskId(str(row["id"])) for row in await connection.fetch("SELECT id FROM tasks")]
    assert await redis.delete(*map(log_key, tasks), *map(meta_key, tasks)) == 2 * len(tasks)
    await connection.close()
    await redis.aclose()


@pytest.mark.skipif(shutil.which("curl") is None, reason="the tour needs curl")
async def test_the_tour_is_as_it_is_told(tour_stores: StoreUrls, tmp_path: Path) -> None:
    steps = tour()
    assert len(steps) >= 8
    settings = {"REDIS_URL": tour_stores.redis, "POSTGRES_URL": tour_stores.postgres}
    async with serve(tmp_path / "log", settings) as service:
        script = "".join(f"{commands}\necho '{END}'\n" for commands, _ in steps)
        script = script.replace("http://127.0.0.1:8080", service.url).replace("/tmp/playhead-", f"{tmp_path}/")
        bash = await asyncio.create_subprocess_exec("bash", "-c", script, stdout=PIPE, stderr=PIPE)
        stdout, stderr = await bash.communicate()
    printed = stdout.decode().split(f"{END}\n")
    assert len(printed) == len(steps) + 1, stderr.decode()
    for (commands, expected), shown in zip(steps, printed, strict=False):
        if expected:
            assert matches(expected, shown), f"{commands}\nprinted\n{shown}\nand not\n{expected}"
