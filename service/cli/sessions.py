"""`playhead sessions`: conversations."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final

import orjson
import typer

from service.cli import exits
from service.cli.doors import Door, JsonOption, StoresOption, TokenOption, UrlOption, Where, run
from service.cli.listing import Column, Listing, age, of, show_all, shown
from service.cli.screen import Screen
from service.cli.shown import NOTE, text_of
from service.cli.tasks import USUAL_ENTRIES, AllOption, LimitOption
from service.model.errors import InvalidInput
from service.model.ids import SessionId, parse_session_id
from service.model.session import MAX_TITLE_CHARACTERS, SessionSettings

LISTING: Final = Listing(
    (
        Column("id", of("id")),
        Column("status", of("status")),
        Column("age", age("created_at")),
        Column("owner", of("owner"), 64),
        Column("title", of("title"), 64),
        Column("model", of("model"), 110),
    ),
    ("id", "status", "owner", "created_at", "model", "title"),
)
_FACTS: Final = ("id", "status", "owner", "created_at", "title", "model", "max_iterations", "max_seconds", "tools")

sessions = typer.Typer(no_args_is_help=True, help="Conversations.")
SessionArgument = Annotated[str, typer.Argument(metavar="ID", help="The session's id.")]


@sessions.command("list", epilog=exits.HELP)
def list_sessions(
    limit: LimitOption = USUAL_ENTRIES,
    everything: AllOption = False,  # noqa: FBT002 - typer makes a flag of it
    as_json: JsonOption = False,  # noqa: FBT002
    url: UrlOption = None,
    token: TokenOption = None,
    stores: StoresOption = False,  # noqa: FBT002
) -> None:
    """List sessions, the newest first.

    In a pipe a line each, with tabs between: id, status, owner, created, model, title.
    """
    run(Where(url, token, stores), partial(_list, None if everything else limit, as_json=as_json))


@sessions.command("show", epilog=exits.HELP)
def show(
    session: SessionArgument,
    as_json: JsonOption = False,  # noqa: FBT002 - typer makes a flag of it
    url: UrlOption = None,
    token: TokenOption = None,
    stores: StoresOption = False,  # noqa: FBT002
) -> None:
    """Show a session and its newest messages, with the task that each belongs to."""
    run(Where(url, token, stores), partial(_show, parse_session_id(session), as_json=as_json))


@sessions.command("create", epilog=exits.HELP)
def create(
    title: Annotated[str | None, typer.Option(help="What it is called.")] = None,
    as_json: JsonOption = False,  # noqa: FBT002 - typer makes a flag of it
    url: UrlOption = None,
    token: TokenOption = None,
    stores: StoresOption = False,  # noqa: FBT002
) -> None:
    """Make a session, and print its id. With --stores it is nobody's yet."""
    if title is not None and not (0 < len(title) <= MAX_TITLE_CHARACTERS and title.isprintable()):
        raise InvalidInput(f"--title: 1 to {MAX_TITLE_CHARACTERS} characters are taken that can be printed.")
    run(Where(url, token, stores), partial(_create, SessionSettings(title=title), as_json=as_json))


@sessions.command("delete", epilog=exits.HELP)
def delete(
    session: SessionArgument,
    url: UrlOption = None,
    token: TokenOption = None,
    stores: StoresOption = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Delete a session: nobody finds it any more, what runs of it is cancelled, its messages and logs go soon after."""
    run(Where(url, token, stores), partial(_delete, parse_session_id(session)))


async def _list(limit: int | None, door: Door, *, as_json: bool) -> int:
    await show_all(door.sessions(limit), LISTING, as_json=as_json)
    return 0


async def _show(session_id: SessionId, door: Door, *, as_json: bool) -> int:
    session, screen = await door.session(session_id), Screen()
    if as_json:
        screen.pass_on(orjson.dumps(session, option=orjson.OPT_APPEND_NEWLINE))
        return 0
    for name in _FACTS:
        if session.get(name) is not None:
            screen.line(f"{name.replace('_', ' '):14} {session[name]}")
    if session.get("earlier") is not None:
        screen.line("There are messages before these.", NOTE)
    for message in session.get("messages") or []:
        _show_message(message, str(message.get("role")), screen)
    for message in session.get("pending") or []:
        _show_message(message, "pending", screen)
    return 0


def _show_message(message: Mapping[str, Any], role: str, screen: Screen) -> None:
    task = f", task {message['task_id']}" if message.get("task_id") else ""
    screen.line(f"\n[{role} at {shown(message.get('created_at'))}{task}]", NOTE)
    screen.line(text_of(message))


async def _create(settings: SessionSettings, door: Door, *, as_json: bool) -> int:
    session_id, screen = await door.create_session(settings), Screen()
    if as_json:
        screen.pass_on(orjson.dumps({"id": session_id}, option=orjson.OPT_APPEND_NEWLINE))
    else:
        screen.line(session_id)
    return 0


async def _delete(session_id: SessionId, door: Door) -> int:
    await door.delete_session(session_id)
    Screen().line(f"Session {session_id} is deleted.")
    return 0
