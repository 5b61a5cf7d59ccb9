"""`playhead tasks` and `playhead cancel`."""

from functools import partial
from typing import Annotated, Final

import orjson
import typer

from service.access.owners import owner_id
from service.cli.doors import Door, JsonOption, StoresOption, TokenOption, UrlOption, Where, run
from service.cli.listing import Column, Listing, age, of, show_all
from service.cli.screen import Screen
from service.model.errors import InvalidInput
from service.model.ids import OwnerId, TaskId, parse_session_id, parse_task_id
from service.model.task import TaskFilter, TaskKind, TaskStatus

USUAL_ENTRIES: Final = 20

LISTING: Final = Listing(
    (
        Column("id", of("id")),
        Column("status", of("status")),
        Column("age", age("created_at")),
        Column("took", age("started_at", "finished_at"), 64),
        Column("error", of("error_type"), 64),
        Column("session", of("session_id"), 130),
    ),
    ("id", "status", "kind", "session_id", "created_at", "started_at", "finished_at", "error_type"),
)

LimitOption = Annotated[int, typer.Option(min=1, help="So many at most.")]
AllOption = Annotated[bool, typer.Option("--all", help="All of them, however many there are.")]


def tasks(
    status: Annotated[TaskStatus | None, typer.Option(help="Only those of this status.")] = None,
    kind: Annotated[TaskKind | None, typer.Option(help="Only those of this kind.")] = None,
    session: Annotated[str | None, typer.Option(help="Only those of this session.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only those of this owner.")] = None,
    limit: LimitOption = USUAL_ENTRIES,
    everything: AllOption = False,  # noqa: FBT002 - typer makes a flag of it
    as_json: JsonOption = False,  # noqa: FBT002
    url: UrlOption = None,
    token: TokenOption = None,
    stores: StoresOption = False,  # noqa: FBT002
) -> None:
    """List tasks, the newest first.

    In a pipe a line each, with tabs between: id, status, kind, session, created, started, finished, error type.
    """
    wanted = TaskFilter(status, kind, None if session is None else parse_session_id(session), _owner(owner))
    run(Where(url, token, stores), partial(_list, wanted, None if everything else limit, as_json=as_json))


def cancel(
    task: Annotated[str, typer.Argument(help="The task's id.")],
    as_json: JsonOption = False,  # noqa: FBT002 - typer makes a flag of it
    url: UrlOption = None,
    token: TokenOption = None,
    stores: StoresOption = False,  # noqa: FBT002
) -> None:
    """Have a task ended as cancelled; its log says when it has. One that has ended stays as it is."""
    run(Where(url, token, stores), partial(_cancel, parse_task_id(task), as_json=as_json))


async def _list(wanted: TaskFilter, limit: int | None, door: Door, *, as_json: bool) -> int:
    await show_all(door.tasks(wanted, limit), LISTING, as_json=as_json)
    return 0


async def _cancel(task_id: TaskId, door: Door, *, as_json: bool) -> int:
    task, screen = await door.cancel(task_id), Screen()
    if as_json:
        screen.pass_on(orjson.dumps(task, option=orjson.OPT_APPEND_NEWLINE))
        return 0
    status = task.get("status")
    has_ended = status not in ("queued", "waiting", "running")
    screen.line(f"The task had ended before: {status}." if has_ended else f"The task is {status}, and is being ended.")
    return 0


def _owner(text: str | None) -> OwnerId | None:
    owner = None if text is None else owner_id(text)
    if text is not None and owner is None:
        raise InvalidInput("--owner: 1 to 255 characters are taken, and no control characters.")
    return owner
