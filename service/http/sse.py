"""A followed log on the wire, as server-sent events.

Each rule here was seen to break a client: every stored event has its `id:`, what is made up has none; `event:` is
never set; the heartbeat is a comment line without a blank line behind it; `retry:` stands only inside the first real
frame; after the terminal event comes `[DONE]` and the connection closes; a reader that has the terminal event gets
204, and one of a log that is gone 410, or an EventSource would come back for ever.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, Final, Literal, assert_never

import structlog
from aiohttp import web

from service.http.problems import Problem
from service.http.wire import Wire
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

_RETRY: Final = b"retry: %d\n" % RETRY_MILLISECONDS

OnGap = Literal["tell", "refuse", "cut"]
"""What a reader gets where something is missing: a `data-gap`, and what is there; a 410, or behind the `data-gap` the
end; a 410, or a connection that breaks off, so that what it has is not taken for all."""


async def answer_stream(
    request: web.Request,
    items: AsyncGenerator[Followed],
    *,
    on_gap: OnGap,
    write_timeout_seconds: float,
    note_gap: Callable[[], None],
    opening: bytes = b"",
) -> web.StreamResponse:
    """Send what is followed until it ends or the reader goes; `opening` are frames that stand before it.

    A 410 has the gap's fields. A gap behind which nothing will ever come is a 410 in any case. A reader that takes
    nothing for `write_timeout_seconds` is disconnected. Each gap is noted.
    """
    async with aclosing(items):
        begun = await anext(items)
        if not isinstance(begun, Begun):
            raise TypeError("a followed log begins with Begun")
        if isinstance(begun.end, Ended):
            return web.Response(status=204)
        if begun.gap is not None:
            note_gap()
        if begun.gap is not None and (on_gap != "tell" or isinstance(begun.end, Vanished)):
            fields: dict[str, Any] = plain(begun.gap.data)
            raise Problem(410, "gap", "The log does not go on from this position.", **fields)
        response = web.StreamResponse(headers=HEADERS)
        response.force_close()
        if request.transport is None:
            return response  # the reader has gone already
        wire = Wire(response, request.transport, write_timeout_seconds)
        try:
            await response.prepare(request)
            if opening:
                await wire.write(opening)
            if begun.gap is not None:
                await wire.write(begun.gap.frame)
            await _send(wire, items, on_gap, note_gap)
        except ConnectionError:
            pass  # the reader is gone, or was cut off; it knows where it was
        except Exception:
            # Headers are out: a problem could only be written into the stream. The reader is cut off and comes back.
            log.exception("stream_crashed")
            wire.abort()
    return response


async def _send(wire: Wire, items: AsyncGenerator[Followed], on_gap: OnGap, note_gap: Callable[[], None]) -> None:
    has_begun = False
    async for item in items:
        match item:
            case Frames(frames):
                if not has_begun:
                    await wire.write(_RETRY)  # by itself: the frames are many readers', and put together one reader's
                    has_begun = True
                await wire.write(frames)
            case Heartbeat():
                await wire.write(HEARTBEAT)
            case (Gap() as gap) | Begun(Gap() as gap):
                note_gap()
                if on_gap == "cut":
                    wire.abort()
                    return
                await wire.write(gap.frame)
                if on_gap == "refuse":
                    return
            case Ended():
                await wire.write(DONE)
            case Vanished() | Begun():
                pass
            case other:
                assert_never(other)
