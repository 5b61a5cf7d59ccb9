"""An exported log: lines of JSON, which say whose log it is, each event as it is stored, and what it comes to.

The first line is the manifest, the last one has the counts and the last link of the chain over the events' frames: a
file without it is not whole. Where something is missing in the log, a line says so. An event's line is made around its
bytes, so that whoever has the line has them.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

import orjson

from service.model.chain import BEFORE_THE_FIRST, Proof, link
from service.model.check import LogCheck
from service.model.encoding import MAX_EVENT_BYTES, plain
from service.model.errors import NotFound
from service.model.events import GapData
from service.model.ids import TaskId, parse_task_id
from service.model.log import StoredEvent
from service.model.redaction import redacted
from service.model.verdict import Verdict

FORMAT: Final = "playhead-log-1"

MAX_LINE_BYTES: Final = MAX_EVENT_BYTES + 1024
"""No line of an export is longer."""

_END: Final = {"events", "first", "last", "sha256"}
_EVENT: Final = re.compile(rb'\{"id":"([0-9]{1,16}-[0-9]{1,12})","data":(.*)\}\n?')


class ExportLines:
    """The lines of one export, in their order. `seal` is what was proven of the log when it was archived, if it is."""

    def __init__(self, task_id: TaskId, seal: Proof | None, *, redact: bool) -> None:
        self._task_id = task_id
        self._seal = seal
        self._redact = redact
        self._events = 0
        self._first: str | None = None
        self._last: str | None = None
        self._link = BEFORE_THE_FIRST

    def manifest(self) -> bytes:
        """The first line."""
        archived = self._seal.link.hex() if self._seal else None
        return _line({"format": FORMAT, "task": self._task_id, "redacted": self._redact, "archived_sha256": archived})

    def event(self, event: StoredEvent) -> bytes:
        """The next event."""
        position, data = event
        if self._redact:
            data = redacted(data)
        self._link = link(self._link, (position, data))
        self._events += 1
        self._last = position.decode()
        self._first = self._first or self._last
        return b'{"id":"%b","data":%b}\n' % (position, data)

    def gap(self, gap: GapData) -> bytes:
        """Something is missing in front of the next event."""
        return _line({"gap": plain(gap)})

    def end(self) -> bytes:
        """The last line."""
        return _line({"events": self._events, "first": self._first, "last": self._last, "sha256": self._link.hex()})


class Wholeness:
    """Whether the lines of an export, taken as they come, are all of it and the bytes that were sent.

    What the log itself is worth is not looked at: `prove_export` does that.
    """

    def __init__(self, task_id: TaskId) -> None:
        self._task_id = task_id
        self._began = False
        self._events = 0
        self._link = BEFORE_THE_FIRST
        self.is_proven = False
        """Whether the last line that was taken is the last one, and has the counts of those before it."""

    def take(self, line: bytes) -> None:
        """The next line."""
        self.is_proven = False
        if not self._began:
            self._began = _manifest(line).get("task") == self._task_id
        elif (event := _EVENT.fullmatch(line)) is not None:
            self._events += 1
            self._link = link(self._link, (event[1], event[2]))
        elif (end := _object(line)).keys() == _END:
            self.is_proven = [end["events"], end["sha256"]] == [self._events, self._link.hex()]


def prove_export(lines: Iterable[bytes]) -> Verdict:
    """What an exported file comes to, by itself. Lines may be cut where they are longer than MAX_LINE_BYTES.

    A log that was archived is compared with the SHA-256 that was stored then, unless it was redacted.
    """
    check, manifest, end, number = LogCheck(None), {}, None, 0
    for number, line in enumerate(lines, 1):
        if end is not None:
            check.found.add("unreadable_line", check.last, f"Line {number} stands behind the last line.")
            break
        if number == 1:
            manifest = _manifest(line)
            if not manifest:
                check.found.add("unreadable_line", None, f"Line 1 is no manifest of the format {FORMAT}.")
            check.task_id = manifest.get("task")
        elif (event := _EVENT.fullmatch(line)) is not None:
            check.take((event[1], event[2]))
        elif (other := _object(line)).keys() == _END:
            end = other
        elif other.keys() != {"gap"}:  # what is missing is found by the numbers
            check.found.add("unreadable_line", check.last, f"Line {number} is not as it was exported.")
    _compare_end(check, end)
    is_redacted, archived = manifest.get("redacted") is True, manifest.get("archived_sha256")
    if archived is not None and not is_redacted and archived != check.link.hex():
        check.found.add("wrong_sha256", check.last, "It is not the log whose SHA-256 was stored in the archive.")
    return check.verdict("file", redacted=is_redacted)


def _compare_end(check: LogCheck, end: dict[str, Any] | None) -> None:
    if end is None:
        check.found.add("incomplete_export", check.last, "The file ends before its last line: it is not whole.")
        return
    if not check.closed:
        check.found.add("no_finish", check.last, "The terminal event is not there.")
    reach = [None if place is None else str(place) for place in (check.first, check.last)]
    if [end["events"], end["first"], end["last"]] != [check.events, *reach]:
        check.found.add("wrong_end", check.last, "The counts of the last line are not those of the lines before it.")
    if end["sha256"] != check.link.hex():
        check.found.add("wrong_sha256", check.last, "The SHA-256 of the last line is not that of the events.")


def _line(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def _object(line: bytes) -> dict[str, Any]:
    """The JSON object that a line says; an empty one for anything else."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _manifest(line: bytes) -> dict[str, Any]:
    """The manifest with a task id that is one; an empty one for anything else."""
    manifest = _object(line)
    try:
        parse_task_id(str(manifest.get("task")))
    except NotFound:
        return {}
    return manifest if manifest.get("format") == FORMAT else {}
