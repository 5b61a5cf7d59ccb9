"""The page's modules under Node: each `*.test.mjs` beside this file is a test."""

import subprocess
from pathlib import Path

import pytest

from tests.node import NO_NODE, node

FILES = sorted(Path(__file__).parent.glob("*.test.mjs"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_module(file: Path) -> None:
    binary = node()
    if binary is None:
        pytest.skip(f"{NO_NODE}: the page's modules are not tested")
    # The modules are served as they are, without a package.json that would call them modules.
    flags = ("--test", "--test-reporter=spec", "--disable-warning=MODULE_TYPELESS_PACKAGE_JSON")
    ran = subprocess.run([binary, *flags, file], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "\nℹ pass 0\n" not in ran.stdout, "no test in it"
