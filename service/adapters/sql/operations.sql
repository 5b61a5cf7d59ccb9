-- :begin
-- An operation and its task, or those that this call, or the same work, has already.
SELECT outcome, operation::text FROM playhead_begin_operation($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- :complete
-- A message that an operation has ended.
SELECT became, task, completion, ended_as FROM playhead_complete(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16
);

-- :progress
-- A message about how far an operation is.
SELECT playhead_progress($1, $2, $3, $4, $5, $6, $7, $8, $9) AS became;

-- :postpone
-- A follow-up that failed is tried again later.
SELECT was_held, next_task FROM playhead_postpone($1, $2, $3);

-- :begin_job
-- A background job begins, by the holder of the task that waits for it alone; the answer is whose it is, which is another's
-- where it was begun before. The operation is locked first and then the lease, as by a completion.
WITH wanted AS MATERIALIZED (
    SELECT id, task_id FROM operations WHERE task_id = $1 AND status = 'pending' FOR UPDATE
), held AS MATERIALIZED (
    SELECT w.id
    FROM wanted w JOIN leases l ON l.task_id = w.task_id JOIN tasks t ON t.id = w.task_id
    WHERE l.epoch = $2 AND t.status = 'waiting'
    FOR UPDATE OF l
)
UPDATE operations o SET begun_by = coalesce(o.begun_by, $2) FROM held WHERE o.id = held.id RETURNING o.begun_by;

-- :told
-- The log of a waiting task has this much of the progress ($3); what has come since is told a second later. By its holder
-- alone, who lets go of it; it may want another look after so many seconds ($4).
WITH lease AS (
    UPDATE leases SET lease_until = '-infinity' WHERE task_id = $1 AND epoch = $2 RETURNING task_id
)
UPDATE tasks t SET told_at = now(), tell_at = coalesce(
    now() + make_interval(secs => $4::double precision),
    CASE WHEN o.progress_number > $3 THEN now() + interval '1 second' END
)
FROM lease, operations o
WHERE t.id = lease.task_id AND t.status = 'waiting' AND o.task_id = t.id AND o.status = 'pending';

-- :of_task
-- The operation whose work a task is.
SELECT o.id::text, o.seq, o.session_id, o.owner, o.task_id::text, o.turn_id::text, o.call_id, o.tool, o.executor, o.arguments,
       o.status, o.outcome, o.created_at, o.deadline, o.ended_at, o.progress, o.progress_number, o.has_follow_up, o.deliveries,
       o.begun_by
FROM operations o JOIN tasks t ON t.operation_id = o.id
WHERE t.id = $1;

-- :read
-- An operation within reach ($2: everything, $3: one owner's) of a session that is not deleted.
SELECT o.id::text, o.seq, o.session_id, o.owner, o.task_id::text, o.turn_id::text, o.call_id, o.tool, o.executor, o.arguments,
       o.status, o.outcome, o.created_at, o.deadline, o.ended_at, o.progress, o.progress_number, o.has_follow_up, o.deliveries,
       o.begun_by
FROM operations o JOIN sessions s ON s.id = o.session_id
WHERE o.id = $1 AND s.deleted_at IS NULL AND ($2::boolean OR s.owner IS NOT DISTINCT FROM $3::text);

-- :newest
-- The newest operations within reach ($3, $4) that are wanted, before $2. Stuck ($9) is what is pending past its deadline,
-- and whose follow-up has failed, or is to be tried again.
SELECT o.id::text, o.seq, o.session_id, o.owner, o.task_id::text, o.turn_id::text, o.call_id, o.tool, o.executor, o.arguments,
       o.status, o.outcome, o.created_at, o.deadline, o.ended_at, o.progress, o.progress_number, o.has_follow_up, o.deliveries,
       o.begun_by
FROM operations o JOIN sessions s ON s.id = o.session_id
WHERE o.seq < coalesce($2::bigint, 9223372036854775807) AND s.deleted_at IS NULL
  AND ($3::boolean OR o.owner IS NOT DISTINCT FROM $4::text)
  AND ($5::text IS NULL OR o.status = $5::text) AND ($6::text IS NULL OR o.executor = $6::text)
  AND ($7::text IS NULL OR o.tool = $7::text) AND ($8::text IS NULL OR o.session_id = $8::text)
  AND (NOT $9::boolean OR (o.status = 'pending' AND o.deadline < now()) OR (o.has_follow_up AND EXISTS (
      SELECT FROM tasks t WHERE t.id = o.task_id AND (t.status = 'failed' OR (t.status = 'queued' AND t.failed_tries > 0))
  )))
ORDER BY o.seq DESC
LIMIT $1;

-- :deliveries
-- What came about the end of an operation, in its order.
SELECT id::text, at, door, by, delivery, disposition, status, outcome, times
FROM completions
WHERE operation_id = $1 AND disposition <> 'progress'
ORDER BY id;

-- :overdue
-- Pending operations past their deadline, those first that are it longest.
SELECT id::text, executor FROM operations WHERE status = 'pending' AND deadline < now() ORDER BY deadline LIMIT $1;
