"""A followed log on the wire, as server-sent events.

Each rule here was seen to break a client: every stored event has its `id:`, what is made up has none; `event:` is never
set; the heartbeat is a comment line without a blank line behind it; `retry:` stands only inside the first real frame;
after the terminal event comes `[DONE]` and the connection closes; a reader that has the terminal event gets 204, or an
EventSource would come back for ever.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, Final, assert_never

import structlog
from aiohttp import web

from service.http.problems import Problem
from service.model.encoding import plain
from service.registry.follow import Begun, Ended, Followed, Frames, Gap, Heartbeat, Vanished

log = structlog.get_logger()

HEADERS: Final = MappingProxyType(
    {
        "Content-Type": "text/event-stream",
        "Cache-Control": "no-cache, no-transform",
        "X-Accel-Buffering": "no",
        "x-vercel-ai-ui-message-stream": "v1",
    }
)
HEARTBEAT: Final = b": hb\n"
DONE: Final = b"data: [DONE]\n\n"
RETRY_MILLISECONDS: Final = 1000
"""How long an EventSource waits before it comes back."""

SLICE_BYTES: Final = 64 * 1024
"""Handed to a connection at once: with the transport's own buffer (64 KiB), what a reader that stops can cost."""

_RETRY: Final = b"retry: %d\n" % RETRY_MILLISECONDS


async def answer_stream(
    request: web.Request, items: AsyncGenerator[Followed], *, refuse_gaps: bool, write_timeout_seconds: float
) -> web.StreamResponse:
    """Send what is followed until it ends or the reader goes.

    With `refuse_gaps` a gap in front of the stream is a 410 with its fields; one that opens later ends the stream
    behind its frame. A reader that takes nothing for `write_timeout_seconds` is disconnected.
    """
    async with aclosing(items):
        begun = await anext(items)
        if not isinstance(begun, Begun):
            raise TypeError("a followed log begins with Begun")
        if begun.at_end:
            return web.Response(status=204, headers={"Cache-Control": "no-store, private"})
        if begun.gap is not None and refuse_gaps:
            fields: dict[str, Any] = plain(begun.gap.data)
            raise Problem(410, "gap", "The log does not go on from this position.", **fields)
        response = web.StreamResponse(headers=HEADERS)
        response.force_close()
        await response.prepare(request)
        try:
            if begun.gap is not None:
                await _write(response, begun.gap.frame, write_timeout_seconds)
            await _send(response, items, refuse_gaps=refuse_gaps, seconds=write_timeout_seconds)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            pass  # the reader is gone; it knows where it was
        except Exception:
            # Headers are out: a problem could only be written into the stream. The reader is cut off and comes back.
            log.exception("stream_crashed")
            if request.transport is not None:
                request.transport.abort()
    return response


async def _send(
    response: web.StreamResponse, items: AsyncGenerator[Followed], *, refuse_gaps: bool, seconds: float
) -> None:
    prefix = _RETRY
    async for item in items:
        match item:
            case Frames(frames):
                await _write(response, prefix + frames if prefix else frames, seconds)
                prefix = b""
            case Heartbeat():
                await _write(response, HEARTBEAT, seconds)
            case Gap():
                await _write(response, item.frame, seconds)
                if refuse_gaps:
                    return
            case Ended():
                await _write(response, DONE, seconds)
            case Vanished() | Begun():
                pass
            case other:
                assert_never(other)


async def _write(response: web.StreamResponse, data: bytes, seconds: float) -> None:
    """Hand bytes to the connection, a slice at a time; waits while the reader has not taken what is buffered for it.

    Whatever is handed over at once is copied for this reader alone, and waits in memory if it does not read.
    """
    for start in range(0, len(data), SLICE_BYTES):
        async with asyncio.timeout(seconds):
            await response.write(data[start : start + SLICE_BYTES] if len(data) > SLICE_BYTES else data)
