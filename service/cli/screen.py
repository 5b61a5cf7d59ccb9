"""What a command goes on to print: for people on a terminal, plain in a pipe.

Nothing that came from a model or from a service can steer a terminal: control characters are shown as pictures.
"""

import sys
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.streams import stream_out

_PICTURES: Final = (
    {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
    | {0x7F: 0x2421}
    | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
)


def clean(text: str) -> str:
    """The text without control characters but line feeds and tabs."""
    return text.translate(_PICTURES)


def _cell(text: str) -> str:
    return clean(text).replace("\n", " ").replace("\t", " ")


class Screen:
    """Standard output; a quiet one only passes on what is for programs."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self.is_terminal = sys.stdout.isatty()
        self._console = Console(highlight=False, markup=False, emoji=False) if self.is_terminal else None
        self._at_line_start = True

    def say(self, text: str, style: str = "") -> None:
        """Show text where the last one ended; `style` is for terminals."""
        if not text or self._quiet:
            return
        shown = clean(text)
        self._at_line_start = shown.endswith("\n")
        if self._console is not None:
            self._console.print(Text(shown, style), end="", soft_wrap=True)
        else:
            stream_out(shown.encode(sys.stdout.encoding, "replace"))

    def line(self, text: str, style: str = "") -> None:
        """Show text on lines of its own."""
        self.begin_line()
        self.say(f"{text}\n", style)

    def table(self, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show rows: on a terminal in columns with names over them, folded where it is too narrow.

        In a pipe they are a line each, with tabs between.
        """
        if self._console is None:
            self.say("".join("\t".join(map(_cell, row)) + "\n" for row in rows))
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        first_is_whole = 2 * max((len(row[0]) for row in rows), default=0) <= self.width  # half an id cannot be copied
        for number, name in enumerate(names):
            table.add_column(name, overflow="fold", no_wrap=first_is_whole and number == 0)
        for row in rows:
            table.add_row(*(Text(_cell(cell)) for cell in row))
        self._console.print(table)

    @property
    def width(self) -> int:
        """How many characters a line of the terminal has."""
        return self._console.width if self._console is not None else 0

    def begin_line(self) -> None:
        if not self._at_line_start:
            self.say("\n")

    def pass_on(self, data: bytes) -> None:
        """Bytes for programs: as they are, but for a terminal."""
        stream_out(clean(data.decode(errors="replace")).encode() if self.is_terminal else data)
