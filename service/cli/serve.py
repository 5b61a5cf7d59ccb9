"""`playhead serve`: the service, whole or in part."""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from enum import StrEnum
from typing import Annotated, Final

import structlog
import typer

from consumers.tasks import DRAIN_SECONDS
from service.http.app import serving
from service.settings import Settings, load_settings
from service.wiring import open_app, open_house, open_worker

log = structlog.get_logger()

LEAVE_SECONDS: Final = 1.0
"""How long what still runs when everything is closed may take to end."""

ABANDONED_EXIT: Final = 1


class Part(StrEnum):
    """What can run alone."""

    HTTP = "http"
    TASKS = "tasks"


def serve(only: Annotated[Part | None, typer.Option(help="Run this part alone.")] = None) -> None:
    """Run the service until it is told to stop (Ctrl-C, SIGTERM)."""
    asyncio.run(_run_and_leave(load_settings(), set(Part) if only is None else {only}))


async def _run_and_leave(settings: Settings, parts: set[Part]) -> None:
    try:
        await run_parts(settings, parts)
    finally:
        await end_what_is_left()


async def run_parts(settings: Settings, parts: set[Part]) -> None:
    """Open the stores, run these parts until a signal says stop, let running turns finish, close everything."""
    stop = asyncio.Event()

    def told_to_stop() -> None:
        log.info("stopping", waits_for_turns_seconds=DRAIN_SECONDS if Part.TASKS in parts else 0)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop)
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(open_house(settings))
        urls = house.urls.shown()
        typer.echo(f"redis     {urls.redis}\npostgres  {urls.postgres}")
        if Part.HTTP in parts:
            app = await stack.enter_async_context(open_app(house, settings))
            served = serving(
                app, settings.http_host, settings.http_port, write_timeout_seconds=settings.write_timeout_seconds
            )
            url = await stack.enter_async_context(served)
            typer.echo(f"listening on {url}")
        if Part.TASKS in parts:
            worker = await stack.enter_async_context(open_worker(house, settings))
            typer.echo(f"model     {settings.model or 'demo'}")
            await worker.run(stop)
        await stop.wait()


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
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ABANDONED_EXIT)
