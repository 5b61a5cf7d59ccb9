"""The port `HotLogs`: what goes when, on every log store that there is."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from service.adapters.memory_log import MemoryLogStore
from service.adapters.redis_keys import DATABASE_KEY, log_key, meta_key
from service.model.ids import Epoch, TaskId
from service.model.log import Fenced, Opened, Unopened
from service.model.position import BEGINNING
from service.model.trace import TraceParent
from tests.contracts.conftest import Backend
from tests.contracts.logs import batch, new_task

DAY = 86_400


async def closed_log(backend: Backend, events: int = 5) -> TaskId:
    task_id = new_task()
    await backend.logs.open(task_id, Epoch(1), BEGINNING)
    await backend.logs.append([batch(task_id, 1, range(1, events + 1), terminal=True)])
    return task_id


async def open_log(backend: Backend) -> TaskId:
    task_id = new_task()
    await backend.logs.open(task_id, Epoch(1), BEGINNING)
    await backend.logs.append([batch(task_id, 1, range(1, 4))])
    return task_id


async def is_there(backend: Backend, task_id: TaskId) -> bool:
    page = await backend.logs.read(task_id, BEGINNING, 10)
    keys = await backend.redis.exists(log_key(task_id), meta_key(task_id)) if backend.redis else 2
    assert (len(page.events) > 0, keys) in ((True, 2), (False, 0), (False, 2)), "the two keys go together"
    return len(page.events) > 0


async def times_left(backend: Backend, task_id: TaskId) -> list[int | None]:
    """Of both keys, in seconds; None where a key stays."""
    if backend.redis is None:
        assert isinstance(backend.logs, MemoryLogStore)
        until = backend.logs._logs[task_id].expires_at
        return [None if until is None else round(until - backend.logs._clock())] * 2
    return [await _time_left(backend.redis, key) for key in (log_key(task_id), meta_key(task_id))]


async def _time_left(redis: Redis, key: str) -> int | None:
    left = int(await redis.ttl(key))
    assert left != -2, "there is no such key"
    return None if left == -1 else left


async def test_pitfall_23_only_what_is_retired_expires_both_keys_at_once_and_the_time_is_set_once(
    backend: Backend,
) -> None:
    task_id, other = await closed_log(backend), await closed_log(backend)
    assert await times_left(backend, task_id) == [None, None]
    await backend.hot.retire([task_id], DAY)
    left = await times_left(backend, task_id)
    assert left[0] == left[1]
    assert DAY - 5 <= (left[0] or 0) <= DAY
    await backend.hot.retire([task_id], 5 * DAY)
    assert max(left_again or 0 for left_again in await times_left(backend, task_id)) <= DAY
    assert await times_left(backend, other) == [None, None]
    assert await is_there(backend, task_id)


async def test_a_key_alone_that_lost_its_time_gets_it_again(backend: Backend) -> None:
    if backend.redis is None:
        return
    task_id = await closed_log(backend)
    await backend.hot.retire([task_id], DAY)
    await backend.redis.persist(meta_key(task_id))
    await backend.hot.retire([task_id], DAY)
    assert None not in await times_left(backend, task_id)


async def test_of_what_is_retired_what_has_no_end_goes_at_once(backend: Backend) -> None:
    cut, ghost, nothing = await open_log(backend), new_task(), new_task()
    await backend.logs.open(ghost, Epoch(1), BEGINNING)
    await backend.hot.retire([cut, ghost, nothing], DAY)
    for task_id in (cut, ghost, nothing):
        assert not await is_there(backend, task_id)
        assert not {cut, ghost, nothing} & set(await everything(backend))


async def test_logs_begin_as_they_are_read(backend: Backend) -> None:
    traced = await open_log(backend)
    trace = TraceParent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    await backend.logs.append([replace(batch(traced, 1, [4, 5]), trace=trace)])
    logs = [await closed_log(backend), new_task(), traced, await open_log(backend), await closed_log(backend, 2)]
    for count in (1, 3, 100):
        read = [await backend.logs.read(task_id, BEGINNING, count) for task_id in logs]
        assert await backend.hot.begin(logs, count) == read


async def test_what_is_removed_is_gone_whole_and_nothing_else(backend: Backend) -> None:
    gone, stays = [await closed_log(backend), await open_log(backend)], await open_log(backend)
    for _ in range(2):
        await backend.hot.remove(gone)
    assert [await is_there(backend, task_id) for task_id in [*gone, stays]] == [False, False, True]


async def test_a_lap_brings_each_log_that_is_there_also_where_others_go_meanwhile(backend: Backend) -> None:
    stay = {await closed_log(backend, 1) for _ in range(60)}
    go = [await closed_log(backend, 1) for _ in range(60)]
    found: set[TaskId] = set()
    cursor = -1
    while cursor:
        scanned = await backend.hot.scan(max(cursor, 0))
        found.update(scanned.task_ids)
        cursor = scanned.cursor
        await backend.hot.remove([go.pop() for _ in range(min(10, len(go)))])
    assert stay <= found


async def test_other_keys_are_no_logs(backend: Backend) -> None:
    if backend.redis is None:
        return
    task_id = new_task()
    others = [f"playhead:{{{task_id}}}:live", f"playhead:{{{task_id}x}}:log", f"elsewhere:{{{task_id}}}:log"]
    for key in others:
        await backend.redis.set(key, "x", ex=60)
    assert task_id not in await everything(backend)
    await backend.redis.delete(*others)


async def test_pitfall_23_whoever_opened_it_before_can_append_nothing_once_it_is_gone(backend: Backend) -> None:
    task_id = await closed_log(backend)
    await backend.hot.remove([task_id])
    for late in (batch(task_id, 1, [6]), batch(task_id, 1, range(1, 6), terminal=True), batch(task_id, 2, [1])):
        assert await backend.logs.append([late]) == [Unopened()]
        assert not await is_there(backend, task_id)


async def test_a_holder_who_opens_a_log_again_keeps_it(backend: Backend) -> None:
    """As when the database was set back to before the log was archived."""
    task_id = await closed_log(backend)
    await backend.hot.retire([task_id], DAY)
    assert isinstance(await backend.logs.open(task_id, Epoch(2), BEGINNING), Opened)
    assert await times_left(backend, task_id) == [None, None]
    await backend.hot.retire([task_id], DAY)
    assert isinstance(await backend.logs.open(task_id, Epoch(1), BEGINNING), Fenced)
    assert None not in await times_left(backend, task_id)


async def everything(backend: Backend) -> Sequence[TaskId]:
    found: list[TaskId] = []
    cursor = -1
    while cursor:
        scanned = await backend.hot.scan(max(cursor, 0))
        found += scanned.task_ids
        cursor = scanned.cursor
    return found


@pytest.mark.parametrize("backend", ["memory", "fakeredis", "valkey", "own redis7"], indirect=True)
async def test_a_store_belongs_to_the_first_database_that_asks_and_to_no_other(backend: Backend) -> None:
    if backend.redis is not None:
        await backend.redis.delete(DATABASE_KEY)
    assert [await backend.hot.is_of(database) for database in ("ours", "theirs", "ours")] == [True, False, True]
    if backend.redis is not None:
        await backend.redis.delete(DATABASE_KEY)
