"""Logs in Redis or Valkey: a stream of events and a small hash a task, written by two scripts alone."""

import asyncio
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Final

from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from service.adapters.redis_client import CALL_SECONDS, FOREIGN, leave_server
from service.adapters.redis_keys import live_channel, log_key, meta_key
from service.model.errors import LogUnavailable, translate
from service.model.ids import Epoch, TaskId
from service.model.log import (
    AppendResult,
    Batch,
    Closed,
    Fenced,
    Head,
    Invalid,
    Lost,
    Opened,
    Page,
    Refused,
    Stored,
    StoredEvent,
    Unopened,
)
from service.model.position import BEGINNING, Position
from service.model.trace import TraceParent, trace_from

_SCRIPTS: Final = files("service.adapters")
KEPT_CONNECTIONS: Final = 4
"""Connections for scripts that are not given back: the pool's own bookkeeping takes a fifth of a lone append."""

META_FIELDS: Final = ("epoch", "n", "ms", "closed")
"""What `head_of` reads."""


class RedisLogStore:
    """The port `LogStore` over one primary. Works on Redis 7.0 and Valkey 8 and later."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._open = redis.register_script((_SCRIPTS / "open.lua").read_text())
        self._append = redis.register_script((_SCRIPTS / "append.lua").read_text())
        self._kept: list[AbstractConnection] = []

    async def open(self, task_id: TaskId, epoch: Epoch, floor: Position) -> Opened | Fenced:
        with translate(FOREIGN):
            async with asyncio.timeout(CALL_SECONDS):
                (reply,) = await self._run(
                    self._open, [(2, log_key(task_id), meta_key(task_id), epoch, floor.n, floor.ms)]
                )
        match _raised(reply):
            case [b"FENCED", later]:
                return Fenced(Epoch(int(later)))
            case [b"OPENED", n, ms, closed]:
                return Opened(Position(int(ms), int(n)), bool(closed))
            case _:
                raise LogUnavailable

    async def append(self, batches: Sequence[Batch]) -> Sequence[AppendResult]:
        with translate(FOREIGN):
            async with asyncio.timeout(CALL_SECONDS):
                replies = await self._run(self._append, [_append_arguments(batch) for batch in batches])
        return [_append_result(reply) for reply in replies]

    async def read(self, task_id: TaskId, after: Position, count: int) -> Page:
        # Read from the position on, itself included: only so is it seen whether it names an event of this log.
        from_beginning = after == BEGINNING
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.xrange(log_key(task_id), str(after), "+", count if from_beginning else count + 1)
        pipeline.hmget(meta_key(task_id), META_FIELDS)
        with translate(FOREIGN):
            async with asyncio.timeout(CALL_SECONDS):
                entries, meta = await pipeline.execute()
        known = from_beginning or (bool(entries) and entries[0][0] == str(after).encode())
        entries = entries[known and not from_beginning :][:count]
        return page_of(entries, meta, known=known)

    async def head(self, task_id: TaskId) -> Head:
        with translate(FOREIGN):
            async with asyncio.timeout(CALL_SECONDS):
                return head_of(await self._redis.hmget(meta_key(task_id), META_FIELDS))

    async def ping(self) -> None:
        """Answers when the store does. Raises LogUnavailable."""
        with translate(FOREIGN):
            async with asyncio.timeout(CALL_SECONDS):
                await self._redis.ping()

    async def _run(self, script: AsyncScript, calls: Sequence[Sequence[Any]]) -> list[Any]:
        """Call a script for each list of arguments, in one round trip; load it where the store does not have it."""
        replies = await self._send(script.sha, calls)
        if demoted := next((reply for reply in replies if isinstance(reply, ReadOnlyError)), None):
            await self._leave_server()
            raise demoted
        if any(isinstance(reply, NoScriptError) for reply in replies):
            await self._redis.script_load(script.script)
            # Only the calls that were refused go again: they are the ones of which it is certain that nothing happened.
            again = await self._send(
                script.sha, [c for c, r in zip(calls, replies, strict=True) if isinstance(r, NoScriptError)]
            )
            rest = iter(again)
            replies = [next(rest) if isinstance(reply, NoScriptError) else reply for reply in replies]
        return replies

    async def _send(self, sha: str, calls: Sequence[Sequence[Any]]) -> list[Any]:
        """One write, then one reply a call: what the library's pipeline does, at a fraction of its cost."""
        connection = await self._take_connection()
        try:
            packed = b"".join([pack_command(("EVALSHA", sha, *call)) for call in calls])
            await connection.send_packed_command(packed, check_health=False)
            replies = [await _reply(connection) for _ in calls]
        except BaseException:
            # Replies that are still under way would be taken for those of the connection's next user.
            await connection.disconnect(nowait=True)
            await self._redis.connection_pool.release(connection)
            raise
        if len(self._kept) < KEPT_CONNECTIONS:
            self._kept.append(connection)
        else:
            await self._redis.connection_pool.release(connection)
        return replies

    async def _leave_server(self) -> None:
        while self._kept:
            connection = self._kept.pop()
            await connection.disconnect(nowait=True)
            await self._redis.connection_pool.release(connection)
        await leave_server(self._redis)

    async def _take_connection(self) -> AbstractConnection:
        """One that is kept and still good, else the pool's."""
        pool = self._redis.connection_pool
        while self._kept:
            connection = self._kept.pop()
            if connection.is_connected and not await connection.can_read():
                return connection
            await connection.disconnect(nowait=True)  # the store has closed it
            await pool.release(connection)
        return await pool.get_connection()  # type: ignore[no-untyped-call, no-any-return]


def page_of(entries: Sequence[Any], meta: Sequence[bytes | str | None], *, known: bool) -> Page:
    """The page of these stream entries: each has its event, the last of a traced batch its trace behind it."""
    events: list[StoredEvent] = [(position, fields[1]) for position, fields in entries]
    return Page(known, events, head_of(meta), _newest_trace(entries))


def _newest_trace(entries: Sequence[Any]) -> TraceParent | None:
    """What stands beside the last event of each batch that was traced."""
    trace = next((fields[3] for _, fields in reversed(entries) if len(fields) > 3), None)
    return None if trace is None else trace_from(trace.decode("latin-1"))


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def _append_arguments(batch: Batch) -> tuple[Any, ...]:
    return (
        2,
        log_key(batch.task_id),
        meta_key(batch.task_id),
        batch.epoch,
        batch.before.n,
        batch.last.n,
        b"1" if batch.terminal else b"0",
        live_channel(batch.task_id),
        _hint_head(batch),
        b"1" if batch.hinted_frames else b"0",
        batch.frames,
        batch.trace or "",
    )


def _hint_head(batch: Batch) -> bytes:
    head = b"%d %d-%d %d-%d %d" % (batch.epoch, *batch.before, *batch.last, batch.terminal)
    return head + (b"\n" if batch.trace is None else b" %b\n" % batch.trace.encode())


def _append_result(reply: Any) -> AppendResult:
    match reply:
        case [b"STORED"]:
            return Stored()
        case [b"FENCED", later]:
            return Fenced(Epoch(int(later)))
        case [b"UNOPENED"]:
            return Unopened()
        case [b"CLOSED"]:
            return Closed()
        case [b"LOST", n, ms]:
            return Lost(Position(int(ms), int(n)))
        case ResponseError() if str(reply).startswith("ORDER"):
            return Invalid()
        case ResponseError():
            return Refused(type(reply).__name__)  # its text may repeat our arguments
        case _:
            return Refused("unexpected reply")


def _raised(reply: Any) -> Any:
    """The reply, unless it is an error: out of memory and a replica's refusal are a store that is away."""
    if isinstance(reply, ResponseError):
        raise LogUnavailable from reply
    return reply


def head_of(meta: Sequence[bytes | str | None]) -> Head:
    """What the hash says of its log."""
    epoch, n, ms, closed = meta
    return Head(Position(int(ms or 0), int(n or 0)), closed is not None, Epoch(int(epoch or 0)))
