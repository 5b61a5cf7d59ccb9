-- :begin
-- An operation and its task, or those that this call, or the same work, has already.
SELECT outcome, operation::text FROM playhead_begin_operation($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- :complete
-- A message that an operation has ended.
SELECT became, task, completion, ended_as FROM playhead_complete(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16
);

-- :complete_all
-- The same for many messages, the n-th of which is in the n-th places of the arrays; but for those whose conversation
-- somebody has locked, or that have none: nobody is waited for.
WITH said AS MATERIALIZED (
    SELECT * FROM unnest(
        $1::uuid[], $2::boolean[], $3::text[], $4::text[], $5::text[], $6::text[], $7::json[], $8::bytea[],
        $9::text[], $10::text[], $11::text[], $12::boolean[], $13::uuid[], $14::bigint[], $15::boolean[]
    ) WITH ORDINALITY AS u(
        wanted, everyones, whose, of_tool, named_task, how, said, said_sha256,
        came_by, sent_by, called, follows, asking, holder, answers, place
    )
), known AS MATERIALIZED (
    SELECT id, session_id FROM operations WHERE id = ANY ($1::uuid[])
), free AS MATERIALIZED (
    SELECT id FROM sessions WHERE id = ANY (ARRAY(SELECT session_id FROM known)) FOR UPDATE SKIP LOCKED
), taken AS (
    SELECT said.*
    FROM said JOIN known ON known.id = said.wanted JOIN free ON free.id = known.session_id
    ORDER BY said.place
)
SELECT t.place, c.became, c.task, c.completion, c.ended_as
FROM taken t CROSS JOIN LATERAL playhead_complete(
    t.wanted, t.everyones, t.whose, t.of_tool, t.named_task, t.how, t.said, t.said_sha256,
    t.came_by, t.sent_by, t.called, t.follows, t.asking, t.holder, t.answers, $16
) c;

-- :progress
-- A message about how far an operation is.
SELECT playhead_progress($1, $2, $3, $4, $5, $6, $7, $8, $9) AS became;

-- :redrive
-- A follow-up that failed, or rests, is tried again.
SELECT became, task FROM playhead_redrive($1, $2, $3, $4, $5, $6);

-- :postpone
-- A follow-up that failed is tried again later.
SELECT was_held, next_task FROM playhead_postpone($1, $2, $3, $4);

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
-- The newest operations within reach ($3, $4) that are wanted ($5 to $8), before $2. Below, by what narrows them down most,
-- which an index has in their order: a session, an owner, nobody, a status.
SELECT o.id::text, o.seq, o.session_id, o.owner, o.task_id::text, o.turn_id::text, o.call_id, o.tool, o.executor,
       NULL::json AS arguments, o.status, CASE WHEN o.status = 'failed' THEN o.outcome END AS outcome, o.created_at, o.deadline, o.ended_at, o.progress, o.progress_number, o.has_follow_up, o.deliveries,
       o.begun_by
FROM operations o JOIN sessions s ON s.id = o.session_id
WHERE true
  AND o.seq < coalesce($2::bigint, 9223372036854775807) AND s.deleted_at IS NULL
  AND ($3::boolean OR o.owner IS NOT DISTINCT FROM $4::text)
  AND ($5::text IS NULL OR o.status = $5::text) AND ($6::text IS NULL OR o.executor = $6::text)
  AND ($7::text IS NULL OR o.tool = $7::text) AND ($8::text IS NULL OR o.session_id = $8::text)
ORDER BY o.seq DESC
LIMIT $1;

-- :newest_of_session is newest where o.session_id = $8::text
-- :newest_of_owner is newest where o.owner = $4::text
-- :newest_of_nobody is newest where o.owner IS NULL
-- :newest_of_status is newest where o.status = $5::text

-- :newest_stuck
-- The same of those that are stuck, which are few: pending past their deadline, or with a follow-up, the newest of theirs,
-- that has failed, or is to be tried again.
WITH stuck AS MATERIALIZED (
    SELECT o.id FROM operations o WHERE o.status = 'pending' AND o.deadline < now()
    UNION ALL
    SELECT t.operation_id FROM tasks t
    WHERE t.operation_id IS NOT NULL AND (t.status = 'failed' OR (t.status = 'queued' AND t.failed_tries > 0))
      AND NOT EXISTS (SELECT FROM tasks n WHERE n.operation_id = t.operation_id AND n.seq > t.seq)
)
SELECT o.id::text, o.seq, o.session_id, o.owner, o.task_id::text, o.turn_id::text, o.call_id, o.tool, o.executor,
       NULL::json AS arguments, o.status, CASE WHEN o.status = 'failed' THEN o.outcome END AS outcome, o.created_at, o.deadline, o.ended_at, o.progress, o.progress_number, o.has_follow_up, o.deliveries,
       o.begun_by
FROM stuck JOIN operations o ON o.id = stuck.id JOIN sessions s ON s.id = o.session_id
WHERE (o.status = 'pending' OR o.has_follow_up)
  AND o.seq < coalesce($2::bigint, 9223372036854775807) AND s.deleted_at IS NULL
  AND ($3::boolean OR o.owner IS NOT DISTINCT FROM $4::text)
  AND ($5::text IS NULL OR o.status = $5::text) AND ($6::text IS NULL OR o.executor = $6::text)
  AND ($7::text IS NULL OR o.tool = $7::text) AND ($8::text IS NULL OR o.session_id = $8::text)
ORDER BY o.seq DESC
LIMIT $1;

-- :deliveries
-- What came about the end of an operation, in its order; outcomes of $2 bytes at most.
SELECT id::text, at, door, by, delivery, disposition, status, times, octet_length(outcome::text) AS outcome_bytes,
       CASE WHEN octet_length(outcome::text) <= $2 THEN outcome END AS outcome
FROM completions
WHERE operation_id = $1 AND disposition <> 'progress'
ORDER BY seq;

-- :follow_ups
-- The tasks that go on with an operation's end: the newest $2, in their order.
SELECT * FROM (
    SELECT t.id::text, t.status, t.error_type, t.failed_tries, t.due_at, t.seq
    FROM operations o JOIN tasks t ON t.operation_id = o.id
    WHERE o.id = $1 AND o.has_follow_up
    ORDER BY t.seq DESC
    LIMIT $2
) newest
ORDER BY seq;

-- :overdue
-- Pending operations past their deadline, those first that are it longest.
SELECT id::text, executor FROM operations WHERE status = 'pending' AND deadline < now() ORDER BY deadline LIMIT $1;
