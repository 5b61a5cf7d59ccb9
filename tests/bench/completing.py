"""M10: completions a second, from the broker's queue to the committed outcome with its follow-up queued; against a
consumer of the same prefetch that acknowledges and does nothing else. And how long the webhook takes, against a commit.
"""

import asyncio
import json
import os
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Final

import aio_pika
import aiohttp
import asyncpg

from consumers.completions import Completions
from service.adapters.rabbit import Names, Outlet, Patience
from service.adapters.rabbit_intake import PREFETCH, Intake
from service.http.app import serving
from service.operations.gathering import Gathering
from service.wiring import House, make_operations, open_app, open_house
from tests.bench import table
from tests.bench.ground import Ground
from tests.bench.ours import clock_ms
from tests.bench.table import Sample, Target, against, alone, alternate, skipped

AMQP_URL: Final = os.environ.get("TEST_PLAYHEAD_AMQP_URL") or "amqp://guest:guest@127.0.0.1:5672/"
NAMES: Final = Names("bench-")

TAKEN: Final = Target(0.5)
ANSWERED: Final = Target(3, at_least=False)
GROWTH_MIB: Final = Target(32, at_least=False)
"""Of a consumer that drains a queue of any length: its prefetch, and what the allocator keeps."""

_BEGIN: Final = """
    WITH given AS (SELECT playhead_uuid7() AS id, playhead_uuid7() AS task, playhead_uuid7()::text AS session
                   FROM generate_series(1, $1::int)),
         made AS (INSERT INTO sessions (id, owner) SELECT session, 'bench' FROM given),
         begun AS (INSERT INTO tasks (id, session_id, owner, kind, status, operation_id)
                   SELECT task, session, 'bench', 'operation', 'waiting', id FROM given RETURNING id),
         lease AS (INSERT INTO leases (task_id) SELECT id FROM begun)
    INSERT INTO operations (id, session_id, owner, task_id, turn_id, call_id, tool, executor)
    SELECT id, session, 'bench', task, task, 'c', 'render', 'remote' FROM given
    RETURNING id::text
"""


async def run(ground: Ground) -> list[table.Row]:
    """Rows for the consumer, for what it drains after an outage, and for the webhook."""
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(open_house(ground.settings()))
        database = await asyncpg.connect(ground.postgres_url)
        stack.push_async_callback(database.close)
        rows = [await _webhook(ground, house, database)]
        try:
            broker = await stack.enter_async_context(await aio_pika.connect(AMQP_URL))
        except OSError:
            return [*rows, skipped("M10", "completions over AMQP", "a RabbitMQ")]
        stack.push_async_callback(_remove, broker)
        count = ground.sized(2000, 300)
        batches = [await _begun(database, count) for _ in range(ground.rounds)]
        sides: dict[str, Sample] = {
            "ours": partial(_ours, house, broker, iter(batches)),
            "empty": partial(_empty, broker, iter(batches)),
        }
        taken = await alternate(ground.rounds, sides)
        reference = ("empty consumer", taken["empty"])
        rows.append(against("M10", f"{count} completions, AMQP", "/s", taken["ours"], reference, TAKEN))
        backlog = ground.sized(10_000, 1000)
        before = _resident_mib()
        speed = await _ours(house, broker, iter([await _begun(database, backlog)]))
        rows.append(alone("M10", f"{backlog} drained after an outage", "s", [backlog / speed]))
        rows.append(alone("M10", "its growth", "MiB", [max(0.0, _resident_mib() - before)], GROWTH_MIB))
        queued = await database.fetchval("SELECT count(*) FROM tasks WHERE kind = 'operation' AND status = 'queued'")
        assert queued == count * ground.rounds + backlog + ground.sized(1000, 100)
    await ground.clear()
    return rows


async def _begun(database: "asyncpg.Connection", count: int) -> list[str]:
    return [row["id"] for row in await database.fetch(_BEGIN, count)]


def _message(operation_id: str) -> bytes:
    return json.dumps({"operation_id": operation_id, "success": True, "result": {"frames": 3}}).encode()


async def _fill(broker: "aio_pika.abc.AbstractConnection", operations: Sequence[str]) -> None:
    """Declare what services declare, and publish."""
    outlet = Outlet(AMQP_URL, NAMES, Patience())
    intake = Intake(AMQP_URL, NAMES, outlet, clock_ms, Patience())
    items = intake.items()
    await anext(items)
    await intake.stop_taking()
    await items.aclose()
    await intake.close()
    await outlet.close()
    channel = await broker.channel(publisher_confirms=True, on_return_raises=True)
    exchange = await channel.get_exchange(NAMES.exchange)
    for start in range(0, len(operations), 500):
        messages = [aio_pika.Message(_message(each), message_id=each) for each in operations[start : start + 500]]
        await asyncio.gather(*(exchange.publish(each, "operation.complete", mandatory=True) for each in messages))
    await channel.close()


async def _ours(house: House, broker: "aio_pika.abc.AbstractConnection", batches: Iterator[list[str]]) -> float:
    operations = next(batches)
    await _fill(broker, operations)
    outlet, stop, done = Outlet(AMQP_URL, NAMES, Patience()), asyncio.Event(), [0]

    def note(_: str) -> None:
        done[0] += 1
        if done[0] == len(operations):
            stop.set()

    intake = Intake(AMQP_URL, NAMES, outlet, clock_ms, Patience())
    completions = Completions(
        intake, Gathering(make_operations(house)), lambda: datetime.now(UTC), time.monotonic, note
    )
    begun = time.perf_counter()
    await completions.run(stop)
    seconds = time.perf_counter() - begun
    await intake.close()
    await outlet.close()
    return len(operations) / seconds


async def _empty(broker: "aio_pika.abc.AbstractConnection", batches: Iterator[list[str]]) -> float:
    operations = next(batches)
    await _fill(broker, operations)
    channel = await broker.channel()
    await channel.set_qos(prefetch_count=PREFETCH)
    queue = await channel.get_queue(NAMES.queue)
    left, done = [len(operations)], asyncio.Event()

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        json.loads(message.body)
        await message.ack()
        left[0] -= 1
        if not left[0]:
            done.set()

    begun = time.perf_counter()
    await queue.consume(take)
    await done.wait()
    seconds = time.perf_counter() - begun
    await channel.close()
    return len(operations) / seconds


async def _webhook(ground: Ground, house: House, database: "asyncpg.Connection") -> table.Row:
    """The slowest of a hundred, one after the other, against the same of a transaction that stores one row."""
    count = ground.sized(1000, 100)
    operations = await _begun(database, count)
    await database.execute("CREATE TABLE bare_completions (id bigint GENERATED ALWAYS AS IDENTITY, body json)")
    ours, bare = [], []
    settings = ground.settings()
    async with (
        open_app(house, settings) as app,
        serving(app, "127.0.0.1", 0, write_timeout_seconds=30) as url,
        aiohttp.ClientSession() as http,
    ):
        for operation_id in operations:
            begun = time.perf_counter()
            path = f"{url}/operations/{operation_id}/complete"
            async with http.post(path, json={"success": True, "result": {"frames": 3}}) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()
            ours.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            await database.execute("INSERT INTO bare_completions (body) VALUES ($1)", '{"frames":3}')
            bare.append(time.perf_counter() - begun)
    await database.execute("DROP TABLE bare_completions")
    slowest = [sorted(each)[int(len(each) * 0.99)] * 1000 for each in (ours, bare)]
    return against("M10", "webhook, p99", "ms", slowest[:1], ("one commit", slowest[1:]), ANSWERED)


async def _remove(broker: "aio_pika.abc.AbstractConnection") -> None:
    channel = await broker.channel()
    for queue in (NAMES.queue, NAMES.parked, NAMES.dead):
        await channel.queue_delete(queue)
    for exchange in (NAMES.exchange, NAMES.dead_exchange):
        await channel.exchange_delete(exchange)


def _resident_mib() -> float:
    """At its highest so far, which is what counts."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
