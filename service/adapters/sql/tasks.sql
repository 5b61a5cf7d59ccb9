-- :read
-- A task as it stands, of a session within reach ($2: everything, $3: one owner's).
SELECT t.id::text, t.session_id, t.kind, t.status, t.input_id, t.operation_id::text, t.answer_id, t.created_at, t.started_at, t.finished_at,
       t.error_type, t.usage, t.cancel_requested_at, t.seq
FROM tasks t JOIN sessions s ON s.id = t.session_id
WHERE t.id = $1 AND s.deleted_at IS NULL AND ($2::boolean OR s.owner IS NOT DISTINCT FROM $3::text);

-- :cancel
-- A task that has not ended is to be cancelled; the first time that somebody wanted it counts.
UPDATE tasks t SET cancel_requested_at = coalesce(t.cancel_requested_at, now())
FROM sessions s
WHERE t.id = $1 AND t.status IN ('queued', 'running') AND s.id = t.session_id
  AND s.deleted_at IS NULL AND ($2::boolean OR s.owner IS NOT DISTINCT FROM $3::text)
RETURNING t.id::text, t.session_id, t.kind, t.status, t.input_id, t.operation_id::text, t.answer_id, t.created_at, t.started_at, t.finished_at,
          t.error_type, t.usage, t.cancel_requested_at, t.seq;

-- :cancel_waiting
-- What a task waits for is not wanted any more, and it is to be ended.
SELECT playhead_cancel_waiting($1, $2, $3) AS cancelled;

-- :newest
-- The newest tasks within reach ($3, $4) that are wanted ($5 to $8), before $2. Below, by what narrows them down most, which
-- an index has in their order: a session; an owner, who is the caller where it is one, since how long a look at another's
-- takes would say how many there are; nobody; a status.
SELECT t.id::text, t.session_id, t.kind, t.status, t.input_id, t.operation_id::text, t.answer_id, t.created_at, t.started_at, t.finished_at,
       t.error_type, t.usage, t.cancel_requested_at, t.seq
FROM tasks t JOIN sessions s ON s.id = t.session_id
WHERE true
  AND t.seq < coalesce($2::bigint, 9223372036854775807) AND s.deleted_at IS NULL
  AND ($3::boolean OR s.owner IS NOT DISTINCT FROM $4::text)
  AND ($5::text IS NULL OR t.status = $5::text) AND ($6::text IS NULL OR t.kind = $6::text)
  AND ($7::text IS NULL OR t.session_id = $7::text) AND ($8::text IS NULL OR t.owner = $8::text)
ORDER BY t.seq DESC
LIMIT $1;

-- :newest_of_session is newest where t.session_id = $7::text
-- :newest_of_owner is newest where t.owner = coalesce($4::text, $8::text)
-- :newest_of_nobody is newest where t.owner IS NULL
-- :newest_of_status is newest where t.status = $5::text

-- :of_session
-- A session's tasks behind $5, in their order; one row without a task where there is none.
SELECT t.*
FROM sessions s LEFT JOIN LATERAL (
    SELECT o.id::text, o.session_id, o.kind, o.status, o.input_id, o.operation_id::text, o.answer_id, o.created_at, o.started_at, o.finished_at,
           o.error_type, o.usage, o.cancel_requested_at, o.seq
    FROM tasks o
    WHERE o.session_id = s.id AND o.seq > $5
    ORDER BY o.seq
    LIMIT $4
) t ON true
WHERE s.id = $1 AND s.deleted_at IS NULL AND ($2::boolean OR s.owner IS NOT DISTINCT FROM $3::text)
ORDER BY t.seq;

-- :ownership
-- Whose a task is.
SELECT s.owner FROM tasks t JOIN sessions s ON s.id = t.session_id WHERE t.id = $1 AND s.deleted_at IS NULL;

-- :facts
-- What is known of a task's log.
SELECT log_closed, log_archived FROM tasks WHERE id = $1;

-- :backlog
-- How far behind the service is, at one moment: each count is over an index of what is open. Of tasks that run or are
-- to be closed the oldest $1 are looked at, as by :claim, so that no statistics make a walk over the whole table of it; and
-- of pending operations so many.
WITH unclosed AS MATERIALIZED (
    SELECT t.id, t.status
    FROM tasks t
    WHERE (t.status NOT IN ('queued', 'waiting') OR t.cancel_requested_at IS NOT NULL OR t.tell_at IS NOT NULL)
      AND NOT t.log_closed
    ORDER BY t.id
    LIMIT $1
)
SELECT (SELECT count(*) FROM tasks WHERE status = 'queued') AS queued,
       (SELECT extract(epoch FROM now() - min(due_at))::double precision FROM tasks WHERE status = 'queued' AND due_at <= now())
           AS oldest_queued_seconds,
       (SELECT count(*) FROM (SELECT FROM operations WHERE status = 'pending' ORDER BY session_id LIMIT $1) o) AS pending,
       (SELECT count(*) FROM operations WHERE status = 'pending' AND deadline < now()) AS overdue,
       (SELECT count(*) FROM unclosed WHERE status = 'running') AS running,
       (SELECT count(*) FROM unclosed u WHERE u.status NOT IN ('queued', 'waiting')
            AND (SELECT l.lease_until FROM leases l WHERE l.task_id = u.id) < now()) AS lapsed,
       (SELECT count(*) FROM tasks WHERE log_closed AND NOT log_archived) AS unarchived,
       (SELECT extract(epoch FROM now() - min(finished_at))::double precision FROM tasks WHERE log_closed AND NOT log_archived)
           AS oldest_unarchived_seconds,
       (SELECT count(*) FROM sessions WHERE deleted_at IS NOT NULL) AS unremoved;

-- :claim
-- Take what is due, in one statement, so that either all of it is taken or nothing. First tasks whose holder's lease has
-- ended while their log is not closed, but for those in $3: running ones, ended ones whose log is owed its ending, waiting
-- ones whose log is owed what happened, and queued ones that are to be cancelled, whatever their session runs; those stay
-- as they are. They are half of it at most where others wait (what is
-- odd is theirs, or with 1 in $5 the others'): the oldest queued tasks that are due and whose sessions run
-- nothing, of each session the oldest. What another statement has
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
    WHERE (t.status NOT IN ('queued', 'waiting') OR t.cancel_requested_at IS NOT NULL OR t.tell_at IS NOT NULL)
      AND NOT t.log_closed AND t.id <> ALL ($3::uuid[]) AND coalesce(t.tell_at, '-infinity') <= now()
      AND (SELECT l.lease_until FROM leases l WHERE l.task_id = t.id) < now()
    ORDER BY t.id
    LIMIT $1::bigint - (SELECT count(*) FROM (
        SELECT FROM tasks w
        WHERE w.status = 'queued' AND w.cancel_requested_at IS NULL AND w.due_at <= now()
          AND NOT EXISTS (SELECT FROM tasks r WHERE r.session_id = w.session_id AND r.status = 'running')
        LIMIT ($1::bigint + $5::bigint) / 2
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
    WHERE t.status = 'queued' AND t.cancel_requested_at IS NULL AND t.due_at <= now()
      AND NOT EXISTS (SELECT FROM tasks r WHERE r.session_id = t.session_id AND r.status = 'running')
      AND NOT EXISTS (
          SELECT FROM tasks o
          WHERE o.session_id = t.session_id AND o.status = 'queued' AND o.cancel_requested_at IS NULL
            AND (o.due_at, o.id) < (t.due_at, t.id)
      )
    ORDER BY t.due_at, t.id
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
    UPDATE tasks t SET status = 'running', started_at = coalesce(t.started_at, now()), error_type = NULL
    FROM queued WHERE t.id = queued.id
    RETURNING t.*
), claimed AS (
    TABLE lapsed UNION ALL TABLE started
)
SELECT t.id::text, t.session_id, t.kind, t.status, t.input_id, t.operation_id::text, t.answer_id, t.created_at, t.started_at, t.finished_at,
       t.error_type, t.usage, t.cancel_requested_at, t.seq, t.ending, t.traceparent, t.failed_tries, lease.epoch,
       lease.lost_attempts
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
RETURNING t.id::text, t.session_id, t.kind, t.status, t.input_id, t.operation_id::text, t.answer_id, t.created_at, t.started_at, t.finished_at,
          t.error_type, t.usage, t.cancel_requested_at, t.seq, t.ending, t.traceparent, t.failed_tries, l.epoch,
          l.lost_attempts;

-- :promote
-- A step is kept, and what waits in the mailbox becomes a part of the conversation, by the task's holder alone.
SELECT playhead_promote($1, $2, $3, $4, $5, $6) AS promoted;

-- :begin_call
-- A call of a tool begins, by the task's holder alone; the answer is whose it is, which is another's where it was begun before.
INSERT INTO tool_calls (task_id, call_id, epoch)
SELECT l.task_id, $3, l.epoch
FROM leases l JOIN tasks t ON t.id = l.task_id
WHERE l.task_id = $1 AND l.epoch = $2 AND t.status = 'running'
FOR UPDATE OF l
ON CONFLICT (task_id, call_id) DO UPDATE SET call_id = excluded.call_id
RETURNING epoch;

-- :steps
-- What was kept of a turn's steps behind the first $2, and the messages that were taken in behind each.
SELECT s.number, s.parts, s.call, coalesce((
    SELECT json_agg(json_build_object('id', m.id, 'parts', m.parts) ORDER BY m.seq) FROM messages m
    WHERE m.session_id = t.session_id AND m.task_id = t.id AND m.id = ANY (s.promoted) AND m.set_aside_by IS NULL
), '[]') AS promoted
FROM steps s JOIN tasks t ON t.id = s.task_id
WHERE s.task_id = $1 AND s.number > $2
ORDER BY s.number;

-- :end
-- The end of a task and all that hangs on it, by its holder alone.
SELECT has_ended, next_task FROM playhead_end($1, $2, $3, $4, $5, $6, $7, $8, $9);

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
