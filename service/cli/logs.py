"""Logs are data on stderr: an action first, then its fields; lines for people on a terminal, JSON otherwise.

No line repeats a message or a secret. An exception is told by its type and the places that it came through, with all
that led to it, and never by its text: whoever raised it may have put anything there. What a library logs in its own
words is told by the place where those words stand.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from traceback import FrameSummary, StackSummary, extract_tb
from types import TracebackType
from typing import Final, TextIO

import structlog
from structlog.typing import ExcInfo, Processor

from service.cli.streams import say

QUIET: Final = ("aio_pika", "aiormq")
"""Libraries of which nothing is passed on: they tell of each try to reach what is away, and we of the first one."""

MAX_EXCEPTIONS: Final = 16
"""Of one traceback: what was raised, and the nearest of what led to it."""

MAX_FRAMES: Final = 40
"""Of one exception: those nearest to where it was raised."""

log = structlog.get_logger()


class _Lines:
    """Where finished lines go. A log that cannot be written any more stops nobody."""

    def msg(self, line: str) -> None:
        say(line)

    debug = info = warning = error = critical = msg


def configure_logs() -> None:
    """Send to stderr what the house logs, what libraries log as a warning or worse, and what nobody catches."""
    structlog.configure(
        processors=rendering(for_people=sys.stderr.isatty()),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=_Lines,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_LibraryLogs()], level=logging.WARNING, force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.excepthook = _uncaught
    sys.unraisablehook = lambda hook: _uncaught(hook.exc_type, hook.exc_value, hook.exc_traceback)
    threading.excepthook = lambda hook: _uncaught(hook.exc_type, hook.exc_value, hook.exc_traceback)


def rendering(*, for_people: bool) -> list[Processor]:
    """The steps that make a line of what is logged."""
    stamps: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if for_people:
        return [*stamps, structlog.dev.ConsoleRenderer(exception_formatter=_write_traceback)]
    return [
        *stamps,
        structlog.processors.ExceptionRenderer(lambda exc_info: traceback_of(exc_info[1])),
        structlog.processors.EventRenamer("action"),
        structlog.processors.JSONRenderer(),
    ]


def traceback_of(error: BaseException) -> str:
    """Types and places: of what was raised, then of what led to it; each with the nearest call last."""
    return "".join(_paragraphs(error)).removesuffix("\n")


def _paragraphs(error: BaseException) -> Iterator[str]:
    waiting, told = [("", error)], set[int]()
    while waiting:
        relation, one = waiting.pop()
        if id(one) in told:
            continue
        if len(told) == MAX_EXCEPTIONS:
            yield "and more\n"
            return
        told.add(id(one))
        yield f"{relation}{_name(type(one))}\n"
        yield from extract_tb(one.__traceback__, limit=-MAX_FRAMES).format()
        if one.__cause__ is not None:
            waiting.append(("caused by ", one.__cause__))
        elif one.__context__ is not None and not one.__suppress_context__:
            waiting.append(("amid ", one.__context__))
        if isinstance(one, BaseExceptionGroup):
            waiting += [("with ", member) for member in reversed(one.exceptions)]


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _write_traceback(sio: TextIO, exc_info: ExcInfo) -> None:
    sio.write("\n" + traceback_of(exc_info[1]))


class _LibraryLogs(logging.Handler):
    """Passes on what libraries log, without their words."""

    def emit(self, record: logging.LogRecord) -> None:
        tell = log.error if record.levelno >= logging.ERROR else log.warning
        place = FrameSummary(record.pathname, record.lineno, record.funcName)
        fields = {"logger": record.name, "place": "".join(StackSummary.from_list([place]).format()).strip()}
        if record.name == "asyncio":
            fields["said"] = _heading(str(record.msg))
        tell("library_logged", **fields, exc_info=record.exc_info and record.exc_info[1])


def _heading(message: str) -> str:
    """What happened, in asyncio's words: all of these are logged at one place. Behind a bracket come values."""
    return message.partition("\n")[0].partition("(")[0].partition("<")[0].strip()


def _uncaught(kind: type[BaseException], error: BaseException | None, _traceback: TracebackType | None) -> None:
    log.critical("uncaught", error=_name(kind), exc_info=error)
