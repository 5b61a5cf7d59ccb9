"""Spans over OpenTelemetry, sent to a collector. Loaded only where the service is traced: its packages are an extra.

Nothing that people said and no query of a URL is in a span: ids, counts, routes and types of errors are.
"""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from service.adapters.metrics import METHODS
from service.model.trace import TraceParent

FLUSH_SECONDS: Final = 2.0
"""How long a stop may take for the last spans; a collector that is away does not hold it up."""

SERVER_ERROR: Final = 500

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_HEADER: Final = "traceparent"

log = structlog.get_logger()


class Tracing:
    """The spans of one process."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("playhead")

    def current(self) -> TraceParent | None:
        """The span that the caller runs in."""
        context = trace.get_current_span().get_span_context()
        return _parent_of(context) if context.is_valid else None

    @contextmanager
    def request(self, method: str, route: str, traceparent: str | None) -> Generator[Callable[[int], None]]:
        """The span of a request, in the trace of whoever asks; yields what is to be told the answer's status."""
        method = method if method in METHODS else "_OTHER"
        attributes = {"http.request.method": method, "http.route": route}
        with self._entered(f"{method} {route}", traceparent, SpanKind.SERVER, attributes) as span:

            def answered(status: int) -> None:
                span.set_attribute("http.response.status_code", status)
                if status >= SERVER_ERROR:
                    span.set_status(Status(StatusCode.ERROR))

            yield answered

    @contextmanager
    def work(self, name: str, cause: TraceParent | None, attributes: Mapping[str, AttributeValue]) -> Generator[None]:
        """The span of something that another process may have caused; the caller runs in it."""
        with self._entered(name, cause, SpanKind.CONSUMER, attributes):
            yield

    @contextmanager
    def _entered(
        self, name: str, cause: str | None, kind: SpanKind, attributes: Mapping[str, AttributeValue]
    ) -> Generator[Span]:
        within = _PROPAGATOR.extract({} if cause is None else {_HEADER: cause})
        with self._tracer.start_as_current_span(
            name,
            context=within,
            kind=kind,
            attributes=attributes,
            record_exception=False,  # its text may repeat what people said
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except Exception as error:
                _note_failure(span, type(error).__name__)
                raise

    @contextmanager
    def call(self, name: str, attributes: Mapping[str, AttributeValue]) -> Generator[Span]:
        """The span of a call to the outside; who runs in the block does not run in it, so it may be a generator's."""
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        try:
            yield span
        except Exception as error:
            _note_failure(span, type(error).__name__)
            raise
        finally:
            span.end()

    def note_append(
        self, cause: TraceParent, begun_ns: int, failure: str | None, attributes: Mapping[str, AttributeValue]
    ) -> None:
        """The span of an append that has ended, as its writer's."""
        span = self._tracer.start_span(
            "append",
            context=_PROPAGATOR.extract({_HEADER: cause}),
            kind=SpanKind.PRODUCER,
            attributes=attributes,
            start_time=begun_ns,
        )
        if failure is not None:
            _note_failure(span, failure)
        span.end()

    @contextmanager
    def reader(self) -> Generator[Callable[[TraceParent, str], None]]:
        """Spans of one reader: what it reads is in the trace of whoever wrote that, and is linked to its request.

        Yields what is to be told of each delivery: in which span its newest event was written, and at which position it
        stands. One span lasts as long as the writer's is the same.
        """
        link = Link(trace.get_current_span().get_span_context())
        span: Span = trace.INVALID_SPAN
        cause: TraceParent | None = None

        def delivered(written_in: TraceParent, position: str) -> None:
            nonlocal span, cause
            if written_in != cause:
                span.end()
                cause, within = written_in, _PROPAGATOR.extract({_HEADER: written_in})
                span = self._tracer.start_span("read", context=within, kind=SpanKind.CONSUMER, links=[link])
                span.set_attribute("playhead.first_position", position)
            span.set_attribute("playhead.last_position", position)

        try:
            yield delivered
        finally:
            span.end()


def _parent_of(context: SpanContext) -> TraceParent:
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(trace.NonRecordingSpan(context)))
    return TraceParent(carrier[_HEADER])


def _note_failure(span: Span, error_type: str) -> None:
    span.set_status(Status(StatusCode.ERROR))
    span.set_attribute("error.type", error_type)


@asynccontextmanager
async def open_tracing(url: str) -> AsyncGenerator[Tracing]:
    """Spans go to the collector at this base URL (OTLP over HTTP), in batches, by a thread of their own.

    At the end of the block the last ones are sent, for FLUSH_SECONDS at most. What OpenTelemetry's own variables say of
    the service's name, the sampling, headers and limits is heeded.
    """
    named = Resource.create()
    if str(named.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        named = named.merge(Resource({SERVICE_NAME: "playhead"}))
    provider = TracerProvider(resource=named, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{url.rstrip('/')}/v1/traces")))
    try:
        yield Tracing(provider)
    finally:
        await _flush(provider)


async def _flush(provider: TracerProvider) -> None:
    """A thread that the process does not wait for when it ends: one of a pool would hold it up."""
    loop, begun = asyncio.get_running_loop(), time.monotonic()
    flushed = asyncio.Event()

    def flush() -> None:
        provider.shutdown()
        if not loop.is_closed():
            loop.call_soon_threadsafe(flushed.set)

    threading.Thread(target=flush, name="spans", daemon=True).start()
    try:
        async with asyncio.timeout(FLUSH_SECONDS):
            await flushed.wait()
    except TimeoutError:
        log.warning("spans_not_sent", after_seconds=round(time.monotonic() - begun, 1))
