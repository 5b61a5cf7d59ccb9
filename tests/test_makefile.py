"""What `make` does where Python lacks a part, with scripts in Python's place."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
HALF_MADE = """#!/bin/sh
mkdir -p .venv/bin && touch .venv/bin/python && chmod +x .venv/bin/python
echo "ensurepip is not available" >&2
exit 1
"""
WITHOUT_PIP = """#!/bin/sh
echo "$*" >> asked
case "$*" in "-m pip"*) [ -e pip ];; "-m ensurepip"*) touch pip;; esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    (tmp_path / "deploy").mkdir()
    shutil.copy(REPOSITORY / "deploy" / "constraints.txt", tmp_path / "deploy")
    (tmp_path / "tests" / "node").mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(REPOSITORY / "tests" / "node" / name, tmp_path / "tests" / "node")
    return tmp_path


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Without uv, if the arguments do not name one. Scripts in `found` are found first."""
    path = f"{folder / 'found'}:{os.defpath}"
    return subprocess.run(["make", "UV=", *arguments], cwd=folder, env={"PATH": path}, capture_output=True, text=True)


def test_a_venv_that_cannot_be_made_leaves_none(checkout: Path) -> None:
    python = script(checkout / "python", HALF_MADE)
    for _ in range(2):
        made = make(checkout, f"PYTHON={python}", ".venv/.run")
        assert made.returncode == 2
        assert "ensurepip is not available" in made.stderr
        assert not (checkout / ".venv").exists()


def test_a_venv_of_uv_s_is_given_pip_where_uv_is_gone(checkout: Path) -> None:
    script(checkout / ".venv" / "bin" / "python", WITHOUT_PIP)
    made = make(checkout, ".venv/.run")
    assert made.returncode == 0, made.stderr
    asked = (checkout / "asked").read_text().splitlines()
    assert asked[:2] == ["-m pip --version", "-m ensurepip"]
    assert asked[2].startswith("-m pip install ")


def test_what_uv_installs_is_compiled_as_pip_does(checkout: Path) -> None:
    shown = make(checkout, "UV=uv", "--dry-run", "run").stdout
    assert "uv pip install --quiet --compile-bytecode " in shown


def test_run_installs_no_tools_of_the_tests(checkout: Path) -> None:
    shown = make(checkout, "--dry-run", "run").stdout
    assert "'.[embedded]'" in shown
    assert "test" not in shown
    assert "check" not in shown.replace("version-check", "")


@pytest.mark.parametrize(("npm", "last"), [("exit 1", "(`make node`)."), ("", "tests/node/*.mjs")])
def test_the_page_s_types_are_checked_where_npm_is(checkout: Path, npm: str, last: str) -> None:
    packages = checkout / "tests" / "node" / "node_modules"
    script(packages / "node-linux-any" / "bin" / "node", "#!/bin/sh\necho $*\n")
    script(checkout / "found" / "npm", f"#!/bin/sh\n{npm}\n")
    for name in ("bin/python", "bin/ruff", "bin/mypy", "bin/lint-imports", ".test"):
        script(checkout / ".venv" / name, "#!/bin/sh\n")
    made = make(checkout, "check")
    assert made.returncode == 0, made.stderr
    assert made.stdout.endswith(f"{last}\n")
