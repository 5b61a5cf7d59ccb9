"""Completions as a service in Python publishes them, over a real RabbitMQ."""

import json
import re
from collections.abc import AsyncIterator

import orjson
import pika
import pytest
import pytest_asyncio

from service.client import Failed, Succeeded, Unreachable, publishing
from service.client.publishing import Publisher
from service.model.completion import read_completion
from service.model.errors import InvalidInput
from service.model.ids import OperationId
from tests.adapters.rabbits import Rabbit, rabbit_at
from tests.faults.link import link_to
from tests.faults.wire import Reset
from tests.processes import free_port
from tests.test_documents import readme

OPERATION = OperationId("01890000-0000-7000-8000-000000000000")


@pytest_asyncio.fixture
async def rabbit(amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rabbit]:
    async with rabbit_at(amqp_url) as rabbit:
        monkeypatch.setattr(publishing, "EXCHANGE", rabbit.names.exchange)
        yield rabbit


async def taken(rabbit: Rabbit) -> tuple[dict[str, object], str | None, str | None, int | None]:
    """The next message: what it says, what it is called, who sent it, and whether it outlives the broker."""
    message = await rabbit.line.raw.basic_get(rabbit.names.queue, no_ack=True)
    assert message.delivery_tag is not None
    told = message.header.properties
    read_completion(message.body)  # as it is taken
    return orjson.loads(message.body), told.message_id, told.app_id, told.delivery_mode


async def test_what_is_said_is_there_when_the_call_returns(rabbit: Rabbit) -> None:
    async with Publisher(rabbit.url, "printer") as publisher:
        await publisher.report_progress(OPERATION, 0.5)
        await publisher.complete(OPERATION, Succeeded({"frames": 3}))
        await publisher.complete(OPERATION, Failed("patch_error", "No.", {"n": 1}), "m1")
    said, no = {"operation_id": OPERATION}, {"error_type": "patch_error", "error": "No.", "details": {"n": 1}}
    progress, name, *_ = await taken(rabbit)
    assert (progress, bool(name)) == (said | {"progress": 0.5}, True)
    assert [await taken(rabbit) for _ in range(2)] == [
        (said | {"success": True, "result": {"frames": 3}}, f"{OPERATION}.end", "printer", 2),
        (said | {"success": False, **no}, "m1", "printer", 2),
    ]


async def test_a_connection_that_is_lost_is_replaced(rabbit: Rabbit) -> None:
    async with link_to(rabbit.address) as link, Publisher(rabbit.through(link.port)) as publisher:
        await publisher.complete(OPERATION, Succeeded(1))
        link.break_by(Reset())
        with pytest.raises(Unreachable):
            await publisher.complete(OPERATION, Succeeded(1))
        link.heal()
        await publisher.complete(OPERATION, Succeeded(1))
    assert (await taken(rabbit))[:2] == (await taken(rabbit))[:2]


async def test_what_nobody_would_ever_take_is_told(rabbit: Rabbit) -> None:
    await rabbit.line.raw.queue_unbind(rabbit.names.queue, rabbit.names.exchange, "operation.complete")
    async with Publisher(rabbit.url) as publisher:
        with pytest.raises(Unreachable, match="No queue takes this"):
            await publisher.complete(OPERATION, Succeeded(1))
        with pytest.raises(InvalidInput):
            await publisher.complete(OPERATION, Succeeded(object()))  # type: ignore[arg-type]


async def test_a_broker_that_is_not_there_is_told_without_its_password() -> None:
    async with Publisher(f"amqp://u:hunter2@127.0.0.1:{free_port()}/") as publisher:
        with pytest.raises(Unreachable) as raised:
            await publisher.complete(OPERATION, Succeeded(1))
        assert "hunter2" not in str(raised.value)


async def test_the_readme_s_lines_in_plain_pika_do_what_they_say(rabbit: Rabbit) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", readme("Waiting for the outside"), re.M | re.S)
    (lines,) = [code for code in blocks if "channel.basic_publish" in code]
    connection = pika.BlockingConnection(pika.URLParameters(rabbit.url))
    names = {"channel": connection.channel(), "pika": pika, "json": json, "operation_id": OPERATION}
    exec(lines.replace('"chat_operations"', repr(rabbit.names.exchange)), names)
    connection.close()
    said, name, _, mode = await taken(rabbit)
    assert said == {"operation_id": OPERATION, "success": True, "result": {"frames": 3}}
    assert (name, mode) == (f"{OPERATION}.end", 2)
