"""The `playhead` command."""

import sys
from typing import Final

import typer

from service.cli.export import export
from service.cli.keys import keys
from service.cli.logs import configure_logs
from service.cli.schema import schema
from service.cli.serve import serve
from service.cli.streams import give_up_lost, open_closed_streams, say
from service.cli.verify import verify
from service.model.errors import PlayheadError

USAGE_EXIT: Final = 2
"""What was asked for cannot be done as it was asked: the line on stderr says why."""
INTERRUPTED_EXIT: Final = 130

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(serve)
app.command()(verify)
app.command()(export)
app.add_typer(schema, name="schema")
app.add_typer(keys, name="keys")


@app.callback()
def playhead() -> None:
    """Runs AI agents and never loses a step."""
    configure_logs()


def main() -> None:
    """Run a command; what is wrong with its input or its surroundings is one line on stderr and exit code 2."""
    code = 0
    open_closed_streams()
    try:
        app()
    except* PlayheadError as errors:
        say(f"playhead: {_first(errors)}")
        code = USAGE_EXIT
    except* KeyboardInterrupt:
        code = INTERRUPTED_EXIT
    finally:
        give_up_lost()
    sys.exit(code)  # not inside `except*`: there Python 3.11.2 makes a group of it, and a traceback


def _first(error: BaseException) -> BaseException:
    """What went wrong first, out of the groups of tasks that it went through."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
