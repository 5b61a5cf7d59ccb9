"""A log followed over one connection after another, until its terminal event.

The reader is a position. A connection that breaks, falls silent or is answered with a 5xx or 429 is replaced by one
that begins behind the last event that was given out; what was given out is never given again, and what does not join it
is a Gap. Nothing is read ahead of who takes the events but what one connection buffers.
"""

import asyncio
import random
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, assert_never

import aiohttp
import orjson
from yarl import URL

from service.client.answers import refusal_of
from service.client.errors import Gap, NotUnderstood, Unreachable
from service.client.sse import Comment, EventStream, Frame, FrameTooLong, Retry
from service.model.encoding import is_terminal
from service.model.events import GapData
from service.model.position import BEGINNING, InvalidPosition, Position

DONE: Final = b"[DONE]"
_GAP_FIELDS: Final = ("requested", "oldest", "latest")
_SECONDS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a log."""

    position: Position
    chunk: dict[str, Any]
    """What `data` says."""
    data: bytes
    """Its JSON, as it came."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a follower waits, in seconds."""

    silence_seconds: float = 45.0
    """A connection on which nothing comes for so long is given up: by default a service's third heartbeat."""
    first_pause_seconds: float = 0.5
    """Before the first new connection; at least what the service asks for (`retry:`), and doubled with each failure."""
    longest_pause_seconds: float = 15.0
    give_up_seconds: float = 180.0
    """So long without an event or a heartbeat it tries; then it raises Unreachable."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Time and chance, by which pauses go."""

    monotonic: Callable[[], float] = time.monotonic
    """In seconds."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    dice: Callable[[], float] = random.random
    """From 0 to 1."""


class _Interrupted(Exception):
    """This connection is of no use any more; another one may be."""

    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


class Following:
    """One reader's way through a log."""

    def __init__(
        self, http: aiohttp.ClientSession, stream: URL, after: Position, patience: Patience, pace: Pace
    ) -> None:
        self._http = http
        self._stream = stream
        self._cursor = after
        self._patience = patience
        self._pace = pace
        self._first_pause_seconds = patience.first_pause_seconds
        self._failures = 0
        self._alive_at = 0.0

    async def events(self) -> AsyncGenerator[Event]:
        """The events behind the cursor until the terminal one; none where the service says that it stands there."""
        self._live()
        while True:
            try:
                async with self._connection() as response:
                    if response.status == 204:
                        return
                    async with aclosing(self._received(response)) as received:
                        async for event in received:
                            yield event
                            if is_terminal(event.data):
                                return
                            self._live()  # the time that this took was not the service's
            except _Interrupted as interrupted:
                await self._pause(interrupted)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that can be read, or a 204; closed with all that is buffered at the end. Raises _Interrupted."""
        headers = {} if self._cursor == BEGINNING else {"Last-Event-ID": str(self._cursor)}
        with ExitStack() as stack:
            try:
                async with asyncio.timeout(self._patience.silence_seconds):
                    response = await self._http.get(self._stream, headers=headers, allow_redirects=False)
                    stack.callback(response.close)
                    await _accept(response)
            except (aiohttp.ClientError, OSError) as error:
                raise _Interrupted(_shown(error)) from error
            yield response

    async def _received(self, response: aiohttp.ClientResponse) -> AsyncGenerator[Event]:
        """What comes over this connection and was not given out yet. Raises _Interrupted at its end."""
        stream = EventStream()
        while received := await self._read(response):
            try:
                for item in stream.feed(received):
                    match item:
                        case Comment():
                            self._live()
                        case Retry(milliseconds):
                            self._ask_pause(milliseconds / 1000)
                        case Frame():
                            event = self._joined(item)
                            if event is not None:
                                self._cursor = event.position
                                yield event
                        case other:
                            assert_never(other)
            except FrameTooLong:
                raise NotUnderstood("What answers sends a line that is longer than any event.") from None
        raise _Interrupted("it ended in mid-stream")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        try:
            async with asyncio.timeout(self._patience.silence_seconds):
                return await response.content.readany()
        except TimeoutError as error:
            raise _Interrupted("it was silent") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _Interrupted(_shown(error)) from error

    def _joined(self, frame: Frame) -> Event | None:
        """The event, where it is the next one; None for what was given out, or is no event. Raises Gap."""
        if frame.id is None:
            self._heed(frame.data)
            return None
        try:
            position = Position.parse(frame.id.decode("ascii", "replace"))
        except InvalidPosition:
            raise NotUnderstood("What answers sends an event whose id is no position.") from None
        here = self._cursor
        if position.n <= here.n and position.ms <= here.ms:
            return None
        if position.n != here.n + 1 or position.ms < here.ms:
            raise Gap(GapData(str(here), str(position), str(position), max(0, position.n - here.n - 1)))
        return Event(position, _object(frame.data), frame.data)

    def _heed(self, data: bytes) -> None:
        """What the service itself says, beside the log."""
        if data == DONE:
            raise NotUnderstood("What answers ends a log without its terminal event.")
        chunk = _object(data)
        if chunk["type"] != "data-gap":
            return
        try:
            fields = chunk["data"]
            requested, oldest, latest = (str(fields[name]) for name in _GAP_FIELDS)
            gap = GapData(requested, oldest, latest, int(fields["lost"]))
        except (TypeError, KeyError, ValueError):
            raise NotUnderstood("What answers tells of a gap that cannot be read.") from None
        raise Gap(gap)

    def _live(self) -> None:
        self._alive_at, self._failures = self._pace.monotonic(), 0

    def _ask_pause(self, seconds: float) -> None:
        longest = self._patience.longest_pause_seconds
        self._first_pause_seconds = max(self._patience.first_pause_seconds, min(seconds, longest))

    async def _pause(self, interrupted: _Interrupted) -> None:
        """Wait before the next connection. Raises Unreachable where patience would end meanwhile."""
        grown = self._first_pause_seconds * 2 ** min(self._failures, 30)
        pause = min(grown, self._patience.longest_pause_seconds) * (0.5 + self._pace.dice() / 2)
        pause = max(pause, interrupted.wait_seconds)
        self._failures += 1
        if self._pace.monotonic() + pause > self._alive_at + self._patience.give_up_seconds:
            raise Unreachable(f"The service cannot be followed any more: {interrupted}.") from interrupted.__cause__
        await self._pace.sleep(pause)


async def _accept(response: aiohttp.ClientResponse) -> None:
    """Raises _Interrupted where another try may go better, and what is the matter where none will."""
    if response.status >= 500 or response.status == 429:
        raise _Interrupted(f"it answers {response.status}", _retry_after(response))
    if response.status not in (200, 204):
        raise await refusal_of(response)
    if response.status == 200 and response.content_type != "text/event-stream":
        raise NotUnderstood("What answers sends no event stream.")


def _object(data: bytes) -> dict[str, Any]:
    try:
        chunk = orjson.loads(data)
    except orjson.JSONDecodeError:
        chunk = None
    if not isinstance(chunk, dict) or not isinstance(chunk.get("type"), str):
        raise NotUnderstood("What answers sends an event that cannot be read.")
    return chunk


def _retry_after(response: aiohttp.ClientResponse) -> float:
    """How many seconds the service asks not to be called: given so, or as a date."""
    given = response.headers.get("Retry-After", "")
    if _SECONDS.fullmatch(given):
        return float(given)
    try:
        return max(0.0, (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a zone
        return 0.0


def _shown(error: Exception) -> str:
    """Why there is no connection, in a few words of ours: a library's text may hold anything."""
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    return "the connection broke" if isinstance(error, aiohttp.ClientPayloadError) else "it cannot be reached"
