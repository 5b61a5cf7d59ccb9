"""`playhead replay`: a task's log as it went."""

import asyncio
import sys
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from service.cli.doors import Door, StoresOption, TokenOption, UrlOption, Where, run
from service.cli.exits import code_of_task
from service.cli.screen import Screen
from service.cli.shown import Form, Shown, status_of
from service.model.errors import InvalidInput
from service.model.ids import TaskId, parse_task_id
from service.model.position import BEGINNING, Position

LONG_SECONDS: Final = 1.0
"""A replay that takes longer than this has a bar."""

BETWEEN_SECONDS: Final = 0.1
"""So often the bar is moved, at most."""


class Speed(StrEnum):
    """How fast, measured by the times of the events."""

    ORIGINAL = "1x"
    DOUBLE = "2x"
    MAX = "max"


class NoSuchEvent(InvalidInput):
    """The log has no event at this position."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """From which event to which, both with it; None is the log's own end."""

    first: Position | None
    last: Position | None

    def begins_at(self, position: Position) -> bool:
        """Whether this event belongs to it or comes behind. Raises NoSuchEvent where its beginning was passed over."""
        return self.first is None or _reached(position, self.first)

    def ends_at(self, position: Position) -> bool:
        """Whether this event is its last. Raises NoSuchEvent where that was passed over."""
        return self.last is not None and _reached(position, self.last)


def replay(
    task: Annotated[str, typer.Argument(help="The task's id.")],
    first: Annotated[str | None, typer.Option("--from", help="Begin with the event at this position.")] = None,
    last: Annotated[str | None, typer.Option("--until", help="End with the event at this position.")] = None,
    speed: Annotated[Speed, typer.Option(help="As fast as it went, twice as fast, or at once.")] = Speed.ORIGINAL,
    form: Annotated[
        Form, typer.Option("--as", help="For people, as server-sent events, or a line of JSON each.")
    ] = Form.TEXT,
    url: UrlOption = None,
    token: TokenOption = None,
    stores: StoresOption = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Show a task's log as it went. What is still written is shown as it grows.

    When the output goes elsewhere, a bar on the terminal says how far it is.
    """
    stretch = Stretch(_position(first), _position(last))
    if stretch.first is not None and stretch.last is not None and stretch.last.n < stretch.first.n:
        raise InvalidInput("--until stands before --from.")
    run(Where(url, token, stores), partial(_replay, parse_task_id(task), stretch, speed, form))


async def _replay(task_id: TaskId, stretch: Stretch, speed: Speed, form: Form, door: Door) -> int:
    task = await door.task(task_id)
    screen = Screen()
    shown, status, pace, has_begun = Shown(form, screen), task["status"], _Pace(speed), False
    with ExitStack() as stack:
        bar = stack.enter_context(_Bar(task)) if sys.stderr.isatty() and not screen.is_terminal else None
        async with aclosing(door.follow(task_id, BEGINNING)) as events:
            async for event in events:
                if stretch.begins_at(event.position):
                    has_begun = True
                    await pace.keep(event.position.ms)
                    shown.show(event)
                    status = status_of(event) or status
                if bar is not None:
                    bar.move(event.position)
                if stretch.ends_at(event.position):
                    return 0
    if stretch.last is not None or not has_begun:
        raise NoSuchEvent
    return code_of_task(status)


def _position(text: str | None) -> Position | None:
    return None if text is None else Position.parse(text)


def _reached(position: Position, wanted: Position) -> bool:
    if position.n == wanted.n and position != wanted:
        raise NoSuchEvent
    return position.n >= wanted.n


class _Pace:
    """Lets each event wait for its time, counted from the first one: a late one makes no other late."""

    def __init__(self, speed: Speed) -> None:
        self._factor = {Speed.ORIGINAL: 1.0, Speed.DOUBLE: 0.5, Speed.MAX: 0.0}[speed]
        self._began: tuple[float, int] | None = None

    async def keep(self, ms: int) -> None:
        now = asyncio.get_running_loop().time()
        began_at, first_ms = self._began = self._began or (now, ms)
        early = began_at + (ms - first_ms) / 1000 * self._factor - now
        if early > 0:
            await asyncio.sleep(early)


class _Bar:
    """How far a replay is, by the times of the task where it has ended; on stderr, once it takes long."""

    def __init__(self, task: dict[str, Any]) -> None:
        begun, ended = _ms(task.get("created_at")), _ms(task.get("finished_at"))
        columns = (BarColumn(), TextColumn("{task.fields[events]} events"), TimeElapsedColumn())
        self._progress = Progress(
            *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._begun = begun or 0
        self._id = self._progress.add_task("", total=ended - begun if begun and ended else None, events=0)
        self._next = asyncio.get_running_loop().time() + LONG_SECONDS

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def move(self, position: Position) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._next:
            return
        self._next = now + BETWEEN_SECONDS
        self._progress.start()
        self._progress.update(self._id, completed=position.ms - self._begun, events=position.n)


def _ms(moment: Any) -> int | None:
    return round(datetime.fromisoformat(moment).timestamp() * 1000) if isinstance(moment, str) else None
