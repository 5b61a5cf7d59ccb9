"""What stands in the stores, asked past every proxy; and what was published, heard by a witness."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import asyncpg
import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.adapters.redis_client import connect
from service.adapters.redis_keys import READY_CHANNEL, log_key, meta_key
from service.model.ids import TaskId
from tests.acceptance.client import Stored
from tests.faults.stores import Stores

AWAY_SECONDS: Final = 60.0
"""A store that is down is waited for so long."""

_AWAY: Final = (
    RedisError,
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InternalClientError,
    asyncpg.InterfaceError,
)
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Row:
    """What PostgreSQL says of a task, its lease and its answer."""

    status: str
    error_type: str | None
    usage: dict[str, int]
    log_closed: bool
    answer_id: str
    epoch: int
    answers: list[tuple[str, Any]]
    """The assistant's messages of this task: id and parts."""


@dataclass(slots=True)
class Witness:
    """Hears every hint, and notes where a holder spoke after its successor."""

    epochs: dict[str, int] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)

    def hear(self, channel: bytes, data: bytes) -> None:
        name, epoch = channel.decode(), int(data.split(b" ", 1)[0])
        if epoch < self.epochs.get(name, 0):
            self.late.append(f"{name}: epoch {epoch} after {self.epochs[name]}")
        self.epochs[name] = max(epoch, self.epochs.get(name, 0))


class Truth:
    """Both stores, read directly."""

    def __init__(self, redis: Redis, postgres_url: str) -> None:
        self.redis = redis
        self.witness = Witness()
        self.logs: dict[str, bytes] = {}
        """The frames of each log that was checked when it was over."""
        self._postgres_url = postgres_url

    async def log(self, task_id: str) -> list[Stored]:
        """The whole log."""
        entries = await _patiently(lambda: self.redis.xrange(log_key(TaskId(task_id))))
        return [Stored(position.decode(), data) for position, (_, data) in entries]

    async def last(self, task_id: str) -> bytes:
        """The log's last position; empty where there is none."""
        n, ms = await _patiently(lambda: self.redis.hmget(meta_key(TaskId(task_id)), "n", "ms"))
        return b"%b-%b" % (ms, n) if n else b""

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Rows, over a connection of its own."""

        async def ask() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self._postgres_url)
            try:
                return await connection.fetch(statement, *arguments)
            finally:
                await connection.close()

        return await _patiently(ask)

    async def row(self, task_id: str) -> Row:
        """Of one task."""
        (task,) = await self.fetch(
            "SELECT t.*, l.epoch FROM tasks t JOIN leases l ON l.task_id = t.id WHERE t.id = $1", task_id
        )
        answers = await self.fetch(
            "SELECT id, parts FROM messages WHERE task_id = $1 AND role = 'assistant' ORDER BY seq", task_id
        )
        return Row(
            task["status"],
            task["error_type"],
            orjson.loads(task["usage"]),
            task["log_closed"],
            task["answer_id"],
            task["epoch"],
            [(answer["id"], orjson.loads(answer["parts"])) for answer in answers],
        )

    async def tasks_of(self, session_id: str) -> list[str]:
        """The tasks of a session, the newest last."""
        rows = await self.fetch("SELECT id::text FROM tasks WHERE session_id = $1 ORDER BY id", session_id)
        return [row["id"] for row in rows]

    async def unclosed(self) -> set[str]:
        """The tasks that are not over."""
        return {row["id"] for row in await self.fetch("SELECT id::text FROM tasks WHERE NOT log_closed")}

    async def everything(self, task_ids: list[str]) -> list[Any]:
        """All that stands of these tasks anywhere, whether they are archived or not."""
        rows = [
            await self.fetch(
                f"SELECT to_jsonb(r) - 'log_archived' FROM {name} r WHERE {key} = ANY ($1) ORDER BY 1", task_ids
            )
            for name, key in (("tasks", "id"), ("leases", "task_id"), ("messages", "task_id"))
        ]
        return [rows, [await self.log(task_id) for task_id in task_ids]]

    async def archived(self, task_ids: list[str]) -> dict[str, list[Stored]]:
        """What the archive has of some logs."""
        rows = await self.fetch(
            "SELECT task_id::text, ms, n, data FROM log_events WHERE task_id = ANY ($1) ORDER BY task_id, n", task_ids
        )
        logs: dict[str, list[Stored]] = {task_id: [] for task_id in task_ids}
        for row in rows:
            logs[row["task_id"]].append(Stored(f"{row['ms']}-{row['n']}", row["data"]))
        return logs

    async def unarchived(self) -> set[str]:
        """The tasks that are over and whose logs are not archived."""
        rows = await self.fetch("SELECT id::text FROM tasks WHERE log_closed AND NOT log_archived")
        return {row["id"] for row in rows}

    async def let_leases_lapse(self) -> None:
        """What passing time would do to the leases of the dead; the living are told to look."""
        await self.fetch("UPDATE leases SET lease_until = now() WHERE lease_until > now()")
        await self.redis.publish(READY_CHANNEL, b"")


@asynccontextmanager
async def truth_of(stores: Stores) -> AsyncGenerator[Truth]:
    """The truth about these stores while the block runs; a store that is down is waited for."""
    async with aclosing(connect(stores.valkey.url)) as redis:
        truth = Truth(redis, stores.postgres.url)
        listening = asyncio.create_task(_listen(redis, truth.witness), name="witness")
        try:
            yield truth
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def _patiently(ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """The answer, as soon as the store is there."""
    async with asyncio.timeout(AWAY_SECONDS):
        while True:
            try:
                return await ask()
            except _AWAY:
                await asyncio.sleep(0.1)


async def _listen(redis: Redis, witness: Witness) -> None:
    while True:
        try:
            async with redis.pubsub() as pubsub:
                await pubsub.psubscribe("playhead:*:live")
                async for message in pubsub.listen():
                    if message["type"] == "pmessage":
                        witness.hear(message["channel"], message["data"])
        except (RedisError, OSError):
            await asyncio.sleep(0.1)
