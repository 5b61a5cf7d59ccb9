"""A service that does what it is told, one answer a connection, and remembers what it was asked."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from service.model.encoding import encode
from service.model.events import DataGap, Finish, FinishMetadata, GapData, TextDelta, Usage
from service.model.ids import PartId, TaskId

DONE = b"data: [DONE]\n\n"
FINISH = encode(Finish("stop", FinishMetadata(TaskId("t"), "succeeded", "", Usage(0, 0), "", "")))

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def said(n: int) -> bytes:
    return encode(TextDelta(PartId("p1"), f"{n} "))


def frame(n: int, data: bytes | None = None, ms: int = 1000) -> bytes:
    return b"id: %d-%d\ndata: %b\n\n" % (ms, n, said(n) if data is None else data)


def frames(first: int, last: int) -> bytes:
    return b"".join(frame(n) for n in range(first, last + 1))


def gap(requested: str, oldest: str, latest: str, lost: int) -> bytes:
    return b"data: %b\n\n" % encode(DataGap(GapData(requested, oldest, latest, lost)))


def stream(*pieces: bytes, then: str = "ends", content_type: str = "text/event-stream") -> Answer:
    """These bytes; then it `ends`, is `cut`, or is `silent` until its reader goes."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        assert request.transport is not None
        if then == "silent":
            await asyncio.Event().wait()
        if then == "cut":
            request.transport.close()  # what was written still goes out, and the body has no end
        return response

    return answer


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=code, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


@dataclass
class Misbehaving:
    """A service, and the headers of the requests that came."""

    answers: Sequence[Answer]
    url: str = ""
    asked: list["web.Request"] = field(default_factory=list)

    @property
    def positions(self) -> list[str | None]:
        """With what each connection began."""
        return [request.headers.get("Last-Event-ID") for request in self.asked]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The next of the answers; the last one for ever."""
        self.asked.append(request)
        await request.read()
        return await self.answers[min(len(self.asked), len(self.answers)) - 1](request)


@asynccontextmanager
async def misbehaving(*answers: Answer) -> AsyncIterator[Misbehaving]:
    """It answers every route with these."""
    service = Misbehaving(answers)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    service.url = f"http://{host}:{port}"
    try:
        yield service
    finally:
        await runner.cleanup()
