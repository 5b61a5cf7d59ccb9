"""`playhead serve`: the service, whole or in part."""

import asyncio
import signal
from contextlib import AsyncExitStack
from enum import StrEnum
from typing import Annotated

import structlog
import typer

from consumers.tasks import DRAIN_SECONDS
from service.cli.streams import tell
from service.http.app import serving
from service.settings import Settings, load_settings
from service.wiring import open_app, open_house, open_worker

log = structlog.get_logger()


class Part(StrEnum):
    """What can run alone."""

    HTTP = "http"
    TASKS = "tasks"


def serve(only: Annotated[Part | None, typer.Option(help="Run this part alone.")] = None) -> None:
    """Run the service until it is told to stop (Ctrl-C, SIGTERM)."""
    asyncio.run(run_parts(load_settings(), set(Part) if only is None else {only}))


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
        tell(f"redis     {urls.redis}\npostgres  {urls.postgres}")
        if settings.amqp_url is not None:
            tell("amqp      not used yet: completions over AMQP are not taken")
        if Part.HTTP in parts:
            app = await stack.enter_async_context(open_app(house, settings))
            served = serving(
                app, settings.http_host, settings.http_port, write_timeout_seconds=settings.write_timeout_seconds
            )
            url = await stack.enter_async_context(served)
            tell(f"listening on {url}")
        if Part.TASKS in parts:
            worker = await stack.enter_async_context(open_worker(house, settings))
            tell(f"model     {settings.model or 'demo'}")
            await worker.run(stop)
        await stop.wait()
