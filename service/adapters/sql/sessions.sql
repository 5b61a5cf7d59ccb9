-- :create
-- A new conversation, or the one that this key has made.
SELECT outcome, known FROM playhead_create($1, $2::jsonb, $3, $4, $5, $6);

-- :read
-- A conversation within reach ($2: everything, $3: one owner's), and whether a turn of it is queued or running.
SELECT s.id, s.seq, s.owner, s.settings::text, s.created_at,
       (
           SELECT true FROM tasks t WHERE t.session_id = s.id AND (t.status = 'running' OR (t.status = 'queued' AND t.kind = 'turn')) LIMIT 1
       ) IS NOT NULL AS busy
FROM sessions s
WHERE s.id = $1 AND s.deleted_at IS NULL AND ($2::boolean OR s.owner IS NOT DISTINCT FROM $3::text);

-- :newest
-- The newest conversations of everybody, before $2.
SELECT s.id, s.seq, s.owner, s.settings::text, s.created_at,
       (
           SELECT true FROM tasks t WHERE t.session_id = s.id AND (t.status = 'running' OR (t.status = 'queued' AND t.kind = 'turn')) LIMIT 1
       ) IS NOT NULL AS busy
FROM sessions s
WHERE s.deleted_at IS NULL AND s.seq < coalesce($2::bigint, 9223372036854775807)
ORDER BY s.seq DESC
LIMIT $1;

-- :newest_of_owner
-- The newest conversations of one owner, before $2.
SELECT s.id, s.seq, s.owner, s.settings::text, s.created_at,
       (
           SELECT true FROM tasks t WHERE t.session_id = s.id AND (t.status = 'running' OR (t.status = 'queued' AND t.kind = 'turn')) LIMIT 1
       ) IS NOT NULL AS busy
FROM sessions s
WHERE s.deleted_at IS NULL AND s.owner = $3 AND s.seq < coalesce($2::bigint, 9223372036854775807)
ORDER BY s.seq DESC
LIMIT $1;

-- :newest_of_nobody
-- The newest conversations that have no owner yet, before $2.
SELECT s.id, s.seq, s.owner, s.settings::text, s.created_at,
       (
           SELECT true FROM tasks t WHERE t.session_id = s.id AND (t.status = 'running' OR (t.status = 'queued' AND t.kind = 'turn')) LIMIT 1
       ) IS NOT NULL AS busy
FROM sessions s
WHERE s.deleted_at IS NULL AND s.owner IS NULL AND s.seq < coalesce($2::bigint, 9223372036854775807)
ORDER BY s.seq DESC
LIMIT $1;

-- :change
-- Other settings, or its first owner.
SELECT playhead_change($1, $2, $3, $4::jsonb, $5) AS outcome;

-- :delete
-- Nobody finds the conversation any more; its open tasks, which are to be cancelled, or null.
SELECT playhead_delete($1, $2, $3) AS open_tasks;

-- :place
-- Where one of its messages stands.
SELECT seq FROM messages WHERE session_id = $1 AND id = $2 AND set_aside_by IS NULL;

-- :pending
-- What waits in its mailbox, in its order.
SELECT id, parts, created_at FROM pending_messages WHERE session_id = $1 ORDER BY seq;

-- :removable
-- Conversations that were deleted so long ago and whose logs are all closed, with their tasks.
SELECT s.id, ARRAY(SELECT t.id::text FROM tasks t WHERE t.session_id = s.id) AS tasks
FROM sessions s
WHERE s.deleted_at <= now() - $2::interval
  AND (SELECT true FROM tasks t WHERE t.session_id = s.id AND NOT t.log_closed LIMIT 1) IS NULL
ORDER BY s.seq
LIMIT $1;

-- :remove
-- All that there is of a deleted conversation.
SELECT playhead_remove($1);

-- :forget_keys
-- Idempotency keys have their time; the oldest go first, at most $2 at once.
DELETE FROM idempotency_keys
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM idempotency_keys WHERE created_at < now() - $1::interval ORDER BY created_at LIMIT $2
))
RETURNING true AS gone;
