"""`playhead verify`: the proof of a log, in the stores or in an exported file."""

import asyncio
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

import orjson
import typer

from service.cli import exits
from service.cli.stores import shared_stores
from service.cli.streams import write_out
from service.http.bodies import verdict_body
from service.model.errors import ConfigurationError
from service.model.export import MAX_LINE_BYTES, prove_export
from service.model.ids import TaskId, parse_task_id
from service.model.verdict import Verdict
from service.settings import Settings
from service.wiring import make_prover, open_house

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
    task: Annotated[str | None, typer.Argument(help="The task whose log is proven, in the stores.")] = None,
    file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Prove this exported file instead, by itself.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found out as JSON.")] = False,  # noqa: FBT002
) -> None:
    """Prove a log: nothing is missing, nothing was changed, nothing stands behind its end.

    A task needs PLAYHEAD_REDIS_URL and PLAYHEAD_POSTGRES_URL, a file needs neither. Exit codes: 0 proven, 4 something
    was found, 3 no such task, 5 a store does not answer, 2 it cannot be done as it was asked for.
    """
    if (task is None) == (file is None):
        raise typer.BadParameter("give a task or --file, one of the two")
    if file is not None:
        verdict = _of_file(file)
    else:
        task_id = parse_task_id(task or "")
        verdict = asyncio.run(_of_task(shared_stores(), task_id))
    write_out(orjson.dumps(verdict_body(verdict), option=orjson.OPT_APPEND_NEWLINE) if as_json else told(verdict))
    if not verdict.is_proven:
        raise typer.Exit(exits.NOT_PROVEN)


def told(verdict: Verdict) -> str:
    """The verdict as lines for people."""
    reach = f", {verdict.first} to {verdict.last}" if verdict.events else ""
    lines = [
        f"task      {verdict.task_id or 'unknown'}",
        f"log       {'closed' if verdict.closed else 'open'}, {verdict.events} events{reach}",
        f"read      {_PLACES[verdict.read_from]}{', redacted' if verdict.redacted else ''}",
        f"sha256    {verdict.sha256.hex()}",
    ]
    lines += [
        f"finding   {each.type} at {each.position or 'the beginning'}: {each.detail}" for each in verdict.findings
    ]
    if verdict.findings_not_listed:
        lines += [f"finding   and {verdict.findings_not_listed} more"]
    if not verdict.is_proven:
        lines += [f"not proven: {len(verdict.findings) + verdict.findings_not_listed} found"]
    else:
        lines += ["proven" if verdict.closed else "proven as far as it is written"]
    return "\n".join(lines) + "\n"


async def _of_task(settings: Settings, task_id: TaskId) -> Verdict:
    async with open_house(settings) as house:
        return await make_prover(house).prove(task_id)


def _of_file(file: Path) -> Verdict:
    try:
        with file.open("rb") as stream:
            return prove_export(iter(partial(stream.readline, MAX_LINE_BYTES), b""))
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from error
