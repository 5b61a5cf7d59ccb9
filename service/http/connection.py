"""One client's connection: how long its answers wait for it, and what it is told where it does not speak HTTP."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import EMPTY_PAYLOAD, StreamReader, web

from service.http.problems import answered, mistake, problem
from service.http.request_ids import HEADER, new_request_id
from service.http.stalled import cut_when_stalled

log = structlog.get_logger()


class Connection(web.RequestHandler):
    """A connection as aiohttp handles it, with two differences.

    An answer is done only when the kernel has the whole of it. Until then a client is waited for as long as it goes on
    taking; one that takes nothing for `write_timeout_seconds` is cut off. And whatever aiohttp refuses by itself is a
    problem, in which nothing of the input is repeated; nothing of it is logged.
    """

    __slots__ = ("_answered", "_body", "_lost", "_write_timeout_seconds")

    def __init__(
        self, server: web.Server, lost: Callable[[], None], *, write_timeout_seconds: float, **options: Any
    ) -> None:
        """`lost` is called when there is no connection any more."""
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._answered = 0
        self._body: StreamReader = EMPTY_PAYLOAD
        self._lost = lost
        self._write_timeout_seconds = write_timeout_seconds

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._lost()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio asks whether to stay open
        """The client sends no more: what it has asked for whole is still answered, and then the connection closes.

        A stream is not gone on with, nor is a body waited for: there it nearly always means that nobody is there.
        """
        request = self._current_request
        is_streaming = request is not None and request.writer.output_size > 0
        if self._answered == self._request_count or not self._body.is_eof() or is_streaming:
            return False
        self.close()
        return True

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._body = self._messages[-1][1]

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write what is left of an answer: all of it, or the end of a stream."""
        self._answered += 1
        if isinstance(resp, web.HTTPException):  # raised where no middleware is, as by an unknown `Expect`
            resp = answered(resp)
        transport = self.transport
        if transport is None:
            return await super().finish_response(request, resp, start_time)
        # From here on a wait for the transport ends when it is empty. Closed with something in it, it would stay as
        # long as the client likes, and aiohttp would have lost sight of it.
        transport.set_write_buffer_limits(high=0)
        with cut_when_stalled(transport, self._write_timeout_seconds):
            finished = await super().finish_response(request, resp, start_time)
            await request.writer.drain()  # it was not waited for where nothing marks a body's end (HTTP/1.0)
        transport.set_write_buffer_limits()
        return finished

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what the parser refuses (400), and to an error that no middleware has seen (500)."""
        self.log_exception(exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already")
        malformed = problem(400, "malformed_request", "This is no HTTP request that can be read.")
        answer = malformed if status == 400 else mistake()
        answer.force_close()
        answer.headers[HEADER] = new_request_id()  # what the parser refuses has no headers to take one from
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Note that aiohttp met an error. Its text is left out, since it may repeat what the client sent."""
        log.info("connection_failed", error=type(kw.get("exc_info")).__name__)
