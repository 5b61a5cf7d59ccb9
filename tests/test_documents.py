"""What the documents say is so."""

import asyncio
import re
import shutil
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import asyncpg
import pytest
from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from service.adapters.demo_model import ACTS
from service.adapters.redis_client import connect
from service.adapters.redis_keys import log_key, meta_key
from service.cli import exits
from service.http import problems
from service.http.problems import STATUSES
from service.model.failures import MESSAGES
from service.model.ids import TaskId
from service.model.verdict import FindingType
from service.settings import PREFIX, Settings
from service.wiring import StoreUrls
from tests.acceptance.render import render
from tests.conftest import REPOSITORY
from tests.processes import Service, free_port, serve
from tests.sessions.databases import SERVERS, own_database, server_url

BLOCK = re.compile(r"^```(sh|text)?\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
END = "---end of block---"


def test_every_setting_stands_in_the_example_with_its_default() -> None:
    lines = (REPOSITORY / "deploy" / "env.example").read_text().splitlines()
    shown = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    defaults = {PREFIX + name.upper(): field.default for name, field in Settings.model_fields.items()}
    assert shown == {name: "" if default is None else str(default) for name, default in defaults.items()}


def test_every_bound_of_a_setting_stands_over_it() -> None:
    paragraphs = (REPOSITORY / "deploy" / "env.example").read_text().split("\n\n")
    bounded = {PREFIX + name.upper(): bounds_of(field) for name, field in Settings.model_fields.items()}
    assert sum(map(bool, bounded.values())) >= 6
    missing = {
        name: bounds
        for name, bounds in bounded.items()
        if not any(f"\n{name}=" in paragraph and bounds in paragraph for paragraph in paragraphs)
    }
    assert missing == {}


def bounds_of(field: FieldInfo) -> str:
    """`(0 to 9)`, `(above 0, at most 9)`, or nothing."""
    bounds = {type(bound): bound for bound in field.metadata}
    match bounds.get(Ge), bounds.get(Gt), bounds.get(Le):
        case Ge(least), None, Le(most):
            return f"({least} to {most})"
        case None, Gt(least), Le(most):
            return f"(above {least}, at most {most})"
    assert not bounds
    return ""


def readme(section: str) -> str:
    """A section of the README."""
    text = (REPOSITORY / "README.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    assert text, section
    return text


def first_column(section: str) -> set[str]:
    """What stands as code in the first column of a section's tables."""
    cells = re.findall(r"^\| (`[^|]*) \|", readme(section), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def sources(*rooms: str) -> str:
    return "\n".join(file.read_text() for room in rooms for file in sorted((REPOSITORY / room).rglob("*.py")))


def test_every_error_type_is_told_and_no_other() -> None:
    raised = re.findall(r"""[Pp]roblem\(\s*\d{3}, "(\w+)\"""", sources("service/http"))
    known = {kind.error_type for kind in STATUSES} | set(problems._TYPES.values()) | {"http_error"}
    assert {"gap", "forbidden_host", "malformed_json", "unexpected_error"} < set(raised)
    assert first_column("When a request is refused") == known | set(raised)
    assert first_column("When a task fails") == set(MESSAGES) | {"unexpected_error"}


def test_everything_that_a_proof_can_find_is_told() -> None:
    assert first_column("Proving a log") == set(get_args(FindingType))


def test_every_log_line_that_is_named_is_logged() -> None:
    named = first_column("Log lines")
    assert len(named) > 15
    text = sources("service", "consumers")
    assert sorted(name for name in named if f'"{name}"' not in text) == []


def test_every_exit_code_is_told_as_the_help_tells_it() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", readme("The command"), re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == dict(exits.MEANINGS)


def test_everything_that_the_demo_model_can_be_told_is_told() -> None:
    acts = [line.partition(":")[0] for line in ACTS.splitlines()]
    assert first_column("What the demo model does") == set(acts)


def test_the_constraints_name_no_place_to_download_from() -> None:
    assert "://" not in (REPOSITORY / "deploy" / "constraints.txt").read_text()


def commands_in(section: str) -> list[tuple[str, str]]:
    """Each block of commands in a section of the README, and what it is to print."""
    blocks = [(kind, body) for kind, body in BLOCK.findall(readme(section))]
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
    steps = commands_in("A tour in five minutes")
    assert len(steps) >= 8
    settings = {"REDIS_URL": tour_stores.redis, "POSTGRES_URL": tour_stores.postgres}
    async with serve(tmp_path / "log", settings) as service:
        await assert_told(steps, service, tmp_path)


@pytest.mark.skipif(shutil.which("curl") is None, reason="it needs curl")
async def test_waiting_for_the_outside_is_as_it_is_told(tmp_path: Path, redis_url: str, postgres_url: str) -> None:
    (begun, _), *steps = commands_in("Waiting for the outside")
    assert "render.py &" in begun
    assert len(steps) >= 3
    port = free_port()
    async with render(tmp_path) as tools:
        settings = {"REDIS_URL": redis_url, "POSTGRES_URL": postgres_url, "TOOLS_FILE": str(tools)}
        settings |= {"HTTP_PORT": str(port), "PUBLIC_URL": f"http://127.0.0.1:{port}"}
        async with serve(tmp_path / "log", settings) as service:
            await assert_told(steps, service, tmp_path)


async def assert_told(steps: list[tuple[str, str]], service: Service, tmp_path: Path) -> None:
    """The commands print what is said of them."""
    script = "".join(f"{commands}\necho '{END}'\n" for commands, _ in steps)
    script = script.replace("http://127.0.0.1:8080", service.url).replace("/tmp/playhead-", f"{tmp_path}/")
    bash = await asyncio.create_subprocess_exec("bash", "-c", script, stdout=PIPE, stderr=PIPE)
    stdout, stderr = await bash.communicate()
    printed = stdout.decode().split(f"{END}\n")
    assert len(printed) == len(steps) + 1, stderr.decode()
    for (commands, expected), shown in zip(steps, printed, strict=False):
        if expected:
            assert matches(expected, shown), f"{commands}\nprinted\n{shown}\nand not\n{expected}"
