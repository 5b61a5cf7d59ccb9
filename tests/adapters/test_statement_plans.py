"""What the statements read, whatever the planner believes: its statistics are always of an earlier minute."""

import re
from typing import Final

import asyncpg

from service.adapters.postgres import statements

RUNNING: Final = 64
CLOSED: Final = 2000
WHOLE_TABLE: Final = re.compile(r"Seq Scan on (?:tasks|leases|sessions|messages|operations|completions)\b")


async def test_no_statement_reads_a_whole_table_where_statistics_were_gathered_while_all_there_was_ran(
    postgres_url: str,
) -> None:
    """A service's first minute, or one behind a restore: then all tasks seem to be open and no lease to lapse, and a
    claim that believed it would look at each lease for each task."""
    connection = await asyncpg.connect(postgres_url)
    await _queue(connection, RUNNING)
    await connection.execute("UPDATE tasks SET status = 'running', started_at = now()")
    await connection.execute("UPDATE leases SET epoch = 1, lease_until = now() + interval '1 hour'")
    await _begin(connection, RUNNING)
    await connection.execute("ANALYZE")
    await _queue(connection, CLOSED)
    await connection.execute(
        "UPDATE tasks SET status = 'succeeded', ending = '[]', finished_at = now(), log_closed = true"
        " WHERE status = 'queued'"
    )
    await _begin(connection, CLOSED)
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    plans = {
        f"{file}:{title}": await _plan(connection, f"{file}_{title}", statement)
        for file in ("tasks", "sessions", "messages", "operations", "archive")
        for title, statement in statements(file).items()
    }
    await connection.close()
    assert {name: plan for name, plan in plans.items() if WHOLE_TABLE.search(plan)} == {}


async def _queue(connection: asyncpg.Connection, count: int) -> None:
    await connection.execute(
        """
        WITH s AS (
            INSERT INTO sessions (id) SELECT gen_random_uuid() FROM generate_series(1, $1) RETURNING id
        ), t AS (
            INSERT INTO tasks (id, session_id, kind, status, input_id, answer_id)
            SELECT gen_random_uuid(), id, 'turn', 'queued', 'u', 'a' FROM s RETURNING id, session_id
        ), m AS (
            INSERT INTO messages (session_id, id, role, parts, task_id) SELECT session_id, 'u', 'user', '[]', id FROM t
        )
        INSERT INTO leases (task_id) SELECT id FROM t
        """,
        count,
    )


async def _begin(connection: asyncpg.Connection, count: int) -> None:
    """Operations, each with its own task and a message about its end."""
    await connection.execute(
        """
        WITH o AS (
            INSERT INTO operations (session_id, task_id, turn_id, call_id, tool, executor, arguments)
            SELECT s.id, gen_random_uuid(), gen_random_uuid(), 'c', 'render', 'remote', '{}'
            FROM sessions s ORDER BY s.seq DESC LIMIT $1 RETURNING *
        ), t AS (
            INSERT INTO tasks (id, session_id, kind, status, operation_id)
            SELECT task_id, session_id, 'operation', 'waiting', id FROM o
        ), l AS (
            INSERT INTO leases (task_id) SELECT task_id FROM o
        )
        INSERT INTO completions (operation_id, door, by, disposition, status)
        SELECT id, 'amqp', 'render', 'accepted', 'succeeded' FROM o
        """,
        count,
    )


async def _plan(connection: asyncpg.Connection, name: str, statement: str) -> str:
    """As it is made once for all arguments."""
    parameters = (await connection.prepare(statement)).get_parameters()
    await connection.execute(f"PREPARE {name} AS {statement}")
    arguments = f"({', '.join(['NULL'] * len(parameters))})" if parameters else ""
    return "\n".join(line[0] for line in await connection.fetch(f"EXPLAIN EXECUTE {name}{arguments}"))
