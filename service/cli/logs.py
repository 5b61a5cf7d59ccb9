"""Logs are data on stderr: an action first, then its fields; lines for people on a terminal, JSON otherwise."""

import logging
import sys

import structlog
from structlog.typing import Processor

from service.cli.streams import say


class _Lines:
    """Where finished lines go. A log that cannot be written any more stops nobody."""

    def msg(self, line: str) -> None:
        say(line)

    debug = info = warning = error = critical = msg


def configure_logs() -> None:
    """Send the house's logs to stderr. Tracebacks come without the values of variables, which may be messages."""
    renderers: list[Processor]
    if sys.stderr.isatty():
        renderers = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    else:
        renderers = [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("action"),
            structlog.processors.JSONRenderer(),
        ]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=_Lines,
        cache_logger_on_first_use=True,
    )
