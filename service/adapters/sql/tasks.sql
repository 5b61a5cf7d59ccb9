-- :read
-- A task as it stands.
SELECT id::text, session_id, kind, status, input_id, answer_id, created_at, started_at, finished_at, error_type, usage,
       cancel_requested_at
FROM tasks
WHERE id = $1;

-- :cancel
-- A task that has not ended is to be cancelled; the first time that somebody wanted it counts.
UPDATE tasks SET cancel_requested_at = coalesce(cancel_requested_at, now())
WHERE id = $1 AND status IN ('queued', 'running')
RETURNING id::text, session_id, kind, status, input_id, answer_id, created_at, started_at, finished_at, error_type, usage,
          cancel_requested_at;

-- :facts
-- What is known of a task's log.
SELECT log_closed, log_archived FROM tasks WHERE id = $1;

-- :claim
-- Take what is due, in one statement, so that either all of it is taken or nothing. First tasks whose holder's lease has
-- ended while their log is not closed, but for those in $3: running ones, ended ones whose log is owed its ending, and
-- queued ones that are to be cancelled, whatever their session runs; those stay queued. They are half of it at most where
-- others wait: the oldest queued tasks whose sessions run nothing; a session has one at most. What another statement has
-- locked is left to that one. Of a lapsed task first the task is locked and then its lease, and each is looked at again as
-- it stands then: its holder may have ended it since this statement began. A running task's lease that lapsed was lost,
-- unless it was let go or the claimer does not count ($4).
-- What is due is one materialized list, since an UPDATE that meets a row newer than its snapshot looks at what it joins
-- anew: in a union it would read on in the parts of it, and take more than was asked for.
-- There are few open tasks and many leases, but statistics may have been gathered while all that there was ran: so open
-- tasks are ordered as their index is, and the lease of each is asked for, where a join could begin with all leases.
WITH lapsed AS MATERIALIZED (
    SELECT t.*
    FROM tasks t
    WHERE (t.status <> 'queued' OR t.cancel_requested_at IS NOT NULL) AND NOT t.log_closed AND t.id <> ALL ($3::uuid[])
      AND (SELECT l.lease_until FROM leases l WHERE l.task_id = t.id) < now()
    ORDER BY t.id
    LIMIT $1::bigint - (SELECT count(*) FROM (
        SELECT FROM tasks WHERE status = 'queued' AND cancel_requested_at IS NULL LIMIT $1::bigint / 2
    ) waiting)
    FOR UPDATE OF t SKIP LOCKED
), lost AS MATERIALIZED (
    SELECT l.task_id
    FROM leases l
    WHERE l.task_id = ANY (ARRAY(SELECT id FROM lapsed)) AND l.lease_until < now()
    FOR UPDATE SKIP LOCKED
), queued AS MATERIALIZED (
    SELECT t.id
    FROM tasks t JOIN sessions s ON s.id = t.session_id
    WHERE t.status = 'queued' AND t.cancel_requested_at IS NULL
      AND NOT EXISTS (SELECT FROM tasks r WHERE r.session_id = t.session_id AND r.status = 'running')
    ORDER BY t.created_at, t.id
    LIMIT $1::bigint - (SELECT count(*) FROM lost)
    FOR UPDATE OF t, s SKIP LOCKED
), due AS MATERIALIZED (
    SELECT id, status = 'running' AS ran FROM lapsed JOIN lost ON lost.task_id = lapsed.id
    UNION ALL SELECT id, false FROM queued
), lease AS (
    UPDATE leases l SET epoch = l.epoch + 1, lease_until = now() + $2,
                        lost_attempts = l.lost_attempts + (due.ran AND l.lease_until > '-infinity' AND $4::boolean)::int
    FROM due
    WHERE l.task_id = due.id
    RETURNING l.task_id, l.epoch, l.lost_attempts
), started AS (
    UPDATE tasks t SET status = 'running', started_at = coalesce(t.started_at, now())
    FROM queued WHERE t.id = queued.id
    RETURNING t.*
), claimed AS (
    TABLE lapsed UNION ALL TABLE started
)
SELECT t.id::text, t.session_id, t.kind, t.status, t.input_id, t.answer_id, t.created_at, t.started_at, t.finished_at,
       t.error_type, t.usage, t.cancel_requested_at, t.ending, lease.epoch, lease.lost_attempts
FROM claimed t JOIN lease ON lease.task_id = t.id;

-- :renew
-- Keep what is still held; which ones that are is the answer. With no time they are let go: then no renewal that is under
-- way beside it can find its lease alive. Their ids are named once more, as what an index finds: a join may read all leases.
UPDATE leases l SET lease_until = CASE WHEN $3 > interval '0' THEN now() + $3 ELSE '-infinity' END
FROM unnest($1::uuid[], $2::bigint[]) AS held (task_id, epoch) JOIN tasks t ON t.id = held.task_id
WHERE l.task_id = held.task_id AND l.epoch = held.epoch AND l.lease_until > now() AND l.task_id = ANY ($1::uuid[])
RETURNING l.task_id::text, l.epoch, t.cancel_requested_at IS NOT NULL AS cancel_requested;

-- :retake
-- The holder takes a new epoch for itself.
UPDATE leases l SET epoch = l.epoch + 1, lease_until = now() + $3
FROM tasks t
WHERE l.task_id = $1 AND l.epoch = $2 AND l.lease_until > now() AND t.id = l.task_id
RETURNING t.id::text, t.session_id, t.kind, t.status, t.input_id, t.answer_id, t.created_at, t.started_at, t.finished_at,
          t.error_type, t.usage, t.cancel_requested_at, t.ending, l.epoch, l.lost_attempts;

-- :end
-- The end of a task and all that hangs on it, by its holder alone: the status, what its log is owed, and the assistant's
-- message ($8) or the return of the input ($9). The session is locked first, then the lease. What ends without having been
-- run has started when it finished.
WITH session AS MATERIALIZED (
    SELECT s.id FROM sessions s JOIN tasks t ON t.session_id = s.id WHERE t.id = $1 FOR UPDATE OF s
), lease AS MATERIALIZED (
    SELECT l.task_id FROM leases l, session WHERE l.task_id = $1 AND l.epoch = $2 FOR UPDATE OF l
), ended AS (
    UPDATE tasks t SET status = $3, ending = $4, usage = $5, error_type = $6, finished_at = $7,
                       started_at = coalesce(t.started_at, $7)
    FROM lease WHERE t.id = lease.task_id AND t.status IN ('queued', 'running')
    RETURNING t.id, t.session_id, t.input_id, t.answer_id
), answer AS (
    INSERT INTO messages (session_id, id, role, parts, task_id)
    SELECT session_id, answer_id, 'assistant', $8, id FROM ended WHERE $8::json IS NOT NULL
), bounced AS (
    DELETE FROM messages m USING ended
    WHERE $9 AND m.session_id = ended.session_id AND m.id = ended.input_id
)
SELECT FROM ended;

-- :ending
-- What an ended task's log is owed, as its holder sees it.
SELECT t.ending FROM tasks t JOIN leases l ON l.task_id = t.id
WHERE t.id = $1 AND l.epoch = $2;

-- :close
-- The log has its ending: the task owes nothing, and nobody holds it. A task that has not ended stays held.
WITH closed AS (
    UPDATE tasks t SET log_closed = true
    FROM leases l
    WHERE t.id = $1 AND t.ending IS NOT NULL AND l.task_id = t.id AND l.epoch = $2
    RETURNING t.id
)
UPDATE leases l SET lease_until = '-infinity' FROM closed WHERE l.task_id = closed.id AND l.epoch = $2;
