"""An operation as its users live it: real processes, a real broker, an external service that is one of its own."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aio_pika
import asyncpg
import pytest

from service.adapters.rabbit import Names
from service.model.failures import MESSAGES
from tests.acceptance.client import assert_whole, client_of, frames
from tests.acceptance.readers import RawReader
from tests.acceptance.render import render
from tests.acceptance.waiting import empty_broker, messages_left, until
from tests.faults.link import link_to
from tests.faults.wire import BlackHole
from tests.processes import Service, free_port, http_to, serve

pytestmark = pytest.mark.asyncio(loop_scope="session")

DONE = {"scene": 1, "frames": 3}
OPERATIONS = 200
AWAY_SECONDS = 4.0


async def test_a_service_completes_over_two_doors_and_the_user_hears_of_it_once(
    tmp_path: Path, store_settings: dict[str, str], amqp_url: str
) -> None:
    """Two completions, one outcome, and one follow-up behind the turn that runs then, read over two cuts."""
    port = free_port()
    await empty_broker(amqp_url)
    async with AsyncExitStack() as stack:
        tools = await stack.enter_async_context(render(tmp_path, "--amqp", amqp_url))
        settings = store_settings | {
            "TOOLS_FILE": str(tools),
            "AMQP_URL": amqp_url,
            "HTTP_PORT": str(port),
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
        }
        service = await stack.enter_async_context(serve(tmp_path / "log", settings, ready="model"))
        client = await stack.enter_async_context(client_of(service))
        http = await stack.enter_async_context(http_to(service.url, 30))
        session = (await http.post("/sessions", json={})).json()["id"]

        async def post(text: str) -> str:
            answer = await http.post(f"/sessions/{session}/messages", json={"text": text})
            return str(answer.json()["task_id"])

        turn = await post('/tool render {"scene": 1, "seconds": 0.4}\n/say It is being rendered.')

        async def begun() -> Any:
            return (await http.get("/operations", params={"session": session})).json()["operations"]

        (operation,) = await until(begun, "the operation")
        await until(lambda: client.is_closed(turn), "the turn's end")
        live = await post("/count 30 rate=30")  # the user goes on
        follow_up = operation["task_id"]

        async def ended() -> Any:
            now = (await http.get(f"/operations/{operation['id']}")).json()
            return now if now["status"] != "pending" else None

        now = await until(ended, "the completion over the broker")
        assert (now["status"], now["outcome"]) == ("succeeded", {"result": DONE})
        again = await http.post(f"/operations/{operation['id']}/complete", json={"success": True, "result": DONE})
        assert (again.status_code, again.json()["duplicate"]) == (200, True)
        reader = RawReader(follow_up)
        for cut_after in (700, 900):
            await reader.read(service.url, cut_after)
        await reader.read_to_the_end(service.url)
        assert reader.cuts == 2
        log = await client.stored(follow_up)
        assert_whole(log)
        assert reader.log == frames(log)
        told = [event.chunk["data"] for event in log if event.type == "data-operation"]
        assert [each["status"] for each in told] == ["pending"] * (len(told) - 1) + ["succeeded"]
        assert told[-1].get("progress") in (None, 0.5)  # what says that it has ended may have been faster
        (output,) = [event.chunk["output"] for event in log if event.type == "tool-output-available"]
        assert output == DONE
        assert sum(event.type == "finish" for event in log) == 1
        task, other = (await http.get(f"/tasks/{follow_up}")).json(), (await http.get(f"/tasks/{live}")).json()
        assert (task["status"], other["status"]) == ("succeeded", "succeeded")
        assert task["started_at"] >= other["finished_at"]
        tasks = (await http.get(f"/sessions/{session}/tasks")).json()["tasks"]
        assert [each["id"] for each in tasks] == [turn, follow_up, live]
        deliveries = (await http.get(f"/operations/{operation['id']}")).json()["deliveries"]
        assert [(each["door"], each["disposition"]) for each in deliveries] == [
            ("amqp", "accepted"),
            ("http", "duplicate"),
        ]


CAUSES = {
    "rate_limit": b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
    "service_unavailable": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    "timeout": b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n",
    "http_error": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    "invalid_response": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\njunk",
    "patch_error": b'HTTP/1.1 200 OK\r\nContent-Length: 47\r\n\r\n{"success": false, "error_type": "patch_error"}',
    "connection_error": None,
}
"""What a service answers, as bytes; None: nobody listens there."""


async def test_what_goes_wrong_with_a_service_is_called_the_same_everywhere(
    tmp_path: Path, store_settings: dict[str, str]
) -> None:
    """From the socket to the log, the API and the model, for each of the causes."""
    assert set(CAUSES) <= set(MESSAGES)
    async with AsyncExitStack() as stack:
        tools = []
        for name, answer in CAUSES.items():
            port = free_port()
            if answer is not None:
                server = await asyncio.start_server(_says(answer), "127.0.0.1", port)
                stack.push_async_callback(_close, server)
            tools.append(_tool(name, port, len(tools)))
        file = tmp_path / "tools.json"
        file.write_text(json.dumps(tools))
        service = await stack.enter_async_context(
            serve(tmp_path / "log", store_settings | {"TOOLS_FILE": str(file)}, ready="model")
        )
        http = await stack.enter_async_context(http_to(service.url, 30))
        client = await stack.enter_async_context(client_of(service))
        session = (await http.post("/sessions", json={})).json()["id"]
        lines = "\n".join(f"/tool {name} {{}}" for name in CAUSES)
        turn = (await http.post(f"/sessions/{session}/messages", json={"text": lines})).json()["task_id"]
        await until(lambda: client.is_closed(turn), "the turn's end")
        in_log = [event.chunk["errorText"] for event in await client.stored(turn) if event.type == "tool-output-error"]
        assert sorted(in_log) == sorted(f"[code:{name}] {MESSAGES[name]}" for name in CAUSES)
        listed = (await http.get("/operations", params={"session": session})).json()["operations"]
        shown = [(await http.get(f"/operations/{each['id']}")).json() for each in listed]
        told = {each["tool"]: (each["outcome"]["error_type"], each["outcome"]["message"]) for each in shown}
        assert told == {name: (name, MESSAGES[name]) for name in CAUSES}


def _tool(name: str, port: int, number: int) -> dict[str, Any]:
    return {
        "name": name,
        "description": "Fails.",
        "schema": {"type": "object"},
        "url": f"http://127.0.0.1:{port}/",
        "secret": f"whsec_{'A' * 30}{number:02d}",
    }


def _says(answer: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    return serve_one


async def _close(server: asyncio.Server) -> None:
    server.close()
    await server.wait_closed()


# --- whatever goes wrong ---


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
