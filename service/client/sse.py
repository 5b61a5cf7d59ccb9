"""The bytes of an event stream as frames, by the rules of the HTML standard; without any I/O.

Lines end with CR, LF or CRLF, also where the two come apart; a byte order mark in front is none of the first line. A
frame counts once its blank line is there: what a cut left of one is never given out. Unlike in a browser, an id is that
of its own frame alone, so that what the service makes up, which has none, is not taken for an event of the log.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAX_FRAME_BYTES: Final = 1024 * 1024
"""A line, and the data of a frame, are at most so long; an event of a log is at most a quarter of it."""

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class FrameTooLong(ValueError):
    """A line or a frame is longer than MAX_FRAME_BYTES."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One dispatched frame: its own id, and its data with a line feed between two lines of it."""

    id: bytes | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Comment:
    """A line that says nothing but that the connection lives."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How long the service wants a reader to wait before it comes back."""

    milliseconds: int


Item = Frame | Comment | Retry


class EventStream:
    """What one connection says. Holds one frame at most."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        """Of the line that has no end yet."""
        self._held = 0
        self._after_cr = False
        self._in_front = True
        self._id: bytes | None = None
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, received: bytes) -> Iterator[Item]:
        """What these bytes complete, in its order. Raises FrameTooLong."""
        if not received:
            return
        if self._after_cr:
            received = received.removeprefix(b"\n")
        self._after_cr = received.endswith(b"\r")
        *lines, rest = _LINE_END.split(received)
        for line in lines:
            self._hold(line)
            whole = b"".join(self._pieces)
            self._pieces.clear()
            if self._in_front:
                whole, self._in_front = whole.removeprefix(_BYTE_ORDER_MARK), False
            item = self._read(whole)
            if item is not None:
                yield item
            self._held = self._data_bytes
        self._hold(rest)

    def _hold(self, piece: bytes) -> None:
        self._held += len(piece)
        if self._held > MAX_FRAME_BYTES:
            raise FrameTooLong
        if piece:
            self._pieces.append(piece)

    def _read(self, line: bytes) -> Item | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"":
                return Comment()
            case b"data":
                self._data.append(value)
                self._data_bytes += len(value) + 1  # with its line end: empty lines are not for nothing
            case b"id" if b"\0" not in value:
                self._id = value
            case b"retry" if value.isdigit() and len(value) <= 9:
                return Retry(int(value))
        return None

    def _dispatch(self) -> Frame | None:
        frame = Frame(self._id, b"\n".join(self._data)) if self._data else None
        self._id, self._data, self._data_bytes = None, [], 0
        return frame
