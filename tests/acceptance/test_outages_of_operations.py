"""Hundreds of completions through whatever goes wrong: processes that are killed, a database that does not answer.

Afterwards every operation has its outcome, every user has heard of it once, and no message is left anywhere.
"""

import asyncio
import json
import signal
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aio_pika
import asyncpg
import pytest

from service.adapters.rabbit import Names
from tests.acceptance.brokers import empty_broker, messages_left, until
from tests.faults.link import link_to
from tests.faults.wire import BlackHole
from tests.processes import Service, serve

pytestmark = pytest.mark.asyncio(loop_scope="session")

OPERATIONS = 500
AWAY_SECONDS = 5.0


async def publish(url: str, messages: list[tuple[str, dict[str, Any]]]) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await channel.get_exchange(Names().exchange)
        for name, value in messages:
            message = aio_pika.Message(
                json.dumps(value).encode(), message_id=name, delivery_mode=aio_pika.DeliveryMode.PERSISTENT
            )
            await exchange.publish(message, "operation.complete", mandatory=True)


BEGIN = """
DO $$ DECLARE conversation text; turn uuid; BEGIN
    FOR i IN 1..%d LOOP
        INSERT INTO sessions (owner) VALUES ('local') RETURNING id INTO conversation;
        turn := playhead_begin_turn(conversation, 'asked', '[{"type": "text", "text": "Hi"}]', now(), NULL);
        UPDATE tasks SET status = 'running', started_at = now() WHERE id = turn;
        UPDATE leases SET epoch = 1 WHERE task_id = turn;
        PERFORM playhead_begin_operation(turn, 1, 'c1', 'render', 'remote', '{}', NULL, 3600, 1000);
        UPDATE tasks SET status = 'succeeded', ending = '[]', finished_at = now(), log_closed = true WHERE id = turn;
    END LOOP;
END $$
"""
"""Sessions whose turns have begun an operation each, and ended; as if a worker had run them."""


async def is_attached(log: Path) -> bool:
    return '"amqp_attached"' in log.read_text()


def socket_of(dsn: str) -> Path:
    """Where the embedded PostgreSQL listens."""
    asked = parse_qs(urlsplit(dsn).query)
    return Path(asked["host"][0]) / f".s.PGSQL.{asked['port'][0]}"


async def test_completions_through_kills_and_an_outage_are_each_one_outcome_and_one_follow_up(
    tmp_path: Path, store_settings: dict[str, str], amqp_url: str
) -> None:
    """Consumers and workers are killed (-9) again and again while the database answers nobody for a while."""
    await empty_broker(amqp_url)
    async with AsyncExitStack() as stack:
        dsn = store_settings["POSTGRES_URL"]
        database = await stack.enter_async_context(link_to(socket_of(dsn)))
        url = f"postgresql://postgres@127.0.0.1:{database.port}{urlsplit(dsn).path}?sslmode=disable"
        behind = store_settings | {"POSTGRES_URL": url, "AMQP_URL": amqp_url, "LEASE_SECONDS": "5"}
        connection = await asyncpg.connect(dsn)
        stack.push_async_callback(connection.close)
        await connection.execute(BEGIN % OPERATIONS)
        operations = [row["id"] for row in await connection.fetch("SELECT id::text FROM operations ORDER BY seq")]

        async def run(part: str, ready: str) -> Service:
            return await stack.enter_async_context(serve(tmp_path / f"{part}.log", behind, "--only", part, ready=ready))

        consumer, worker = await asyncio.gather(run("completions", "amqp"), run("tasks", "model"))
        messages = [
            (f"{each}.end", {"operation_id": each, "success": True, "result": {"n": n}})
            for n, each in enumerate(operations)
        ]
        doubled = [message for message in messages for _ in range(2)]
        await until(partial(is_attached, tmp_path / "completions.log"), "the queue")
        publishing = asyncio.create_task(publish(amqp_url, doubled))

        async def ended(least: int) -> bool:
            count = await connection.fetchval("SELECT count(*) FROM operations WHERE status <> 'pending'")
            return int(count) >= least

        for share in (0.1, 0.3):
            await until(lambda share=share: ended(int(OPERATIONS * share)), "some outcomes")
            consumer.process.send_signal(signal.SIGKILL)
            worker.process.send_signal(signal.SIGKILL)
            consumer, worker = await asyncio.gather(run("completions", "amqp"), run("tasks", "model"))
        database.break_by(BlackHole())
        await asyncio.sleep(AWAY_SECONDS)  # the outage itself, not a wait for something
        database.heal()
        await publishing
        await until(lambda: ended(OPERATIONS), "every outcome")

        async def followed() -> bool:
            running = "SELECT count(*) FROM tasks WHERE kind = 'operation' AND NOT log_closed"
            return int(await connection.fetchval(running)) == 0

        await until(followed, "every follow-up", seconds=60)
        tasks = await connection.fetch("SELECT status, count(*) FROM tasks WHERE kind = 'operation' GROUP BY status")
        assert {row["status"]: row["count"] for row in tasks} == {"succeeded": OPERATIONS}
        answers = await connection.fetch(
            "SELECT t.operation_id::text, count(*) FROM messages m JOIN tasks t ON t.id = m.task_id"
            " WHERE t.kind = 'operation' GROUP BY 1"
        )
        assert [row["count"] for row in answers] == [1] * OPERATIONS
        outcomes = await connection.fetch("SELECT id::text, outcome::text FROM operations")
        assert {row["id"]: json.loads(row["outcome"])["result"]["n"] for row in outcomes} == {
            each: n for n, each in enumerate(operations)
        }

        async def is_empty() -> bool:
            return await messages_left(amqp_url) == [0, 0, 0]

        await until(is_empty, "empty queues")
