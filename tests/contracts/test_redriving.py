"""`OperationInbox.redrive`, wherever operations are kept: follow-ups that failed, or rest, are tried again."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from service.adapters.postgres import Database, postgres_pool
from service.model.caller import EVERYONES, Own
from service.model.errors import NotFound, NothingFailed
from service.model.ids import OperationId, OwnerId
from service.model.operation import Delivery, Operation, OperationFilter
from service.model.task import Claim, Postponed
from tests.contracts.conversations import InPostgres, Kept
from tests.contracts.test_operations import LEASE, NOBODYS, ended, now, pending, said, turn
from tests.sessions.endings import ended_with

BY_ANN = Delivery("http", "ann")


async def failed_follow_up(kept: Kept, reach_owner: str | None = None) -> tuple[Operation, Claim]:
    """An operation whose follow-up has failed for good, and whose session is idle."""
    claim = await turn(kept, owner=reach_owner)
    operation = await pending(kept, claim=claim)
    await ended(kept, claim)
    await kept.queue.close(claim)
    await kept.operations.complete(said(operation))
    (follow_up,) = await kept.queue.claim(10, LEASE)
    await kept.queue.end(follow_up, replace(ended_with(follow_up, "No."), status="failed", error_type="timeout"))
    await kept.queue.close(follow_up)
    return await now(kept, operation), follow_up


async def stuck(kept: Kept) -> list[OperationId]:
    return [each.id for each in await kept.operations.newest(EVERYONES, OperationFilter(is_stuck=True), 10, None)]


async def test_a_failed_follow_up_is_redriven_as_another_task_of_its_operation(kept: Kept) -> None:
    operation, failed = await failed_follow_up(kept, "ann")
    assert await stuck(kept) == [operation.id]
    task_id = await kept.operations.redrive(Own(OwnerId("ann")), operation.id, BY_ANN)
    assert task_id not in (operation.task_id, failed.task.id)
    assert await stuck(kept) == []
    assert await kept.operations.redrive(EVERYONES, operation.id, BY_ANN) == task_id  # it is under way
    (again,) = await kept.queue.claim(10, LEASE)
    assert (again.task.id, again.task.kind, again.task.operation_id) == (task_id, "operation", operation.id)
    assert (again.task.status, again.failed_tries) == ("running", 0)
    assert await kept.operations.redrive(EVERYONES, operation.id, BY_ANN) == task_id
    assert await kept.operations.of_task(task_id) == await now(kept, operation)
    own = await kept.queue.of_session(EVERYONES, operation.session_id, 10, 0)
    assert own is not None
    assert [each.id for each in own][-2:] == [operation.task_id, task_id]
    follow_ups = await kept.operations.follow_ups(operation.id)
    assert [(each.task_id, each.status, each.error_type) for each in follow_ups] == [
        (operation.task_id, "failed", "timeout"),
        (task_id, "running", None),
    ]
    trace = (await kept.operations.deliveries(operation.id))[-1]
    assert (trace.disposition, trace.delivery, trace.status, trace.outcome) == ("redriven", BY_ANN, "succeeded", None)
    assert len(await kept.operations.deliveries(operation.id)) == 2  # one has changed something
    await kept.queue.end(again, replace(ended_with(again, "No."), status="failed", error_type="timeout"))
    assert await stuck(kept) == [operation.id]
    assert await kept.operations.redrive(EVERYONES, operation.id, BY_ANN) not in (task_id, operation.task_id)


async def test_a_follow_up_that_rests_is_due_at_once_when_it_is_redriven(kept: Kept) -> None:
    claim = await turn(kept)
    operation = await pending(kept, claim=claim)
    await ended(kept, claim)
    await kept.queue.close(claim)
    await kept.operations.complete(said(operation))
    (follow_up,) = await kept.queue.claim(10, LEASE)
    await kept.operations.postpone(follow_up, Postponed(3600, "timeout"))
    (resting,) = await kept.operations.follow_ups(operation.id)
    assert (resting.task_id, resting.status, resting.error_type) == (operation.task_id, "queued", "timeout")
    assert resting.failed_tries == 1
    assert 3590 < (resting.due_at - operation.created_at).total_seconds() < 3700
    assert await kept.queue.claim(10, LEASE) == []
    assert await kept.operations.redrive(EVERYONES, operation.id, BY_ANN) == operation.task_id
    assert await stuck(kept) == []
    (again,) = await kept.queue.claim(10, LEASE)
    assert (again.task.id, again.failed_tries) == (operation.task_id, 0)


async def _is_pending(kept: Kept) -> Operation:
    return await pending(kept)


async def _was_told(kept: Kept) -> Operation:
    operation = await pending(kept)
    await kept.operations.complete(said(operation, follow_up=False))
    return operation


async def _has_succeeded(kept: Kept) -> Operation:
    claim = await turn(kept)
    operation = await pending(kept, claim=claim)
    await ended(kept, claim)
    await kept.operations.complete(said(operation))
    (follow_up,) = [each for each in await kept.queue.claim(10, LEASE) if each.task.kind == "operation"]
    await ended(kept, follow_up)
    return operation


async def _is_to_be_cancelled(kept: Kept) -> Operation:
    operation = await pending(kept)
    await kept.operations.complete(said(operation))
    await kept.queue.cancel(EVERYONES, operation.task_id)
    return operation


@pytest.mark.parametrize("moment", [_is_pending, _was_told, _has_succeeded, _is_to_be_cancelled])
async def test_what_has_not_failed_is_not_redriven(kept: Kept, moment: Callable[[Kept], Awaitable[Operation]]) -> None:
    operation = await moment(kept)
    before = await kept.everything(), await kept.operations.deliveries(operation.id)
    with pytest.raises(NothingFailed):
        await kept.operations.redrive(EVERYONES, operation.id, BY_ANN)
    assert (await kept.everything(), await kept.operations.deliveries(operation.id)) == before


async def test_what_has_no_follow_up_has_none(kept: Kept) -> None:
    for operation in (await _is_pending(kept), await _was_told(kept)):
        assert await kept.operations.follow_ups(operation.id) == []


async def test_nobody_redrives_what_they_cannot_see(kept: Kept) -> None:
    operation, _ = await failed_follow_up(kept, "ann")
    for reach, wanted in ((Own(OwnerId("bob")), operation.id), (Own(None), operation.id), (EVERYONES, NOBODYS)):
        with pytest.raises(NotFound):
            await kept.operations.redrive(reach, wanted, BY_ANN)
    await kept.store.delete(EVERYONES, operation.session_id)
    with pytest.raises(NotFound):
        await kept.operations.redrive(EVERYONES, operation.id, BY_ANN)
    assert await kept.queue.claim(10, LEASE) == []


async def test_of_two_who_redrive_at_once_one_queues_a_task(dsn: str) -> None:
    async with AsyncExitStack() as stack:
        both = [
            InPostgres(Database(await stack.enter_async_context(postgres_pool(dsn, connections=4)))) for _ in range(2)
        ]
        operation, _ = await failed_follow_up(both[0])
        task_ids = await asyncio.gather(
            *(kept.operations.redrive(EVERYONES, operation.id, BY_ANN) for kept in both for _ in range(4))
        )
        assert len(set(task_ids)) == 1
        own = await both[0].queue.of_session(EVERYONES, operation.session_id, 10, 0)
        assert own is not None
        assert len(own) == 3
