"""The port `Doorbell`: whoever listens is told, within a process and over Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from service.adapters.memory_doorbell import MAX_WAITING, MemoryDoorbell
from service.adapters.redis_client import connect
from service.adapters.redis_doorbell import RedisDoorbell
from service.model.ids import TaskId
from service.model.task import CancelRequested, TaskDue
from service.sessions.ports import Doorbell

CANCEL = CancelRequested(TaskId("01890000-0000-7000-8000-000000000000"))


@pytest.fixture(params=["memory", "valkey"])
async def doorbell(request: pytest.FixtureRequest) -> AsyncIterator[Doorbell]:
    if request.param == "memory":
        yield MemoryDoorbell()
        return
    redis = connect(request.getfixturevalue("redis_url"))
    yield RedisDoorbell(redis)
    await redis.aclose()


async def test_whoever_listens_hears_each_ring_in_its_order(doorbell: Doorbell) -> None:
    async with AsyncExitStack() as stack, asyncio.timeout(5):
        heard = [await stack.enter_async_context(doorbell.listen()) for _ in range(2)]
        for rings in heard:
            assert await anext(rings) == TaskDue()  # what rang before nobody knows
        await doorbell.ring(CANCEL)
        await doorbell.ring(TaskDue())
        for rings in heard:
            assert [await anext(rings), await anext(rings)] == [CANCEL, TaskDue()]


async def test_a_ring_that_nobody_hears_is_gone(doorbell: Doorbell) -> None:
    async with asyncio.timeout(5):
        await doorbell.ring(CANCEL)
        async with doorbell.listen() as rings:
            assert await anext(rings) == TaskDue()
            await doorbell.ring(TaskDue())
            assert await anext(rings) == TaskDue()


async def test_in_memory_a_listener_that_takes_nothing_is_told_that_something_is_due() -> None:
    doorbell = MemoryDoorbell()
    async with doorbell.listen() as rings:
        for _ in range(MAX_WAITING):
            await doorbell.ring(CANCEL)
        assert [await anext(rings), await anext(rings)] == [TaskDue(), CANCEL]
        assert len(doorbell._listeners) == 1
    assert doorbell._listeners == []
