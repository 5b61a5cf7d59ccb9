"""Head and tail of an output of any length."""

import codecs
from typing import Final

MAX_CHARACTERS: Final = 16_000
_HALF: Final = MAX_CHARACTERS // 2
_NOTE_ROOM: Final = 64
_NUL_SHOWN: Final = "\ufffd"


class Excerpt:
    """What was printed, as text of at most 16,000 characters; it takes that much room, whatever comes.

    Of more there are head and tail, and between them a line that says how many characters are left out. Bytes that are
    no UTF-8, and NUL, which no database takes, are `\\ufffd`.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._head = ""
        self._tail = ""
        self._characters = 0

    def take(self, printed: bytes) -> None:
        """Add what came next."""
        self._add(self._decoder.decode(printed))

    def end(self) -> None:
        """Nothing comes any more: what may have been the beginning of a character is none."""
        self._add(self._decoder.decode(b"", final=True))

    def text(self) -> str:
        """As it stands."""
        if self._characters <= MAX_CHARACTERS:
            return self._head + self._tail
        head = self._head[: _HALF - _NOTE_ROOM]
        left_out = self._characters - len(head) - len(self._tail)
        return f"{head}\n[{left_out} characters are left out.]\n{self._tail}"

    def _add(self, text: str) -> None:
        self._characters += len(text)
        text = text.replace("\0", _NUL_SHOWN)
        room = _HALF - len(self._head)
        self._head += text[:room]
        self._tail = (self._tail + text[room:])[-_HALF:]
