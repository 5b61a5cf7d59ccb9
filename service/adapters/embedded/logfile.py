"""A server's log file: bounded, and read for the one line that says why the server ended."""

import os
import re
from pathlib import Path

LOG_BYTES = 1 << 20
TAIL_BYTES = 16 << 10
LINE_CHARACTERS = 300

_COMPLAINT = re.compile(r"FATAL|PANIC|[Ee]rror\b|\s# (?!WARNING)")
_NO_REASON = re.compile(r"the database system is (starting|shutting)|bye bye")
_PREFIX = re.compile(r"^\d+:[A-Z] .*? # |^.*?\b(?:FATAL|PANIC|ERROR|error): +")


def open_log(path: Path) -> tuple[int, int]:
    """Open for appending; returns the descriptor and where this run's lines begin. Emptied first when over 1 MiB.

    Raises OSError.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    size = os.fstat(descriptor).st_size
    if size > LOG_BYTES:
        os.ftruncate(descriptor, 0)
        size = 0
    return descriptor, size


def last_words(path: Path, since: int) -> str:
    """The last complaint that was logged after byte `since`, else the last line; within the last 16 KiB.

    Servers like to close with a hint or a good-bye, so the last line alone is seldom the reason.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(since, path.stat().st_size - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode(errors="replace")
    except OSError as error:
        return f"and its log cannot be read ({error.strerror})"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    complaints = [line for line in lines if _COMPLAINT.search(line) and not _NO_REASON.search(line)]
    if not lines:
        return "it said nothing"
    return _PREFIX.sub("", (complaints or lines)[-1])[:LINE_CHARACTERS]
