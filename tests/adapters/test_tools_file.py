"""The file of remote tools: what may stand in it, and how a wrong one is told: one line, its setting, its field."""

import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.adapters.tools_file import MAX_FILE_BYTES, MAX_SCHEMA_BYTES, MAX_TOOLS, read_tools
from service.agent.job_tools import SessionJobs, start_job
from service.agent.tools import THINK
from service.model.errors import ConfigurationError
from service.model.ids import SessionId
from service.model.remote import OWN_TOOLS, RemoteTool
from service.operations.asking import ask, timer
from service.settings import Settings
from service.wiring import open_house

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_KEY = "whsec_" + "QUJD" * 8
SCHEMA = {"type": "object", "properties": {"scene": {"type": "string"}}}
RENDER = {"name": "render", "description": "Renders.", "schema": SCHEMA, "url": "https://r.test/run", "secret": KEY}
HIDDEN = "hunter2"


def written(folder: Path, content: Any) -> Path:
    file = folder / "tools.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return file


def complaint(folder: Path, content: Any) -> str:
    with capture_logs() as lines, pytest.raises(ConfigurationError) as raised:
        read_tools(written(folder, content))
    said = str(raised.value)
    assert said.startswith("PLAYHEAD_TOOLS_FILE: ")
    assert said.isprintable()
    assert len(said) < 800
    shown = f"{said} {raised.value!r} {raised.value.__cause__!r} {lines}"
    assert not [each for each in (HIDDEN, KEY, KEY[6:], OTHER_KEY) if each in shown]
    return said.removeprefix("PLAYHEAD_TOOLS_FILE: ")


def test_tools_are_read_in_their_order(tmp_path: Path) -> None:
    more = {
        "deadline_seconds": 60,
        "call_seconds": 0.5,
        "is_repeatable": True,
        "key_argument": "scene",
        "needs_approval": True,
    }
    search = RENDER | {"name": "search-2_B", "secret": OTHER_KEY, "url": "http://10.0.0.1:81/a?b=c"} | more
    render = RemoteTool("render", "Renders.", SCHEMA, "https://r.test/run", KEY)
    assert (render.deadline_seconds, render.call_seconds, render.is_repeatable, render.key_argument) == (
        3600,
        10,
        False,
        None,
    )
    other = RemoteTool(
        "search-2_B", "Renders.", SCHEMA, "http://10.0.0.1:81/a?b=c", OTHER_KEY, 60, 0.5, True, "scene", True
    )
    assert read_tools(written(tmp_path, [RENDER, search])) == (render, other)
    assert read_tools(written(tmp_path, [])) == ()


def test_neither_secret_nor_address_is_shown(tmp_path: Path) -> None:
    (tool,) = read_tools(written(tmp_path, [RENDER | {"url": f"https://u:{HIDDEN}@r.test/"}]))
    assert tool.url.count(HIDDEN) == 1
    assert not [each for each in (HIDDEN, KEY[6:]) if each in f"{tool!r} {tool}"]


WRONG: list[tuple[str, Any, str]] = [
    ("name", "", "name: "),
    ("name", "a b", "name: "),
    ("name", "ä", "name: "),
    ("name", "a\n", "name: "),
    ("name", "n" * 65, "name: "),
    ("name", 5, "name: "),
    ("description", "", "description: "),
    ("description", "d" * 4001, "description: "),
    ("schema", [], "schema: "),
    ("schema", {"type": "string"}, "schema: type: arguments are an object"),
    ("schema", {"type": "object", "properties": {"a": {"type": "int"}}}, "schema: properties.a.type: "),
    ("schema", {"type": "object", "properties": {"a": {"pattern": "(?=a)"}}}, "schema: properties.a.pattern: "),
    ("schema", {"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"}, "schema: $schema: "),
    ("schema", {"type": "object", "description": "d" * MAX_SCHEMA_BYTES}, "schema: a schema has"),
    ("url", "", "url: "),
    ("url", HIDDEN, "url: "),
    ("url", f"ftp://{HIDDEN}/", "url: "),
    ("url", f"http://u:{HIDDEN}@/", "url: "),
    ("url", f"http://u:{HIDDEN}@h:x/", "url: "),
    ("url", f"http://u:{HIDDEN}@h:0/", "url: "),
    ("url", f"http://[{HIDDEN}/", "url: "),
    ("url", f"http://h/{HIDDEN}#f", "url: "),
    ("url", f"http://h/{HIDDEN} x", "url: "),
    ("url", f"http://h/{HIDDEN}\r\nX:y", "url: "),
    ("url", f"http://h/{HIDDEN}\t", "url: "),
    ("url", f"http://{'h' * 64}/{HIDDEN}", "url: "),
    ("url", f"http://h/{HIDDEN}ä", "url: "),
    ("url", f"http://h/{HIDDEN}{'u' * 2000}", "url: "),
    ("secret", HIDDEN, "secret: whsec_ and the base64 of 24 to 64 bytes is expected"),
    ("secret", KEY[6:], "secret: "),
    ("secret", f"whsec_{HIDDEN}", "secret: "),
    ("secret", "whsec_", "secret: "),
    ("secret", "whsec_" + "QUJD" * 7, "secret: "),
    ("secret", "whsec_" + "QUJD" * 22, "secret: "),
    ("secret", "whsec_" + "REVG" * 8 + "\n", "secret: whsec_ and"),
    ("secret", "whsec_" + "_-_-" * 8, "secret: "),
    ("secret", f"whsec_ä{HIDDEN}", "secret: "),
    ("secret", None, "secret: "),
    ("deadline_seconds", 0, "deadline_seconds: "),
    ("deadline_seconds", 30 * 24 * 3600 + 1, "deadline_seconds: "),
    ("deadline_seconds", "60", "deadline_seconds: "),
    ("deadline_seconds", 5, "call_seconds: at most deadline_seconds"),
    ("call_seconds", -1, "call_seconds: "),
    ("call_seconds", 301, "call_seconds: "),
    ("call_seconds", True, "call_seconds: "),
    ("is_repeatable", 1, "is_repeatable: "),
    ("needs_approval", "yes", "needs_approval: "),
    ("key_argument", "scenes", "key_argument: the schema has no such property"),
    ("key_argument", 1, "key_argument: "),
    ("timeout", HIDDEN, "timeout: "),
    (f"a\n{'b' * 100}", HIDDEN, f"a�{'b' * 62}: "),
]


@pytest.mark.parametrize(("field", "value", "begins"), WRONG, ids=[f"{each[0]} {each[1]!r}"[:50] for each in WRONG])
def test_a_wrong_field_is_told_with_its_tool(tmp_path: Path, field: str, value: Any, begins: str) -> None:
    good = RENDER | {"name": "other", "secret": OTHER_KEY}
    said = complaint(tmp_path, [good, RENDER | {field: value}])
    assert said.startswith(f"tool 2: {begins}")


@pytest.mark.parametrize("field", list(RENDER))
def test_a_field_that_is_missing_is_told(tmp_path: Path, field: str) -> None:
    entry = {name: value for name, value in RENDER.items() if name != field}
    assert complaint(tmp_path, [entry]) == f"tool 1: {field}: Field required"


def test_a_name_and_a_secret_mean_one_tool(tmp_path: Path) -> None:
    """Else nobody could say which of two is called, or which of two has completed."""
    other = RENDER | {"name": "other", "secret": OTHER_KEY}
    assert complaint(tmp_path, [RENDER, RENDER | {"secret": OTHER_KEY}]) == "tool 2: name: another tool has the same"
    assert (
        complaint(tmp_path, [RENDER, other, RENDER | {"name": "third"}]) == "tool 3: secret: another tool has the same"
    )


@pytest.mark.parametrize("name", sorted(OWN_TOOLS))
def test_the_names_of_the_house_are_taken(tmp_path: Path, name: str) -> None:
    assert complaint(tmp_path, [RENDER | {"name": name}]) == "tool 1: name: a tool of the service's own has it"


def test_they_are_the_names_of_the_tools_that_there_are() -> None:
    desk: Any = None
    operations = (ask(desk, desk), timer(desk, desk), start_job(desk, desk))
    jobs = SessionJobs(desk, desk, SessionId("s")).tool
    assert {THINK.name, jobs.name, *(each.description.name for each in operations)} == OWN_TOOLS


@pytest.mark.parametrize("content", [{"render": RENDER}, None, 5, "x", RENDER], ids=repr)
def test_it_is_a_list(tmp_path: Path, content: Any) -> None:
    assert complaint(tmp_path, content).startswith("the file: ")


def test_it_is_a_list_of_objects(tmp_path: Path) -> None:
    assert complaint(tmp_path, [RENDER, HIDDEN]).startswith("tool 2: ")


def test_it_has_so_many_tools_and_bytes_at_most(tmp_path: Path) -> None:
    many = [
        RENDER | {"name": f"tool-{number}", "secret": f"whsec_{number:032}"} for number in range(1000, 1001 + MAX_TOOLS)
    ]
    assert len(read_tools(written(tmp_path, many[:-1]))) == MAX_TOOLS
    assert complaint(tmp_path, many).startswith("the file: ")
    assert read_tools(written(tmp_path, b"[]".ljust(MAX_FILE_BYTES))) == ()
    assert complaint(tmp_path, b"[]".ljust(MAX_FILE_BYTES + 1)) == f"the file has more than {MAX_FILE_BYTES} bytes"


@pytest.mark.parametrize("content", [b"", b"[", b'[\n{"secret": "hunter2" "', b"\xff", b"[" * 5000], ids=repr)
def test_what_is_no_json_is_told_by_its_place(tmp_path: Path, content: bytes) -> None:
    assert complaint(tmp_path, content).startswith("the file is no JSON in UTF-8: line ")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^PLAYHEAD_TOOLS_FILE: the file cannot be read: FileNotFoundError$"):
        read_tools(tmp_path / HIDDEN)
    with pytest.raises(ConfigurationError, match=r"IsADirectoryError$"):
        read_tools(tmp_path)


async def test_a_wrong_file_stops_the_start_before_anything_is_opened(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    settings = Settings(_env_file=None, data_dir=data_dir, tools_file=written(tmp_path, [RENDER | {"secret": HIDDEN}]))
    with pytest.raises(ConfigurationError, match=r"^PLAYHEAD_TOOLS_FILE: tool 1: secret: "):
        async with open_house(settings):
            pass
    assert not data_dir.exists()
