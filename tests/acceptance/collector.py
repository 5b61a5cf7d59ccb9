"""A collector of spans, as the service meets one: OTLP over HTTP on a real socket."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class Collected:
    """A span as it came; ids in hex, no parent is empty."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[str, ...]
    """The spans that it is linked to."""
    attributes: dict[str, str]
    is_failure: bool


@dataclass(slots=True)
class Collector:
    """What came."""

    url: str = ""
    spans: list[Collected] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    _came: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: web.Request) -> web.Response:
        """The route."""
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.bodies.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.spans += [_collected(span) for span in scope.spans]
        self._came.set()
        return web.Response(content_type="application/x-protobuf")

    def named(self, name: str) -> list[Collected]:
        """The spans of a name."""
        return [span for span in self.spans if span.name == name]

    async def until(self, is_enough: Callable[[], bool]) -> None:
        """Wait for more spans until it is so."""
        async with asyncio.timeout(20):
            while not is_enough():
                self._came.clear()
                await self._came.wait()


def _collected(span: object) -> Collected:
    return Collected(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        tuple(link.span_id.hex() for link in span.links),
        {each.key: each.value.string_value or str(each.value.int_value) for each in span.attributes},
        span.status.code == 2,
    )


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """One that listens while the block runs."""
    made = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", made.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        made.url = f"http://{host}:{port}"
        yield made
    finally:
        await runner.cleanup()
