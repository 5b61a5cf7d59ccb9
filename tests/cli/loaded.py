"""The command, loaded once: whoever connects has it run to its end in a process of its own, which is a fork.

    python -m tests.cli.loaded SOCKET

Loading takes most of the time of a run that is refused. A connection sends one line of JSON, `{"folder", "environment",
"arguments", "terminal", "interrupt_at"}`, and gets one, `{"code", "out", "err"}`. With `terminal` the command has a
pseudo-terminal for its streams, whose text is `out`; it is sent a Ctrl-C when it has shown `interrupt_at`. It says
`listening` when it does, and ends with its input.
"""

import json
import os
import pty
import select
import signal
import socket
import sys
import tempfile
from contextlib import ExitStack
from typing import IO, Any

from service.__main__ import main

BOUND_SECONDS = 30
"""A run that takes longer is ended by a signal (SIGALRM)."""


def asked_for(path: str) -> dict[str, Any] | None:
    """Answers twice: in each process that is to run the command, with what was asked; at the end, with None."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that answer are not waited for
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(64)
        print("listening", flush=True)
        while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
            with listening.accept()[0] as connection:
                if os.fork() == 0:
                    return asked_over(connection)
    return None


def asked_over(connection: socket.socket) -> dict[str, Any]:
    """What is asked, in a process of its own with streams of its own; the one that waits for it answers and is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with ExitStack() as stack:
        lines = stack.enter_context(connection.makefile("rw"))
        asked: dict[str, Any] = json.loads(lines.readline())
        streams = [stack.enter_context(tempfile.TemporaryFile()) for _ in ("out", "err")]
        process, terminal = pty.fork() if asked["terminal"] else (os.fork(), None)
        if process == 0:
            if terminal is None:
                take(streams)
            return asked
        if terminal is not None:
            streams[0].write(shown_on(terminal, process, asked["interrupt_at"]))
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        json.dump({"code": code, "out": text_of(streams[0]), "err": text_of(streams[1])}, lines)
    connection.close()
    os._exit(0)


def shown_on(terminal: int, process: int, interrupt_at: str | None) -> bytes:
    """All that comes to the terminal until nobody has its other side any more."""
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 65536)
        except OSError:
            return shown
        if interrupt_at is not None and interrupt_at.encode() in shown:
            os.kill(process, signal.SIGINT)
            interrupt_at = None


def take(streams: list[IO[bytes]]) -> None:
    """Have these as standard output and standard error, and nothing to read."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, stream in enumerate(streams, 1):
        os.dup2(stream.fileno(), number)


def text_of(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode()


if __name__ == "__main__":
    asked = asked_for(sys.argv[1])
    if asked is not None:
        signal.alarm(BOUND_SECONDS)
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv = ["playhead", *asked["arguments"]]
        main()
