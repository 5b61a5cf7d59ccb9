"""`playhead serve`: the service, whole or in part."""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from enum import StrEnum
from typing import Annotated, Final, TypeAlias

import structlog
import typer
from aiohttp import web

from consumers.archiver import Archiver
from consumers.completions import Completions
from consumers.deadlines import Deadlines
from consumers.tasks import DRAIN_SECONDS, Worker
from service.cli.streams import tell
from service.http.app import serving
from service.model.errors import ConfigurationError
from service.settings import PREFIX, Settings, load_settings
from service.wiring import (
    House,
    make_archiver,
    make_operations,
    open_app,
    open_completions,
    open_house,
    open_probes,
    open_tracing,
    open_worker,
    without_password,
)

OPEN_FILES: Final = 65_536
"""As many descriptors as are asked for, where the hard limit allows it: each reader and each connection is one."""

LEAVE_SECONDS: Final = 1.0
"""How long what still runs when everything is closed may take to end."""

ABANDONED_EXIT: Final = 1

log = structlog.get_logger()


Consumer: TypeAlias = Worker | Completions | Deadlines | Archiver


class Part(StrEnum):
    """What can run alone."""

    HTTP = "http"
    TASKS = "tasks"
    COMPLETIONS = "completions"
    DEADLINES = "deadlines"
    ARCHIVER = "archiver"


def serve(
    only: Annotated[list[Part] | None, typer.Option(help="Run this part alone; say it again for more.")] = None,
) -> None:
    """Run the service until it is told to stop (Ctrl-C, SIGTERM, or a closed terminal).

    A part alone needs PLAYHEAD_REDIS_URL and PLAYHEAD_POSTGRES_URL: the stores that it shares with the others.
    """
    settings = load_settings()
    if only:
        refuse_private_stores(settings, "--only: a part alone shares its stores with the others")
        if Part.COMPLETIONS in only and settings.amqp_url is None:
            raise ConfigurationError(f"{PREFIX}AMQP_URL: needed with --only completions: that is where they come from")
    _raise_open_files()
    asyncio.run(_run_and_leave(settings, set(only or Part)))


def refuse_private_stores(settings: Settings, what_for: str) -> None:
    """Embedded stores are one process's own: what another one wrote there, nobody else would ever see."""
    urls = {"REDIS_URL": settings.redis_url, "POSTGRES_URL": settings.postgres_url}
    if missing := [PREFIX + name for name, url in urls.items() if url is None]:
        raise ConfigurationError(f"{' and '.join(missing)}: needed with {what_for}")


async def _run_and_leave(settings: Settings, parts: set[Part]) -> None:
    try:
        await run_parts(settings, parts)
    finally:
        await end_what_is_left()
        _ignore_further_stops()


async def run_parts(settings: Settings, parts: set[Part]) -> None:
    """Open the stores, run these parts until a signal says stop, let running turns finish, close everything.

    A start that is told to stop is cut short, and closes what it has opened.
    """
    loop, start = asyncio.get_running_loop(), asyncio.timeout(None)
    started, stop = asyncio.Event(), asyncio.Event()
    house: House | None = None

    def told_to_stop() -> None:
        if stop.is_set():
            log.info("still_stopping")
            return
        log.info("stopping", waits_for_turns_seconds=DRAIN_SECONDS if Part.TASKS in parts else 0)
        if house is not None:
            house.health.leave()
        if not started.is_set():
            loop.set_exception_handler(lambda *_: None)  # asyncpg leaves futures behind when its connecting is cut
            start.reschedule(loop.time())
        stop.set()

    async with AsyncExitStack() as stack:
        try:
            async with start:
                for number in _stops():
                    loop.add_signal_handler(number, told_to_stop)
                house, consumers = await _open_parts(stack, settings, parts)
                started.set()
        except TimeoutError:
            if not start.expired():
                raise
            return
        async with asyncio.TaskGroup() as tasks:
            for consumer in consumers:
                tasks.create_task(consumer.run(stop), name=type(consumer).__name__.lower())
            await stop.wait()


async def _open_parts(stack: AsyncExitStack, settings: Settings, parts: set[Part]) -> tuple[House, Sequence[Consumer]]:
    """Open what these parts need, and say where it is; answers the consumers too, which are still to be run."""
    house = await stack.enter_async_context(open_house(settings))
    urls = house.urls.shown()
    tell(f"redis     {urls.redis}\npostgres  {urls.postgres}")
    consumers: list[Consumer] = []
    if Part.COMPLETIONS in parts and settings.amqp_url is not None:
        consumers.append(await stack.enter_async_context(open_completions(house, settings.amqp_url)))
        tell(f"amqp      {without_password(settings.amqp_url)}")
    tracing = await stack.enter_async_context(open_tracing(settings))
    if Part.HTTP in parts:
        app = await stack.enter_async_context(open_app(house, settings, tracing))
        tell(f"listening on {await _serve(stack, app, settings, 'http_port')}")
    elif settings.probe_port is not None:
        app = await stack.enter_async_context(open_probes(house, settings))
        tell(f"probes on {await _serve(stack, app, settings, 'probe_port')}")
    if Part.ARCHIVER in parts:
        consumers.append(make_archiver(house, settings))
        tell(f"archiver  hot copies stay {settings.hot_ttl_seconds} s")
    if Part.DEADLINES in parts:
        consumers.append(Deadlines(make_operations(house)))
    if Part.TASKS in parts:
        consumers.append(await stack.enter_async_context(open_worker(house, settings, tracing)))
        if settings.workspace_dir is not None:
            tell(f"jobs      in {settings.workspace_dir.absolute()}")
        tell(f"model     {settings.model or 'demo'}")
    return house, consumers


async def _serve(stack: AsyncExitStack, app: web.Application, settings: Settings, port: str) -> str:
    """Serve at the port that this setting says; answers where."""
    served = serving(
        app,
        settings.http_host,
        getattr(settings, port),
        port_name=port.upper(),
        write_timeout_seconds=settings.write_timeout_seconds,
    )
    return await stack.enter_async_context(served)


def _stops() -> list[signal.Signals]:
    """The signals that say stop. A closed terminal does too, unless it was told beforehand not to (`nohup`)."""
    stays = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM] if stays else [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def _ignore_further_stops() -> None:
    """Nothing is left to stop. With the loop its handlers go, and a stop would end the process in mid-exit."""
    for number in _stops():
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


def _raise_open_files() -> None:
    """Have as many descriptors as we may: the usual soft limit of 1024 is for programs that `select`, and too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        log.warning("open_files_not_raised", soft=soft, wanted=wanted, cause=type(error).__name__)


async def end_what_is_left() -> None:
    """Cancel every other task of this loop; where one takes no notice, end the process without it, and say so.

    A turn that its worker could not stop, for one. `asyncio.run` would wait for it without a limit.
    """
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if not left:
        return
    _, stuck = await asyncio.wait(left, timeout=LEAVE_SECONDS)
    if stuck:
        log.error("tasks_abandoned", names=sorted(task.get_name() for task in stuck), exc_info=sys.exception())
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # whoever read it may be gone
                stream.flush()
        os._exit(ABANDONED_EXIT)
