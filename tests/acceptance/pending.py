"""Operations that wait, the services that complete them, and the processes that take that and go on."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import aio_pika
import asyncpg
import httpx
import orjson

from service.adapters.rabbit import Names, Outlet, Patience
from service.model.errors import BrokerUnavailable
from service.model.ids import OperationId
from tests.acceptance.waiting import messages_left, until
from tests.faults.bench import Member
from tests.faults.link import link_to
from tests.processes import http_to
from tests.sessions.databases import begin_operations

LEASE_SECONDS = "5"
AGAIN_SECONDS = 0.2
"""After so long a service says again what was not answered well."""

_PUBLISHED_AT_ONCE = 100
_CALLED_AT_ONCE = 20

_HOW_FAR = """
SELECT count(*) FILTER (WHERE o.status <> 'pending') AS ended,
       count(*) FILTER (WHERE t.status = 'running') AS running,
       count(*) FILTER (WHERE t.log_closed) AS closed
FROM operations o JOIN tasks t ON t.id = o.task_id
"""

_ANSWERS = """
SELECT count(m.id) AS told FROM tasks t LEFT JOIN messages m ON m.task_id = t.id
WHERE t.kind = 'operation' GROUP BY t.id
"""


@dataclass(frozen=True, slots=True)
class HowFar:
    """How many operations have their outcome, how many follow-ups run, how many logs of operations are closed."""

    ended: int
    running: int
    closed: int


@dataclass
class Pending:
    """So many of them in a database of their own, each in a session of its own."""

    stores: dict[str, str]
    folder: Path
    stack: AsyncExitStack
    database: "asyncpg.Connection[Any]"
    """Past every proxy."""
    operations: list[OperationId]
    members: list[Member] = field(default_factory=list)

    async def member(self, part: str, **settings: str) -> Member:
        """A running process whose lines to the stores can be broken."""
        redis, dsn = (urlsplit(self.stores[name]) for name in ("REDIS_URL", "POSTGRES_URL"))
        asked = parse_qs(dsn.query)
        sockets = Path(unquote(redis.path)), Path(asked["host"][0]) / f".s.PGSQL.{asked['port'][0]}"
        links = [await self.stack.enter_async_context(link_to(socket)) for socket in sockets]
        settings = {"LEASE_SECONDS": LEASE_SECONDS} | settings
        member = Member(part, part, *links, self.folder, settings, dsn.path.removeprefix("/"))
        self.stack.push_async_callback(member.close)
        self.members.append(member)
        await member.start()
        return member

    async def how_far(self) -> HowFar:
        """As the database says now."""
        return HowFar(**await self.database.fetchrow(_HOW_FAR))

    async def status(self, operation: OperationId) -> str:
        """Of one of them."""
        return str(await self.database.fetchval("SELECT status FROM operations WHERE id = $1::text::uuid", operation))

    async def deliveries(self, operation: OperationId) -> int:
        """How many completions of it have come, over any door."""
        counted = "SELECT deliveries FROM operations WHERE id = $1::text::uuid"
        return int(await self.database.fetchval(counted, operation))

    async def publish(self, url: str, operations: Sequence[OperationId], times: int = 2) -> int:
        """Have a service publish that these are done, each so often, and each again until the broker has confirmed it.

        Answers how often it had to be done again.
        """
        outlet, again = Outlet(url, Names(), Patience()), 0

        async def send(operation: OperationId) -> None:
            nonlocal again
            said = orjson.dumps({"operation_id": operation, "success": True, "result": self._result(operation)})
            message = aio_pika.Message(said, message_id=name_of(operation), delivery_mode=2)
            while True:
                try:
                    return await outlet.send(message, Names().exchange)
                except BrokerUnavailable:
                    again += 1
                    await asyncio.sleep(AGAIN_SECONDS)

        sent = [each for each in operations for _ in range(times)]
        for begin in range(0, len(sent), _PUBLISHED_AT_ONCE):
            await asyncio.gather(*map(send, sent[begin : begin + _PUBLISHED_AT_ONCE]))
        await outlet.close()
        return again

    async def call_back(self, door: Member, operations: Sequence[OperationId]) -> int:
        """Have a service say by webhook that these are done, until it is told that this is known.

        Answers how often it was told that the database is away.
        """
        away = 0

        async def call(http: httpx.AsyncClient, operation: OperationId) -> None:
            nonlocal away
            said = {"success": True, "result": self._result(operation)}
            while (answer := await http.post(f"/operations/{operation}/complete", json=said)).status_code == 503:
                away += 1
                await asyncio.sleep(AGAIN_SECONDS)
            assert answer.status_code == 200, answer.text

        async with http_to(door.service.url, 30) as http:
            for begin in range(0, len(operations), _CALLED_AT_ONCE):
                await asyncio.gather(*(call(http, each) for each in operations[begin : begin + _CALLED_AT_ONCE]))
        return away

    def _result(self, operation: OperationId) -> Any:
        return {"n": self.operations.index(operation)}

    async def assert_each_once(self, amqp_url: str) -> None:
        """Each gets its own outcome and one follow-up; nothing is left at the broker, and no process has complained."""
        count = len(self.operations)

        async def is_empty() -> bool:
            return await messages_left(amqp_url) == [0, 0, 0]

        await until(lambda: self.reaches(ended=count), "every outcome", seconds=60)
        await until(lambda: self.reaches(closed=count), "every follow-up", seconds=60)
        await until(is_empty, "empty queues")
        outcomes = await self.database.fetch("SELECT status, outcome FROM operations ORDER BY seq")
        assert [(row["status"], orjson.loads(row["outcome"])) for row in outcomes] == [
            ("succeeded", {"result": self._result(each)}) for each in self.operations
        ]
        taken = await self.database.fetch(
            "SELECT disposition, count(*) FROM completions WHERE disposition <> 'duplicate' GROUP BY 1"
        )
        assert [tuple(row) for row in taken] == [("accepted", count)]
        tasks = await self.database.fetch("SELECT status, count(*) FROM tasks WHERE kind = 'operation' GROUP BY 1")
        assert [tuple(row) for row in tasks] == [("succeeded", count)]
        assert [row["told"] for row in await self.database.fetch(_ANSWERS)] == [1] * count
        assert [complaint for member in self.members for complaint in member.complaints()] == []

    async def reaches(self, *, ended: int = 0, closed: int = 0) -> bool:
        """Whether so many have come so far, at least."""
        now = await self.how_far()
        return now.ended >= ended and now.closed >= closed


def name_of(operation: OperationId) -> str:
    """What the message with its end is called."""
    return f"{operation}.end"


@asynccontextmanager
async def pending(count: int, stores: dict[str, str], folder: Path) -> AsyncIterator[Pending]:
    """So many, over these stores; their processes end well at the end of the block."""
    async with AsyncExitStack() as stack:
        database = await asyncpg.connect(stores["POSTGRES_URL"])
        stack.push_async_callback(database.close)
        yield Pending(stores, folder, stack, database, await begin_operations(database, count))


async def cut_down(member: Member) -> None:
    """It is killed (-9), and what was held of what it said to the database never arrives there."""
    await member.kill()
    member.postgres.cut()
    member.postgres.heal()
