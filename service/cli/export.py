"""`playhead export`: a closed log as a file."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer

from service.cli.stores import shared_stores
from service.cli.streams import write_out
from service.model.errors import ConfigurationError
from service.model.ids import TaskId, parse_task_id
from service.settings import Settings
from service.wiring import make_exporter, open_follower, open_house


def export(
    task: Annotated[str, typer.Argument(help="The task whose log is exported.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", dir_okay=False, help="Write to this file, not to stdout.")
    ] = None,
    redact: Annotated[  # noqa: FBT002
        bool, typer.Option("--redact", help="Blank what people and models said; lengths and positions stay.")
    ] = False,
) -> None:
    """Export the log of a task that has ended, as lines of JSON, to be proven with `playhead verify --file`.

    Needs PLAYHEAD_REDIS_URL and PLAYHEAD_POSTGRES_URL. A file without its last line, which has the counts, is not
    whole. Exit codes: 0 all of it was written, 3 no such task or nothing of its log is left, 5 a store does not answer,
    2 it cannot be done as it was asked for.
    """
    task_id = parse_task_id(task)
    asyncio.run(_export(shared_stores(), task_id, output, redact=redact))


async def _export(settings: Settings, task_id: TaskId, output: Path | None, *, redact: bool) -> None:
    async with open_house(settings) as house, open_follower(house, settings) as follower:
        exporter = make_exporter(house, follower)
        seal = await exporter.seal_of(task_id)
        async with aclosing(exporter.lines(task_id, seal, redact=redact)) as lines:
            await _write(lines, output)


async def _write(lines: AsyncGenerator[bytes], output: Path | None) -> None:
    first = await anext(lines)  # before it no file is touched
    if output is None:
        write_out(first)
        async for line in lines:
            write_out(line)
        return
    try:
        with output.open("wb") as stream:
            stream.write(first)
            async for line in lines:
                stream.write(line)
    except OSError as error:
        raise ConfigurationError(f"{output}: cannot be written: {error.strerror}") from error
