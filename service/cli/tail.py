"""`playhead tail`: a task's log, live."""

from contextlib import aclosing
from functools import partial
from typing import Annotated

import typer

from service.cli.doors import Door, StoresOption, TokenOption, UrlOption, Where, run
from service.cli.exits import code_of_task
from service.cli.screen import Screen
from service.cli.shown import Form, Shown, status_of
from service.model.ids import TaskId, parse_task_id
from service.model.position import BEGINNING, Position


def tail(
    task: Annotated[str, typer.Argument(help="The task's id.")],
    form: Annotated[
        Form, typer.Option("--as", help="For people, as server-sent events, or a line of JSON each.")
    ] = Form.TEXT,
    after: Annotated[str, typer.Option(help="Begin behind this position.")] = str(BEGINNING),
    url: UrlOption = None,
    token: TokenOption = None,
    stores: StoresOption = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Show a task's log, what is there and then live, to its end.

    A connection that breaks is replaced, and nothing comes twice; after three minutes without any it gives up.
    """
    run(Where(url, token, stores), partial(_tail, parse_task_id(task), Position.parse(after), form))


async def _tail(task_id: TaskId, after: Position, form: Form, door: Door) -> int:
    status = (await door.task(task_id))["status"]  # so a task or a service that there is not is told at once
    shown = Shown(form, Screen())
    async with aclosing(door.follow(task_id, after)) as events:
        async for event in events:
            shown.show(event)
            status = status_of(event) or status
    return code_of_task(status)
