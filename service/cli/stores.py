"""Commands that ask the stores themselves, and how they end where these do not answer."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import typer

from service.cli.streams import say
from service.model.errors import ConfigurationError, NotFound, StoreUnavailable, StoreUnreachable
from service.model.ids import TaskId, parse_task_id
from service.registry.event_page import LogGone
from service.settings import PREFIX, Settings, load_settings

NOT_FOUND_EXIT: Final = 3
UNREACHABLE_EXIT: Final = 5

_Result = TypeVar("_Result")


def shared_stores() -> Settings:
    """The settings, which name both stores. Raises ConfigurationError: embedded ones are their service's own."""
    settings = load_settings()
    urls = {"REDIS_URL": settings.redis_url, "POSTGRES_URL": settings.postgres_url}
    if missing := [PREFIX + name for name, url in urls.items() if url is None]:
        raise ConfigurationError(f"{' and '.join(missing)}: needed: logs are read where their service keeps them")
    return settings


def task_of(text: str) -> TaskId:
    """The task that was named. What no task can be called is not there, as any other that there is not."""
    try:
        return parse_task_id(text)
    except NotFound as error:
        say(f"playhead: {error}")
        raise typer.Exit(NOT_FOUND_EXIT) from None


def run(command: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a command to its end. One line on stderr and an exit code of its own for what is not there: a log, a store.

    Every other error is `app.main`'s.
    """
    code, first = 0, ""
    try:
        return asyncio.run(command)
    except* (NotFound, LogGone) as errors:
        code, first = NOT_FOUND_EXIT, _first(errors)
    except* (StoreUnavailable, StoreUnreachable) as errors:
        code, first = UNREACHABLE_EXIT, _first(errors)
    say(f"playhead: {first}")
    raise typer.Exit(code)


def _first(error: BaseException) -> str:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else str(error)
