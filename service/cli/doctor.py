"""`playhead doctor`: what is configured, what can be reached, how far behind it is."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from shlex import quote

import orjson
import typer

from service.cli import exits
from service.cli.diagnosis import Diagnosis, diagnose
from service.cli.doors import JsonOption, UrlOption
from service.cli.listing import in_words
from service.cli.screen import Screen
from service.model.task import Backlog
from service.settings import load_settings


def doctor(
    as_json: JsonOption = False,  # noqa: FBT002 - typer makes a flag of it
    url: UrlOption = None,
) -> None:
    """Say what is configured and where it comes from, what can be reached, and how far behind it is.

    Looks at the stores themselves and at the service; changes nothing. Exit code 0 when all is well, 5 when something
    cannot be reached or does not work now, 2 when something is not as it must be.
    """
    diagnosis = asyncio.run(diagnose(load_settings(), url))
    screen, code = Screen(), _code(diagnosis)
    if as_json:
        screen.pass_on(_json(diagnosis, is_well=code == 0))
    else:
        _tell(diagnosis, screen)
        screen.line("all is well" if code == 0 else "not well", "bold green" if code == 0 else "bold red")
    raise typer.Exit(code)


def _code(diagnosis: Diagnosis) -> int:
    states = {each.state for each in diagnosis.looked}
    return exits.UNREACHABLE if "unreachable" in states else exits.USAGE if "wrong" in states else 0


def _tell(diagnosis: Diagnosis, screen: Screen) -> None:
    rows = [(each.name, each.value, each.source) for each in diagnosis.settings]
    screen.table(("setting", "value", "from"), rows)
    screen.line("")
    for each in diagnosis.looked:
        screen.line(f"{each.name:10}{each.state:13}{each.detail}", "" if each.state == "ok" else "red")
    if diagnosis.backlog is not None:
        for line in behind(diagnosis.backlog):
            screen.line(line)
    if diagnosis.embedded:
        screen.line("\nThe stores are those of the service that runs on the data folder. A second process sets:")
        for name, value in diagnosis.embedded.items():
            screen.line(f"{name}={quote(value)}")
    screen.line("")


def behind(backlog: Backlog) -> Sequence[str]:
    """How far behind the service is, as lines for people."""
    waiting = _oldest(backlog.oldest_queued_seconds)
    return (
        f"tasks     {backlog.queued} queued{waiting}; {backlog.running} running; {backlog.lapsed} with a lapsed lease",
        f"logs      {backlog.unarchived} closed and not archived{_oldest(backlog.oldest_unarchived_seconds)}",
        f"sessions  {backlog.unremoved} deleted and not removed",
    )


def _oldest(seconds: float | None) -> str:
    return "" if seconds is None else f", the oldest for {in_words(seconds)}"


def _json(diagnosis: Diagnosis, *, is_well: bool) -> bytes:
    found = {
        "well": is_well,
        "settings": [asdict(each) for each in diagnosis.settings],
        "looked": [{**asdict(each), "facts": dict(each.facts)} for each in diagnosis.looked],
        "backlog": None if diagnosis.backlog is None else asdict(diagnosis.backlog),
        "embedded": dict(diagnosis.embedded),
    }
    return orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE)
