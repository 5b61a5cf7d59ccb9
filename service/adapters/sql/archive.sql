-- :due
-- Closed logs that are not archived, those behind $1.
SELECT id::text FROM tasks
WHERE log_closed AND NOT log_archived AND id > coalesce($1::uuid, '00000000-0000-0000-0000-000000000000')
ORDER BY id
LIMIT $2;

-- :make_partitions
-- There are partitions for these.
SELECT playhead_log_partition(id) FROM unnest($1::uuid[]) AS tasks (id);

-- :take
-- Those of these that are still due, for this transaction alone. What another one has is left to it.
SELECT id::text FROM tasks
WHERE id = ANY ($1::uuid[]) AND log_closed AND NOT log_archived
ORDER BY id
FOR UPDATE SKIP LOCKED;

-- :seal
-- These logs are archived, in one transaction with their events.
WITH sealed AS (
    INSERT INTO log_archives (task_id, events, last_n, last_ms, sha256)
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[])
    RETURNING task_id
)
UPDATE tasks t SET log_archived = true FROM sealed WHERE t.id = sealed.task_id;

-- :owe
-- The log has lost its ending, which is not archived either: it is owed again. A task that is held is its holder's.
UPDATE tasks t SET log_closed = false
FROM leases l
WHERE t.id = $1 AND t.log_closed AND NOT t.log_archived AND l.task_id = t.id AND l.lease_until < now()
RETURNING t.id;

-- :standing
-- Of these logs, those that are archived and those of no task, or one row without any; and which database says so. Only
-- ids of version 7 say how old they are.
SELECT which.database_id::text AS database, standing.id::text, standing.archived
FROM schema_version which LEFT JOIN (
    SELECT asked.id, coalesce(t.log_archived, false) AS archived
    FROM unnest($1::uuid[]) AS asked (id) LEFT JOIN tasks t ON t.id = asked.id
    WHERE t.log_archived
       OR (t.id IS NULL AND substr(asked.id::text, 15, 1) = '7' AND playhead_made_at(asked.id) < now() - $2::interval)
) standing ON true;

-- :seal_of
-- What was proven of a log when it was archived.
SELECT events, last_ms, last_n, sha256 FROM log_archives WHERE task_id = $1;

-- :head
-- How far an archived log reaches.
SELECT last_ms, last_n FROM log_archives WHERE task_id = $1;

-- :read
-- The archived events of a log behind the position ($2, $3), at most $4, with the log's end and whether that position
-- names an event. One that does is found by its number; one that does not costs a walk over what stands before it.
SELECT archive.last_ms, archive.last_n, named.is_so AS known, page.ms, page.n, page.data
FROM log_archives archive
CROSS JOIN (
    SELECT EXISTS (SELECT FROM log_events WHERE task_id = $1 AND n = $3::bigint AND ms = $2::bigint) AS is_so
) named
LEFT JOIN LATERAL (
    SELECT e.ms, e.n, e.data
    FROM log_events e
    WHERE e.task_id = $1 AND e.n > CASE WHEN named.is_so THEN $3::bigint ELSE 0 END AND (e.ms, e.n) > ($2::bigint, $3::bigint)
    ORDER BY e.n
    LIMIT $4
) page ON true
WHERE archive.task_id = $1
ORDER BY page.n;
