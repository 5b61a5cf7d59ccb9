"""The connection of somebody who gets a long answer, handed over a slice at a time."""

import asyncio
from typing import Final

from aiohttp import web

from service.http.stalled import cut_when_stalled

SLICE_BYTES: Final = 64 * 1024
"""Handed to a connection at once: with the transport's own buffer, what a reader that stops can cost."""

BUFFER_BYTES: Final = 64 * 1024
"""With more than this waiting, a transport asks its writer to wait."""

ROOM_BYTES: Final = 48 * 1024
"""As long as no more than this waits, it takes more at once."""


class Wire:
    """One reader's connection, which is handed a slice at a time.

    Whatever is handed over at once is copied for this reader alone, and waits in memory while it does not read.
    """

    def __init__(
        self, response: web.StreamResponse, transport: asyncio.Transport, write_timeout_seconds: float
    ) -> None:
        self._response = response
        self._transport = transport
        self._write_timeout_seconds = write_timeout_seconds
        # By default it goes on asking until less than a quarter waits.
        transport.set_write_buffer_limits(high=BUFFER_BYTES, low=ROOM_BYTES)

    async def write(self, data: bytes) -> None:
        """Hand bytes over; waits while the reader goes on taking. Raises ConnectionError where it does not any more."""
        if self._transport.get_write_buffer_size() + len(data) <= ROOM_BYTES:
            await self._response.write(data)  # goes without waiting, so that no timer is needed
            return
        for start in range(0, len(data), SLICE_BYTES):
            with cut_when_stalled(self._transport, self._write_timeout_seconds):
                await self._response.write(data[start : start + SLICE_BYTES])
        if self._transport.is_closing():
            raise ConnectionResetError("cut off while it was written to")

    def abort(self) -> None:
        """Cut the connection, without what is still buffered."""
        self._transport.abort()
