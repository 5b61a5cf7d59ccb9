"""The client to Redis on a bad line: every call has one deadline, and nothing is sent twice."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Disconnected

from service.adapters import redis_log
from service.adapters.redis_client import connect
from service.adapters.redis_log import RedisLogStore
from service.model.errors import LogUnavailable
from service.model.ids import Epoch, TaskId
from service.model.log import Batch
from service.model.position import BEGINNING, Position
from tests.adapters.valkeys import OwnValkey, own_valkey
from tests.faults.link import Link, link_to
from tests.faults.wire import BlackHole, Reset, SwallowReply

TASK = TaskId("00000000-0000-7000-8000-000000000000")
SOON_SECONDS = 0.5
SLACK_SECONDS = 1.5
"""This machine may have other things to do."""


@pytest.fixture
async def valkey() -> AsyncIterator[OwnValkey]:
    async with own_valkey() as server:
        yield server


@pytest.fixture
async def link(valkey: OwnValkey) -> AsyncIterator[Link]:
    async with link_to(valkey.path) as made:
        yield made


@pytest.fixture
async def redis(link: Link) -> AsyncIterator[Redis]:
    async with aclosing(connect(f"redis://127.0.0.1:{link.port}/0")) as client:
        yield client


async def test_pitfall_54_in_a_black_hole_every_call_ends_at_its_deadline(
    link: Link, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it had a connection (the first one) or needs another one; and afterwards it works again."""
    monkeypatch.setattr(redis_log, "CALL_SECONDS", SOON_SECONDS)
    logs = RedisLogStore(redis)
    batch = Batch(TASK, Epoch(1), BEGINNING, Position(1, 1), b'id: 1-1\ndata: {"type":"start"}\n\n', terminal=False)
    await logs.ping()
    link.break_by(BlackHole())
    calls: list[Coroutine[Any, Any, object]] = [
        logs.ping(),
        logs.head(TASK),
        logs.read(TASK, BEGINNING, 10),
        logs.open(TASK, Epoch(1), BEGINNING),
        logs.append([batch]),
    ]
    begun = asyncio.get_running_loop().time()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    took = asyncio.get_running_loop().time() - begun
    assert [type(answer) for answer in answers] == [LogUnavailable] * len(calls)
    assert SOON_SECONDS - 0.1 < took < SOON_SECONDS + SLACK_SECONDS
    link.heal()
    await logs.ping()


async def test_pitfall_54_a_command_whose_answer_is_lost_was_sent_once(link: Link, redis: Redis) -> None:
    for times in range(1, 4):
        await redis.ping()  # connected; what a connection begins with would be what is swallowed
        link.break_by(SwallowReply(once=True))
        with pytest.raises(Disconnected):
            await redis.incr("times")
        assert int(await redis.get("times")) == times


async def test_pitfall_54_a_connection_that_broke_while_it_was_idle_is_told_or_replaced(
    link: Link, redis: Redis, valkey: OwnValkey
) -> None:
    """Never is a command repeated of which nobody knows whether it was done."""
    await redis.set("times", 0)
    link.break_by(Reset())
    done = 0
    for _ in range(3):
        try:
            await redis.incr("times")
            done += 1
        except Disconnected:
            pass
    assert done >= 2
    async with aclosing(connect(valkey.url())) as direct:
        assert int(await direct.get("times")) == done
