"""`playhead export`: a closed log as a file."""

import os
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Annotated

import typer

from service.cli.doors import Door, StoresOption, TokenOption, UrlOption, Where, run
from service.cli.streams import stream_out
from service.model.errors import ConfigurationError
from service.model.ids import TaskId, parse_task_id


def export(
    task: Annotated[str, typer.Argument(help="The task whose log is exported.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", dir_okay=False, help="Write to this file, which is there when it is whole."),
    ] = None,
    redact: Annotated[  # noqa: FBT002
        bool, typer.Option("--redact", help="Blank what people and models said; lengths and positions stay.")
    ] = False,
    url: UrlOption = None,
    token: TokenOption = None,
    stores: StoresOption = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Export the log of a task that has ended, as lines of JSON, to be proven with `playhead verify --file`.

    On stdout, what is without its last line, which has the counts, is not whole.
    """
    run(Where(url, token, stores), partial(_export, parse_task_id(task), output, redact=redact))


async def _export(task_id: TaskId, output: Path | None, door: Door, *, redact: bool) -> int:
    async with aclosing(door.export(task_id, redact=redact)) as lines:
        if output is None:
            async for some in lines:
                stream_out(some)
        else:
            await _write(lines, output)
    return 0


async def _write(lines: AsyncGenerator[bytes], output: Path) -> None:
    first = await anext(lines)  # before it no file is touched
    try:
        with _whole_or_none(output) as stream:
            stream.write(first)
            async for some in lines:
                stream.write(some)
    except OSError as error:
        raise ConfigurationError(f"{output}: cannot be written: {error.strerror}") from error


@contextmanager
def _whole_or_none(output: Path) -> Generator[IO[bytes]]:
    """A file that takes this name when the block ends; where it raises, what had the name is as it was.

    What is no file (a pipe, a terminal) cannot be replaced, and is written to as it is.
    """
    if output.exists() and not output.is_file():
        with output.open("wb") as stream:
            yield stream
        return
    target = output.resolve()  # a link goes on to name the file
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as stream:
        try:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            os.chmod(stream.name, _mode_of(target))
            os.replace(stream.name, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(stream.name)
            raise


def _mode_of(target: Path) -> int:
    """As the file that is replaced; a new one as any new file."""
    try:
        return target.stat().st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0o077)
        os.umask(mask)
        return 0o666 & ~mask
