"""An exported log as it comes over one connection: lines, of which the last one says that it is all."""

import asyncio
from collections.abc import AsyncGenerator

import aiohttp

from service.client.errors import Incomplete, NotUnderstood, Unreachable
from service.model.export import MAX_LINE_BYTES, Wholeness
from service.model.ids import TaskId


async def exported(response: aiohttp.ClientResponse, task_id: TaskId, silence_seconds: float) -> AsyncGenerator[bytes]:
    """Each line with its line feed, until the last one.

    Raises Unreachable where the connection breaks or is silent for too long, Incomplete where what came is not whole.
    """
    wholeness, rest = Wholeness(task_id), b""
    while received := await _read(response, silence_seconds):
        *lines, rest = (rest + received).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise NotUnderstood("What answers sends a line that is longer than any of an export.")
        for line in lines:
            wholeness.take(line)
            yield line + b"\n"
    if rest or not wholeness.is_proven:
        raise Incomplete


async def _read(response: aiohttp.ClientResponse, silence_seconds: float) -> bytes:
    try:
        async with asyncio.timeout(silence_seconds):
            return await response.content.readany()
    except TimeoutError as error:
        raise Unreachable("The service fell silent in the midst of the export.") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unreachable("The connection broke in the midst of the export.") from error
