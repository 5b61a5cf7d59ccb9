"""The standard streams, any of which may be closed, full, or a pipe that nobody reads any more.

What a service says on them is for people: it goes on without. A command whose output is its purpose fails.
"""

import os
import sys
from contextlib import suppress
from io import TextIOWrapper

from service.model.errors import ConfigurationError, PlayheadError


class NobodyReads(PlayheadError):
    """Whoever read the output has gone."""


def open_closed_streams() -> None:
    """Take the numbers of streams that are closed, or a socket is given one, and what is said is sent over it.

    Writing to such a stream fails, as it does on a closed one.
    """
    while (number := os.open(os.devnull, os.O_RDONLY)) <= 2:
        pass
    os.close(number)
    sys.stdout = sys.stdout or open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - until the process ends
    sys.stderr = sys.stderr or open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


def show_what_can_be_shown() -> None:
    """Have `?` on stdout for what its encoding does not have; on stderr Python writes such characters in ASCII."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def say(line: str) -> None:
    """Print a line on stderr, if it can be written."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)  # noqa: T201


def tell(text: str) -> None:
    """Print lines on stdout, if they can be written."""
    with suppress(OSError):
        print(text, flush=True)  # noqa: T201


def write_out(text: str | bytes) -> None:
    """Write what a command is for on stdout. Raises ConfigurationError where it cannot be written."""
    try:
        if isinstance(text, bytes):
            sys.stdout.buffer.write(text)
        else:
            sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        raise ConfigurationError(f"standard output: cannot be written: {error.strerror}") from error


def stream_out(data: bytes) -> None:
    """Write the next of what a command goes on to write on stdout. Waits for a reader that is slow.

    Raises NobodyReads where it has gone, which is how a pipe ends, and ConfigurationError for any other reason.
    """
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:
        raise NobodyReads from error
    except OSError as error:
        raise ConfigurationError(f"standard output: cannot be written: {error.strerror}") from error


def give_up_lost() -> None:
    """Drop what is held back of a stream that cannot be written, else the interpreter ends with a code of its own."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
