"""`playhead keys`, over a real database."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from service.cli.keys import GivenScope, keys
from service.model.caller import SCOPES
from service.model.errors import PlayheadError

MADE = re.compile(r"ph_([0-9a-f]{12})_[A-Za-z0-9_-]{43}\n")
FOR_ANN = ("create", "--owner", "ann", "--scope", "read", "--scope", "write")


@pytest.fixture
def run(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLAYHEAD_POSTGRES_URL", dsn)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(keys, arguments)

    return run


def made(result: Result) -> str:
    shown = MADE.fullmatch(result.stdout)
    assert shown is not None, result
    return shown[1]


def plain(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_key_is_shown_once_listed_and_revoked(run: Any) -> None:
    created = run(*FOR_ANN, "--name", "a laptop", "--expires-in", "30d")
    key_id = made(created)
    assert created.stderr == f"Key {key_id}. Keep it: it is not shown again.\n"
    listed = run("list").stdout
    assert created.stdout.strip()[16:] not in listed
    assert re.search(rf"{key_id}  'ann' +read,write  a laptop  \S+ \S+Z  \S+ \S+Z  good\n", listed), listed
    revoked = run("revoke", key_id)
    assert revoked.stdout == f"key {key_id} is revoked; it stops working within 5 s\n"
    assert run("revoke", key_id).stdout == revoked.stdout
    assert re.search(rf"{key_id} .* revoked\n", run("list").stdout)


def test_for_programs(run: Any) -> None:
    (new,) = plain(run("create", "--service", "--scope", "ops", "--json"))
    assert MADE.fullmatch(new.pop("key") + "\n")
    assert new == plain(run("list", "--json"))[0]
    assert (new["owner"], new["scopes"], new["name"], new["expires_at"]) == (None, ["ops"], "", None)
    assert (new["revoked_at"], new["state"]) == (None, "good")
    assert plain(run("revoke", new["id"], "--json"))[0]["state"] == "revoked"


def test_every_scope_can_be_given() -> None:
    assert {scope.value for scope in GivenScope} == set(SCOPES)


WRONG: list[Sequence[str]] = [
    ("create", "--scope", "read"),
    (*FOR_ANN, "--service"),
    ("create", "--owner", "", "--scope", "read"),
    ("create", "--owner", "x" * 256, "--scope", "read"),
    ("create", "--owner", "a\nb", "--scope", "read"),
    (*FOR_ANN, "--name", "x" * 101),
    (*FOR_ANN, "--name", "\x1b[2J"),
    *((*FOR_ANN, "--expires-in", text) for text in ("", "0d", "-1d", "30", "d", "1y", "1.5h", "4000d", "9" * 30 + "s")),
    ("revoke", "000000000000"),
    ("revoke", "' OR 1=1 --"),
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_what_cannot_be_done_is_one_line_and_makes_no_key(run: Any, arguments: Sequence[str]) -> None:
    before = run("list", "--json").stdout
    result = run(*arguments)
    assert isinstance(result.exception, PlayheadError)
    assert "\n" not in str(result.exception)
    assert result.stdout == ""
    assert run("list", "--json").stdout == before


@pytest.mark.parametrize("arguments", [("create", "--owner", "ann"), ("create", "--owner", "a", "--scope", "all")])
def test_a_scope_is_needed_that_there_is(run: Any, arguments: Sequence[str]) -> None:
    assert run(*arguments).exit_code == 2
