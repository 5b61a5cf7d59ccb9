"""A completion on which the database breaks, among a thousand others: over a real RabbitMQ and a real PostgreSQL."""

from service.adapters.memory_doorbell import MemoryDoorbell
from service.adapters.postgres import Database
from service.adapters.postgres_operations import PostgresOperations
from service.adapters.rabbit import DELIVERY_LIMIT
from service.operations.gathering import Gathering
from service.operations.operations import Operations
from tests.adapters.rabbits import rabbit_at
from tests.consumers.ledger import door, success
from tests.sessions.databases import begin_operations

STATUSES = """
SELECT o.id::text, o.status, t.status AS task, o.deliveries
FROM operations o JOIN tasks t ON t.id = o.task_id ORDER BY o.seq
"""


async def test_pitfall_38_one_that_breaks_the_database_holds_up_nobody_and_is_taken_once_that_is_mended(
    amqp_url: str, database: Database
) -> None:
    poison, *good = await begin_operations(database, 1001)

    async def statuses() -> list[tuple[object, ...]]:
        return [tuple(row) for row in await database.fetch(STATUSES)]

    await database.fetch(f"ALTER TABLE completions ADD CONSTRAINT poison CHECK (operation_id <> '{poison}')")
    store = PostgresOperations(database)
    async with rabbit_at(amqp_url) as rabbit:
        await rabbit.publish(*(success(each, 1) for each in (poison, *good)))
        async with door(rabbit.intake(), Gathering(Operations(store, store, MemoryDoorbell()))) as running:
            await running.noted(*["accepted" for _ in good], *["returned" for _ in range(DELIVERY_LIMIT + 1)])
            await rabbit.has(ready=0, parked=0, dead=1)
            (letter,) = await rabbit.letters.list(10)
            assert (letter.reason, letter.body) == ("failed", success(poison, 1))
            taken = [(each, "succeeded", "queued", 1) for each in good]
            assert await statuses() == [(poison, "pending", "waiting", 0), *taken]
            await database.fetch("ALTER TABLE completions DROP CONSTRAINT poison")
            before = list(running.labels)
            assert await rabbit.letters.redrive("test", reason="failed") == 1
            await running.noted(*before, "accepted")
            await running.leave()
        assert await statuses() == [(poison, "succeeded", "queued", 1), *taken]
        await rabbit.has(ready=0, parked=0, dead=0)
