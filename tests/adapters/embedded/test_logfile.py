"""Which line of a log says why a server ended."""

from pathlib import Path

import pytest

from service.adapters.embedded.logfile import LINE_CHARACTERS, last_words


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("2026-01-01 00:00:00.0 UTC [7] FATAL:  no room\n2026 UTC [7] HINT:  buy some\n[7] LOG:  shut down", "no room"),
        ("7:M 01 Jan 2026 00:00:00.000 # Bad file format\n7:M 01 Jan 2026 00:00:00.001 * bye", "Bad file format"),
        ("7:M 01 Jan 2026 00:00:00.000 # WARNING Memory overcommit must be enabled!\nlast", "last"),
        ("initdb: error: could not create\ninitdb: hint: look\n\n", "could not create"),
        ("\n\n", "it said nothing"),
    ],
)
def test_the_complaint_is_found(tmp_path: Path, lines: str, words: str) -> None:
    (tmp_path / "log").write_text(lines)
    assert last_words(tmp_path / "log", 0) == words


def test_an_earlier_run_is_not_quoted_and_the_reading_is_bounded(tmp_path: Path) -> None:
    old = "FATAL:  an old trouble\n"
    (tmp_path / "log").write_text(old + "started\n")
    assert last_words(tmp_path / "log", len(old)) == "started"
    (tmp_path / "log").write_text(old + "x" * 100_000)
    assert last_words(tmp_path / "log", 0) == "x" * LINE_CHARACTERS
