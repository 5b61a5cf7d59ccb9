"""What this process counts, for Prometheus."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from math import nan
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

from service.model.intake import IntakeState
from service.model.task import Backlog

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

FAST: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Buckets in seconds of what takes milliseconds."""

SLOW: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
"""Of what takes seconds or minutes."""

BATCHES: Final = (1, 2, 5, 10, 20, 50, 100, 500, 2000)
"""Of events in a batch."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """All instruments of one process, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.appended_events = self._counter("appended_events", "Events that were stored.")
        self.appends = self._counter("appends", "Batches that were sent to the log store.", "result")
        self.append_seconds = self._histogram("append_seconds", "A round trip that stores batches.", FAST)
        self.append_batch_events = self._histogram("append_batch_events", "Events of a batch.", BATCHES)
        self.claims = self._counter("claims", "Tasks that were claimed: first, again or taken over.", "kind")
        self.queue_seconds = self._histogram("queue_seconds", "From a task's creation to its first claim.", SLOW)
        self.tasks_ended = self._counter("tasks_ended", "Tasks whose end was decided here.", "status")
        self.task_seconds = self._histogram("task_seconds", "From a task's first claim to its end.", SLOW)
        self.model_calls = self._counter("model_calls", "Model calls: ok, left, an error type or other.", "outcome")
        self.model_first_output_seconds = self._histogram(
            "model_first_output_seconds", "From a call of the model to its first piece.", SLOW
        )
        self.model_call_seconds = self._histogram("model_call_seconds", "A whole call of the model.", SLOW)
        self.model_tokens = self._counter("model_tokens", "Tokens, as the model counts them.", "direction")
        self.hint_lag_seconds = self._histogram(
            "hint_lag_seconds", "From an event's time to when readers of this process hear of it.", FAST
        )
        self.gaps = self._counter("gaps", "Gaps that readers were told of.")
        self.requests = self._counter("http_requests", "Requests that were answered.", "method", "route", "status")
        self.request_seconds = self._histogram("http_request_seconds", "Answers, but streams.", FAST, "route")
        self._streams = Gauge("playhead_streams", "Readers that follow a log here.", registry=self._registry)
        self._backlog = Gauge("playhead_backlog", "What is still to be done.", ("kind",), registry=self._registry)
        self._oldest = {
            kind: Gauge(f"playhead_oldest_{kind}_seconds", documentation, registry=self._registry)
            for kind, documentation in (
                ("queued", "For how long the oldest queued task waits."),
                ("unarchived", "How long ago the oldest task has ended whose log is not archived."),
            )
        }

        self.amqp_deliveries = self._counter("amqp_deliveries", "Messages by what became of them.", "disposition")
        self._amqp_connected = Gauge("playhead_amqp_connected", "1 while messages come.", registry=self._registry)
        self._amqp_in_hand = Gauge("playhead_amqp_in_hand", "Messages that are worked on.", registry=self._registry)
        self._amqp_messages = Gauge(
            "playhead_amqp_messages",
            "What is ready at the broker, parked, and dead.",
            ("queue",),
            registry=self._registry,
        )
        for gauge in (self._amqp_connected, self._amqp_in_hand):
            gauge.set(nan)  # where no broker is set nothing of it is known

    def watch_streams(self, open_streams: Callable[[], int]) -> None:
        """Where it is known how many readers there are."""
        self._streams.set_function(open_streams)

    def watch_intake(self, state: Callable[[], IntakeState]) -> None:
        """Where it is known how the messages of the broker are doing."""
        self._amqp_connected.set_function(lambda: state().attached_since is not None)
        self._amqp_in_hand.set_function(lambda: state().in_hand)
        for queue in ("ready", "parked", "dead"):
            self._amqp_messages.labels(queue).set_function(partial(_depth, state, queue))

    def request(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """A request was answered; a stream has no time of its own. Methods that no route knows are one."""
        self.requests.labels(method if method in METHODS else "other", route, str(status)).inc()
        if seconds is not None:
            self.request_seconds.labels(route).observe(seconds)

    def note_backlog(self, backlog: Backlog | None) -> None:
        """How far the whole service is behind; None where that cannot be said now."""
        counts = {} if backlog is None else asdict(backlog)
        for kind, gauge in self._oldest.items():
            gauge.set(nan if backlog is None else counts.pop(f"oldest_{kind}_seconds") or 0)
        self._backlog.clear()
        for kind, number in counts.items():
            self._backlog.labels(kind).set(number)

    def render(self) -> bytes:
        """All of it in Prometheus' text format, CONTENT_TYPE."""
        return generate_latest(self._registry)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"playhead_{name}", documentation, labels, registry=self._registry)

    def _histogram(self, name: str, documentation: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"playhead_{name}", documentation, labels, registry=self._registry, buckets=buckets)


def _depth(state: Callable[[], IntakeState], queue: str) -> float:
    depths = state().depths
    return nan if depths is None else asdict(depths)[queue]
