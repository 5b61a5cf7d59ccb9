"""The house of the page: imports run downward, and lines are as everywhere else."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from tests.console.pages import STATIC

FLOORS = ("model", "service", "parts", "views", "main.js")
LINE = 120
IMPORT = re.compile(r"""(?:\bfrom|\bimport)\s*\(?\s*["']([^"']+)["']""")
FILES = sorted(path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.suffix in {".js", ".css"})


def untidy(text: str) -> Iterator[str]:
    """What is the matter with lines, each by its number."""
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > LINE:
            yield f"{number}: longer than {LINE}"
        if line != line.rstrip():
            yield f"{number}: blanks at its end"
        if "\t" in line:
            yield f"{number}: a tab"
    if not text.endswith("\n"):
        yield "no line break at the end"


def floor(path: PurePosixPath) -> int:
    return FLOORS.index(path.parts[0])


def upward(name: str, text: str, files: list[str]) -> Iterator[str]:
    """What a module imports that is no file, or stands above it."""
    module = PurePosixPath(name)
    for imported in IMPORT.findall(text):
        if not imported.startswith("."):
            yield f"{imported}: not a path"
            continue
        parts = list(module.parent.parts)
        for part in PurePosixPath(imported).parts:
            if part == "..":
                parts.pop()
            else:
                parts.append(part)
        target = PurePosixPath(*parts)
        if target.as_posix() not in files:
            yield f"{imported}: no such file"
        elif floor(target) > floor(module):
            yield f"{imported}: upward"


@pytest.mark.parametrize("name", FILES)
def test_lines_are_tidy(name: str) -> None:
    assert list(untidy((STATIC / name).read_text())) == []


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_imports_run_downward(name: str) -> None:
    assert list(upward(name, (STATIC / name).read_text(), FILES)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x" * 120 + "\n", []),
        ("\n" + "x" * 121 + "\n", ["2: longer than 120"]),
        ("x \n", ["1: blanks at its end"]),
        ("\tx\n", ["1: a tab"]),
        ("x", ["no line break at the end"]),
    ],
)
def test_an_untidy_line_is_found(text: str, found: list[str]) -> None:
    assert list(untidy(text)) == found


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("parts/card.js", 'import { a } from "../model/fold.js";\nimport "./dom.js";', []),
        ("main.js", 'import {\n  a,\n} from "./parts/dom.js";', []),
        ("model/fold.js", 'import { a } from "../parts/dom.js";', ["../parts/dom.js: upward"]),
        ("model/fold.js", "/** @import {A} from '../parts/dom.js' */", ["../parts/dom.js: upward"]),
        ("model/fold.js", 'await import("../main.js");', ["../main.js: upward"]),
        ("parts/dom.js", 'export { a } from "./card";', ["./card: no such file"]),
        ("parts/dom.js", 'import "react";', ["react: not a path"]),
    ],
)
def test_an_import_that_does_not_run_downward_is_found(name: str, text: str, found: list[str]) -> None:
    assert list(upward(name, text, ["main.js", "model/fold.js", "parts/card.js", "parts/dom.js"])) == found


def test_every_folder_is_a_floor() -> None:
    assert {Path(name).parts[0] for name in FILES if name.endswith(".js")} <= set(FLOORS)
