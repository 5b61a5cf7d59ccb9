"""The `playhead` command."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from service.adapters.postgres_schema import KNOWN_VERSION
from service.cli import exits
from service.cli.demo import demo
from service.cli.doctor import doctor
from service.cli.export import export
from service.cli.keys import keys
from service.cli.logs import configure_logs
from service.cli.operations import operations
from service.cli.replay import replay
from service.cli.schema import schema
from service.cli.screen import clean
from service.cli.serve import serve
from service.cli.sessions import sessions
from service.cli.streams import NobodyReads, give_up_lost, open_closed_streams, say, show_what_can_be_shown
from service.cli.tail import tail
from service.cli.tasks import cancel, tasks
from service.cli.verify import verify
from service.model.errors import PlayheadError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, epilog=exits.HELP)
app.command()(serve)
for command in (demo, tail, replay, tasks, cancel, verify, export, doctor):
    app.command(epilog=exits.HELP)(command)
app.add_typer(sessions, name="sessions")
app.add_typer(operations, name="operations")
app.add_typer(schema, name="schema")
app.add_typer(keys, name="keys")


def _tell_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        print(f"playhead {version('playhead')}, schema version {KNOWN_VERSION}")  # noqa: T201 - asked for, and all
        raise typer.Exit


@app.callback()
def playhead(
    version: Annotated[  # noqa: FBT002 - typer makes a flag of it
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Runs AI agents and never loses a step."""
    configure_logs()


def main() -> None:
    """Run a command; what it cannot do is one line on stderr, and an exit code by its kind."""
    code = 0
    open_closed_streams()
    show_what_can_be_shown()
    try:
        app()
    except* PlayheadError as errors:
        error = _first(errors)
        if not isinstance(error, NobodyReads):
            say(f"playhead: {clean(str(error)).replace(chr(10), ' ')}")
        code = exits.code_of(error)
    except* KeyboardInterrupt:
        code = exits.INTERRUPTED
    finally:
        give_up_lost()
    sys.exit(code)  # not inside `except*`: there Python 3.11.2 makes a group of it, and a traceback


def _first(error: BaseException) -> BaseException:
    """What went wrong first, out of the groups of tasks that it went through."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
