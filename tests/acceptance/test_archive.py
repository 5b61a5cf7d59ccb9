"""Whole services: a log that has left Redis is followed as before; and an archiver that runs alone."""

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

from service.adapters.postgres import Database, postgres_pool
from service.adapters.redis_client import connect
from service.adapters.redis_keys import log_key, meta_key
from service.adapters.redis_log import RedisLogStore
from service.model.encoding import frames as framed_events
from service.model.ids import Epoch, TaskId
from service.model.log import Batch, TaskFacts
from service.model.position import BEGINNING, Position
from tests.acceptance.client import Client, assert_whole, frames
from tests.acceptance.readers import DONE, kept, raw_stream
from tests.contracts.archives import InPostgres, whole_log
from tests.processes import Service, http_to, serve

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOT_TTL = 3600


async def until_it_expires(redis: Redis, task_id: str) -> None:
    """Until the archiver has said that the hot copy may go."""
    async with asyncio.timeout(20):
        while await redis.ttl(meta_key(TaskId(task_id))) < 0:
            pass  # each look is a round trip
    assert 0 < await redis.ttl(log_key(TaskId(task_id))) <= HOT_TTL


async def test_a_log_that_has_left_redis_is_followed_from_every_position_as_before(
    services: tuple[Service, Service, Service], client: Client
) -> None:
    whole_service, _, http_only = services
    task_id = await client.post("/count 12 rate=200")
    async with Redis.from_url(whole_service.redis_url, protocol=2) as redis:
        async with raw_stream(whole_service.url, task_id) as stream:
            await stream.receive_all()
        log = await client.stored(task_id)
        assert_whole(log)
        await until_it_expires(redis, task_id)
        assert await redis.delete(log_key(TaskId(task_id)), meta_key(TaskId(task_id))) == 2
    for service in (whole_service, http_only):
        async with raw_stream(service.url, task_id) as stream:
            await stream.receive_all()
        assert kept(bytes(stream.body)) == frames(log)
        assert DONE in stream.body
    async with http_to(http_only.url, 5) as http:
        path = f"/tasks/{task_id}/stream"
        for event in log[:-1]:
            answer = await http.get(path, headers={"Last-Event-ID": event.position})
            assert kept(answer.content) == frames(log[event.n :])
        assert (await http.get(path, headers={"Last-Event-ID": log[-1].position})).status_code == 204
        answer = await http.get(path, params={"last_message_id": "1-3", "on_gap": "refuse"})
        assert (answer.status_code, answer.json()["latest"]) == (410, log[-1].position)


async def test_an_archiver_runs_alone(tmp_path: Path, store_settings: dict[str, str]) -> None:
    redis = connect(store_settings["REDIS_URL"])
    async with postgres_pool(store_settings["POSTGRES_URL"]) as pool:
        backend, logs = InPostgres(Database(pool)), RedisLogStore(redis)
        task_id, events = await backend.task(), whole_log(7)
        await logs.open(task_id, Epoch(1), BEGINNING)
        last = Position.stored(events[-1][0])
        await logs.append([Batch(task_id, Epoch(1), BEGINNING, last, framed_events(events), terminal=True)])
        settings = store_settings | {"HOT_TTL_SECONDS": str(HOT_TTL)}
        async with serve(tmp_path / "log", settings, "--only", "archiver", ready="archiver") as archiver:
            await until_it_expires(redis, task_id)
            assert await archiver.stop() == 0
        assert await backend.directory.facts(task_id) == TaskFacts(log_closed=True, log_archived=True)
        assert list((await backend.archived.read(task_id, BEGINNING, 10)).events) == events
    await redis.delete(log_key(task_id), meta_key(task_id))
    await redis.aclose()
    assert "Traceback" not in (tmp_path / "log").read_text()
