"""`playhead verify`: the proof of a log, where it is stored or in an exported file."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final

import orjson
import typer

from service.cli import exits
from service.cli.doors import Door, JsonOption, StoresOption, TokenOption, UrlOption, Where, run
from service.cli.screen import Screen
from service.http.bodies import verdict_body
from service.model.errors import ConfigurationError
from service.model.export import MAX_LINE_BYTES, prove_export
from service.model.ids import TaskId, parse_task_id
from service.model.verdict import Verdict

_PLACES: Final = MappingProxyType(
    {
        "hot": "in Redis",
        "archived": "in the archive",
        "both": "in the archive and in Redis",
        "nowhere": "nothing is written yet",
        "file": "in the file",
    }
)


def verify(
    task: Annotated[str | None, typer.Argument(help="The task whose log is proven.")] = None,
    file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Prove this exported file instead, by itself.")
    ] = None,
    as_json: JsonOption = False,  # noqa: FBT002 - typer makes a flag of it
    url: UrlOption = None,
    token: TokenOption = None,
    stores: StoresOption = False,  # noqa: FBT002
) -> None:
    """Prove a log: nothing is missing, nothing was changed, nothing stands behind its end.

    A file is proven by itself: no service and no store is asked.
    """
    if (task is None) == (file is None):
        raise typer.BadParameter("give a task or --file, one of the two")
    if file is not None:
        raise typer.Exit(_show(verdict_body(_of_file(file)), as_json=as_json))
    run(Where(url, token, stores), partial(_verify, parse_task_id(task or ""), as_json=as_json))


async def _verify(task_id: TaskId, door: Door, *, as_json: bool) -> int:
    return _show(await door.verify(task_id), as_json=as_json)


def _of_file(file: Path) -> Verdict:
    try:
        with file.open("rb") as stream:
            return prove_export(iter(partial(stream.readline, MAX_LINE_BYTES), b""))
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from error


def _show(verdict: Mapping[str, Any], *, as_json: bool) -> int:
    """Print it; answers the exit code."""
    is_proven, screen = verdict.get("proven") is True, Screen()
    if as_json:
        screen.pass_on(orjson.dumps(verdict, option=orjson.OPT_APPEND_NEWLINE))
        return 0 if is_proven else exits.NOT_PROVEN
    *facts, last = _told(verdict, is_proven=is_proven)
    for line in facts:
        screen.line(line)
    screen.line(last, "bold green" if is_proven else "bold red")
    return 0 if is_proven else exits.NOT_PROVEN


def _told(verdict: Mapping[str, Any], *, is_proven: bool) -> list[str]:
    """The verdict as lines for people."""
    get, findings, more = verdict.get, verdict.get("findings") or [], verdict.get("findings_not_listed") or 0
    reach = f", {get('first')} to {get('last')}" if get("events") else ""
    place = _PLACES.get(str(get("read_from")), "somewhere")
    lines = [
        f"task      {get('task_id') or 'unknown'}",
        f"log       {'closed' if get('closed') else 'open'}, {get('events')} events{reach}",
        f"read      {place}{', redacted' if get('redacted') else ''}",
        f"sha256    {get('sha256')}",
    ]
    lines += [
        f"finding   {each.get('type')} at {each.get('position') or 'the beginning'}: {each.get('detail')}"
        for each in findings
    ]
    if more:
        lines += [f"finding   and {more} more"]
    if not is_proven:
        return [*lines, f"not proven: {len(findings) + more} found"]
    return [*lines, "proven" if get("closed") else "proven as far as it is written"]
