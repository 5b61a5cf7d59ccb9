"""What is counted, by whom, and that the dashboard asks for nothing else."""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from datetime import UTC, datetime, timedelta
from itertools import count
from math import isnan
from pathlib import Path

import pytest

from service.adapters.memory_database import MemoryDatabase
from service.adapters.memory_log import MemoryHints, MemoryLogStore
from service.adapters.memory_messages import MemoryMessages
from service.adapters.memory_sessions import MemorySessions
from service.adapters.memory_tasks import MemoryTasks
from service.adapters.metered import MeteredHints, MeteredLogs, MeteredModel, MeteredQueue
from service.adapters.metrics import Metrics
from service.model.caller import EVERYONES
from service.model.encoding import encode, framed
from service.model.events import StartStep, TextPart, Usage
from service.model.failures import ModelCallFailed
from service.model.generation import CallEnded, Piece, Prompt, TextPiece
from service.model.ids import Epoch, TaskId
from service.model.intake import IntakeState, QueueDepths
from service.model.log import Batch, Hint
from service.model.position import BEGINNING, Position
from service.model.session import NewMessage
from service.model.task import Backlog
from tests.conftest import REPOSITORY
from tests.sessions.endings import ended_with

TASK = TaskId("01890000-0000-7000-8000-000000000000")
DASHBOARD = REPOSITORY / "deploy" / "grafana" / "playhead.json"


def told(metrics: Metrics, prefix: str) -> dict[str, float]:
    """The samples whose names begin so, with their labels, but for buckets and times of creation."""
    lines = [line.rpartition(" ") for line in metrics.render().decode().splitlines() if line.startswith("playhead_")]
    return {
        name.removeprefix("playhead_"): float(value)
        for name, _, value in lines
        if name.startswith(f"playhead_{prefix}") and "_bucket" not in name and "_created" not in name
    }


def batch(before: int, events: int, epoch: int = 1) -> Batch:
    first = BEGINNING if before == 0 else Position(1000, before)
    frames = framed(1000, before + 1, [encode(StartStep())] * events)
    return Batch(TASK, Epoch(epoch), first, Position(1000, before + events), frames, terminal=False)


async def test_appends_are_counted_by_what_became_of_them() -> None:
    metrics, ticks = Metrics(), count()
    logs = MeteredLogs(MemoryLogStore(MemoryHints()), metrics, lambda: next(ticks))
    await logs.open(TASK, Epoch(1), BEGINNING)
    await logs.append([batch(0, 3)])
    await logs.append([batch(3, 2)])
    await logs.open(TASK, Epoch(2), BEGINNING)
    await logs.append([batch(5, 1)])
    assert told(metrics, "append") == {
        "appended_events_total": 5,
        'appends_total{result="stored"}': 2,
        'appends_total{result="fenced"}': 1,
        "append_seconds_count": 3,
        "append_seconds_sum": 3,
        "append_batch_events_count": 2,
        "append_batch_events_sum": 5,
    }


async def test_claims_and_ends_are_counted_and_how_long_they_took() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    seconds = 0.0
    database, metrics = MemoryDatabase(lambda: now + timedelta(seconds=seconds), lambda: seconds), Metrics()
    queue = MeteredQueue(MemoryTasks(database), metrics)
    session = await MemorySessions(database).create(None)
    await MemoryMessages(database).post(EVERYONES, session.id, NewMessage((TextPart("Hi"),)))
    seconds = 2.0
    (first,) = await queue.claim(1, 10)
    seconds = 20.0
    (second,) = await queue.claim(1, 10)
    await queue.renew([second], 0)
    (third,) = await queue.claim(1, 10)
    assert (first.epoch, third.epoch) == (1, 3)
    await queue.end(third, ended_with(third, "There."))
    assert told(metrics, "claims") == {'claims_total{kind="first"}': 1, 'claims_total{kind="taken over"}': 2}
    assert told(metrics, "queue") == {"queue_seconds_count": 1, "queue_seconds_sum": 2}
    assert told(metrics, "tasks") == {'tasks_ended_total{status="succeeded"}': 1}
    assert told(metrics, "task_seconds")["task_seconds_count"] == 1


class Scripted:
    """The port `Model`: says what it is told to, and fails where that is an error."""

    provider = "scripted"

    def __init__(self, *script: Piece | ModelCallFailed) -> None:
        self._script = script

    async def stream(self, task_id: TaskId, prompt: Prompt) -> AsyncGenerator[Piece]:
        for each in self._script:
            if isinstance(each, ModelCallFailed):
                raise each
            yield each


@pytest.mark.parametrize(
    ("script", "outcome", "tokens"),
    [
        ((TextPiece("Hi"), CallEnded("stop", Usage(3, 5))), "ok", {"input": 3, "output": 5}),
        ((ModelCallFailed("timeout"),), "timeout", {}),
        ((TextPiece("Hi"), ModelCallFailed("request_error")), "request_error", {}),
        ((ModelCallFailed("whatever_somebody_says"),), "other", {}),
        ((ModelCallFailed("ok"),), "other", {}),
    ],
)
async def test_calls_of_the_model_are_counted_by_how_they_end(
    script: tuple[Piece | ModelCallFailed, ...], outcome: str, tokens: dict[str, int]
) -> None:
    metrics, ticks = Metrics(), count()
    model = MeteredModel(Scripted(*script), metrics, lambda: next(ticks))
    with nullcontext() if tokens else pytest.raises(ModelCallFailed):
        async for _ in model.stream(TASK, Prompt(())):
            pass
    assert told(metrics, "model_calls") == {f'model_calls_total{{outcome="{outcome}"}}': 1}
    expected = {f'model_tokens_total{{direction="{way}"}}': value for way, value in tokens.items()}
    assert told(metrics, "model_tokens") == expected
    begun = int(isinstance(script[0], TextPiece))
    assert told(metrics, "model_first")["model_first_output_seconds_count"] == begun
    assert told(metrics, "model_call_seconds") == {"model_call_seconds_count": 1, "model_call_seconds_sum": 1 + begun}


async def test_a_call_that_is_left_ends_at_the_model_too() -> None:
    metrics = Metrics()
    async with aclosing(MeteredModel(Scripted(TextPiece("Hi")), metrics, lambda: 0).stream(TASK, Prompt(()))) as pieces:
        await anext(pieces)
    assert told(metrics, "model_calls") == {'model_calls_total{outcome="left"}': 1}


async def test_it_is_seen_how_late_a_hint_comes() -> None:
    metrics, hints = Metrics(), MemoryHints()
    async with MeteredHints(hints, metrics, lambda: 1250).connect() as feed, aclosing(feed.items()) as items:
        await feed.subscribe(TASK)
        await anext(items)
        logs = MemoryLogStore(hints)
        await logs.open(TASK, Epoch(1), BEGINNING)
        await logs.append([batch(0, 1)])
        assert isinstance(await anext(items), Hint)
    assert told(metrics, "hint") == {"hint_lag_seconds_count": 1, "hint_lag_seconds_sum": 0.25}


def test_requests_are_counted_by_route_and_streams_have_no_time() -> None:
    metrics = Metrics()
    metrics.request("GET", "/tasks/{task_id}", 200, 0.5)
    metrics.request("GET", "/tasks/{task_id}/stream", 200, None)
    metrics.request("BREW", "unknown", 405, 0.25)
    assert told(metrics, "http") == {
        'http_requests_total{method="GET",route="/tasks/{task_id}",status="200"}': 1,
        'http_requests_total{method="GET",route="/tasks/{task_id}/stream",status="200"}': 1,
        'http_requests_total{method="other",route="unknown",status="405"}': 1,
        'http_request_seconds_count{route="/tasks/{task_id}"}': 1,
        'http_request_seconds_sum{route="/tasks/{task_id}"}': 0.5,
        'http_request_seconds_count{route="unknown"}': 1,
        'http_request_seconds_sum{route="unknown"}': 0.25,
    }


def test_a_backlog_is_told_as_long_as_it_is_known() -> None:
    metrics = Metrics()
    metrics.note_backlog(Backlog(3, 1.5, 2, 1, 5, 2.5, 4, 7, 6))
    assert told(metrics, "oldest") == {"oldest_queued_seconds": 1.5, "oldest_unarchived_seconds": 2.5}
    assert told(metrics, "backlog") == {
        'backlog{kind="queued"}': 3,
        'backlog{kind="running"}': 2,
        'backlog{kind="lapsed"}': 1,
        'backlog{kind="unarchived"}': 5,
        'backlog{kind="unremoved"}': 4,
        'backlog{kind="pending"}': 7,
        'backlog{kind="overdue"}': 6,
    }
    metrics.note_backlog(Backlog(0, None, 0, 0, 0, None, 0))
    assert told(metrics, "oldest") == {"oldest_queued_seconds": 0, "oldest_unarchived_seconds": 0}
    metrics.note_backlog(None)
    assert told(metrics, "backlog") == {}
    assert isnan(told(metrics, "oldest")["oldest_queued_seconds"])


def test_streams_are_counted_when_they_are_asked_for() -> None:
    metrics, readers = Metrics(), [1, 2, 3]
    metrics.watch_streams(lambda: len(readers))
    assert told(metrics, "streams") == {"streams": 3}


def test_the_broker_s_messages_are_told_as_they_are_when_they_are_asked_for() -> None:
    metrics, at = Metrics(), datetime(2026, 1, 1, tzinfo=UTC)
    assert isnan(told(metrics, "amqp")["amqp_connected"])
    state = IntakeState(None, None, 0, "rabbitmq", at, None)
    metrics.watch_intake(lambda: state)
    assert (told(metrics, "amqp")["amqp_connected"], isnan(told(metrics, "amqp")['amqp_messages{queue="dead"}'])) == (
        0,
        True,
    )
    state = IntakeState(at, at, 3, None, None, QueueDepths(ready=1, parked=2, dead=4))
    metrics.amqp_deliveries.labels("accepted").inc()
    assert told(metrics, "amqp") == {
        "amqp_connected": 1,
        "amqp_in_hand": 3,
        'amqp_messages{queue="ready"}': 1,
        'amqp_messages{queue="parked"}': 2,
        'amqp_messages{queue="dead"}': 4,
        'amqp_deliveries_total{disposition="accepted"}': 1,
    }


def test_the_dashboard_asks_for_what_there_is_and_for_all_of_it() -> None:
    kinds = dict(re.findall(r"^# TYPE (playhead_\w+) (\w+)$", Metrics().render().decode(), re.MULTILINE))
    there = {f"{name}_bucket" if kind == "histogram" else name for name, kind in kinds.items()}
    there = {name for name in there if not name.endswith("_created")}
    asked = set(re.findall(r"\bplayhead_\w+", json.dumps(_expressions(DASHBOARD))))
    assert asked == there


def _expressions(dashboard: Path) -> list[str]:
    panels = json.loads(dashboard.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]
