"""What the broker is relied on for, and what its dead letters are good for. (How messages come: `tests/consumers`.)"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import aio_pika
import pamqp.encode
import pytest

from service.adapters.rabbit import DETAIL, DIED_AT, REASON, Names, Outlet, asking, open_line
from service.adapters.rabbit_letters import DeadLetters
from service.client import Succeeded, Unreachable
from service.client.publishing import Publisher
from service.model.errors import BrokerUnavailable
from service.model.ids import OperationId
from service.model.intake import ROUTING_KEY, Dead, DeadReason, Detached, Incoming
from tests.adapters.rabbits import SOON, Rabbit, rabbit_at
from tests.faults.link import link_to
from tests.faults.wire import BlackHole
from tests.processes import free_port


@pytest.fixture
async def rabbit(amqp_url: str) -> AsyncIterator[Rabbit]:
    async with rabbit_at(amqp_url) as rabbit:
        yield rabbit


async def bury(rabbit: Rabbit, *dead: tuple[bytes, DeadReason]) -> None:
    """Make dead letters of these."""
    await rabbit.publish(*(body for body, _ in dead))
    reasons, intake = dict(dead), rabbit.intake()
    async with aclosing(intake.items()) as items:
        async for item in items:
            if isinstance(item, Incoming):
                await intake.settle(item, Dead(reasons.pop(item.body), "no"))
            if not reasons:
                break
    await intake.close()
    await rabbit.has(ready=0, parked=0, dead=len(dead))


async def test_dead_letters_are_looked_at_as_often_as_one_likes_and_stay_in_their_order(rabbit: Rabbit) -> None:
    await bury(rabbit, (b"1", "refused"), (b"2", "unknown"), (b"3", "refused"))
    for _ in range(25):  # a newer broker drops by default what was delivered twenty times
        assert [letter.body for letter in await rabbit.letters.list(10)] == [b"1", b"2", b"3"]
    assert [letter.body for letter in await rabbit.letters.list(2)] == [b"1", b"2"]
    await rabbit.has(ready=0, parked=0, dead=3)


async def test_they_are_sent_again_one_by_one_by_reason_or_all_and_as_they_once_came(rabbit: Rabbit) -> None:
    await bury(rabbit, (b"1", "refused"), (b"2", "unknown"), (b"3", "refused"), (b"4", "failed"))
    second = (await rabbit.letters.list(10))[1]
    assert await rabbit.letters.redrive("ann", letter_id=second.id) == 1
    assert await rabbit.letters.redrive("ann", letter_id=second.id) == 0
    assert await rabbit.letters.redrive("ann", reason="refused") == 2
    await rabbit.has(ready=3, parked=0, dead=1)
    assert await rabbit.letters.redrive("ann") == 1
    await rabbit.has(ready=4, parked=0, dead=0)
    message = await rabbit.line.raw.basic_get(rabbit.names.queue, no_ack=True)
    assert message.body == b"2"
    assert set(message.header.properties.headers or {}) <= {"x-delivery-count"}


async def test_what_its_sender_gave_too_little_time_is_a_dead_letter_too(rabbit: Rabbit) -> None:
    await rabbit.publish(b"late", expiration=0.01)
    await rabbit.has(ready=0, parked=0, dead=1)
    (letter,) = await rabbit.letters.list(10)
    assert (letter.reason, letter.body) == ("expired", b"late")


async def test_headers_of_ours_that_its_sender_has_set_hide_no_dead_letter(rabbit: Rabbit) -> None:
    wrong: list[Any] = [["unknown"], {"unknown": 1}, 7, None]
    for value in wrong:
        headers = dict.fromkeys((REASON, DETAIL, DIED_AT), value)
        await rabbit.publish(b"late", headers=headers, expiration=0.01)
    await rabbit.has(ready=0, parked=0, dead=len(wrong))
    assert {letter.body for letter in await rabbit.letters.list(10)} == {b"late"}
    assert await rabbit.letters.redrive("ann") == len(wrong)


async def test_one_that_cannot_be_copied_keeps_none_behind_it(rabbit: Rabbit, monkeypatch: pytest.MonkeyPatch) -> None:
    await rabbit.publish(b"1", b"2", expiration=0.01)
    with monkeypatch.context() as patch:  # the library does not write such a text: another one does
        patch.setattr(pamqp.encode, "long_string", lambda _: b"\0\0\0\1\xff")
        await rabbit.publish(b"3", headers={"trace": {"of": "another"}}, expiration=0.01)
    await rabbit.publish(b"4", expiration=0.01)
    await rabbit.has(ready=0, parked=0, dead=4)
    assert await rabbit.letters.redrive("ann") == 3
    assert [letter.body for letter in await rabbit.letters.list(10)] == [b"3"]


async def test_a_connection_that_was_not_made_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the library closes it when it is forgotten, which may be in a thread without a loop."""
    tried: list[aio_pika.Connection] = []
    make = aio_pika.Connection.__init__

    def made(connection: aio_pika.Connection, *arguments: Any, **named: Any) -> None:
        make(connection, *arguments, **named)
        tried.append(connection)

    monkeypatch.setattr(aio_pika.Connection, "__init__", made)
    url = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    with pytest.raises(BrokerUnavailable):
        async with asking(5):
            await open_line(url, confirms=False)
    async with Publisher(url) as publisher:
        with pytest.raises(Unreachable):
            await publisher.complete(OperationId("o"), Succeeded(1))
    assert [connection.is_closed for connection in tried] == [True, True]


async def test_who_looks_while_another_does_waits_so_long_and_no_longer(rabbit: Rabbit) -> None:
    letters = DeadLetters(rabbit.url, rabbit.names, replace(SOON, connect=1.0))
    async with letters._looking():
        with pytest.raises(BrokerUnavailable):
            await letters.list(1)
    assert await letters.list(1) == []


async def test_what_no_queue_would_take_is_not_published(rabbit: Rabbit) -> None:
    sent = aio_pika.Message(b"{}", message_id="m-1", app_id="a", delivery_mode=2)
    await rabbit.outlet.send(sent, rabbit.names.exchange)
    await rabbit.line.raw.queue_unbind(rabbit.names.queue, rabbit.names.exchange, ROUTING_KEY)
    with pytest.raises(BrokerUnavailable):
        await rabbit.outlet.send(sent, rabbit.names.exchange)
    message = await rabbit.line.raw.basic_get(rabbit.names.queue, no_ack=True)
    told = message.header.properties
    assert (message.body, told.message_id, told.app_id, told.delivery_mode) == (b"{}", "m-1", "a", 2)


async def test_pitfall_56_publishing_into_a_black_hole_has_a_bound_and_works_again_behind_it(rabbit: Rabbit) -> None:
    async with link_to(rabbit.address) as link:
        outlet = Outlet(rabbit.through(link.port), rabbit.names, replace(SOON, call=0.2))
        await outlet.send(aio_pika.Message(b"1"), rabbit.names.exchange)
        link.break_by(BlackHole())
        async with asyncio.timeout(2):
            with pytest.raises(BrokerUnavailable):
                await outlet.send(aio_pika.Message(b"2"), rabbit.names.exchange)
        link.cut()
        link.heal()
        async with asyncio.timeout(5):
            while not await sent(outlet, b"3", rabbit.names.exchange):
                pass
        await outlet.close()
    await rabbit.has(ready=2, parked=0, dead=0)


async def sent(outlet: Outlet, body: bytes, exchange: str) -> bool:
    try:
        await outlet.send(aio_pika.Message(body), exchange)
    except BrokerUnavailable:
        return False
    return True


async def test_a_queue_that_is_there_in_another_shape_is_told_and_waited_for(rabbit: Rabbit) -> None:
    await rabbit.line.raw.queue_delete(rabbit.names.queue)
    await rabbit.line.raw.queue_declare(rabbit.names.queue, durable=True)
    intake = rabbit.intake()
    async with aclosing(intake.items()) as items:
        assert await anext(items) == Detached("ChannelPreconditionFailed")
    await intake.close()


async def test_a_broker_that_lets_nobody_in_is_told_without_its_address(rabbit: Rabbit) -> None:
    intake = rabbit.intake(rabbit.url.replace("guest@", "hunter2@"))
    async with aclosing(intake.items()) as items:
        assert await anext(items) == Detached("ProbableAuthenticationError")
    await intake.close()


@pytest.mark.parametrize("kind", [asyncio.CancelledError, Exception, ConnectionResetError, TimeoutError, RuntimeError])
async def test_whatever_the_library_breaks_a_call_by_is_the_broker_s_doing(kind: type[BaseException]) -> None:
    with pytest.raises(BrokerUnavailable):
        async with asking(5):
            raise kind


async def test_a_mistake_of_ours_is_not_the_broker_s_doing_and_neither_is_a_cancellation() -> None:
    with pytest.raises(TypeError):
        async with asking(5):
            raise TypeError

    async def asks() -> None:
        async with asking(5):
            await asyncio.Event().wait()

    task = asyncio.create_task(asks())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_prefix_is_before_every_name() -> None:
    plain, prefixed = Names(), Names("t.")
    names = ("exchange", "queue", "parked", "dead_exchange", "dead")
    assert [getattr(prefixed, name) for name in names] == [f"t.{getattr(plain, name)}" for name in names]
    assert len({getattr(plain, name) for name in names[1:3]} | {plain.dead}) == 3
