-- :create
-- A new conversation.
INSERT INTO sessions DEFAULT VALUES
RETURNING id, created_at;

-- :read
-- A conversation, and whether a turn of it is queued or running.
SELECT s.id, s.created_at,
       EXISTS (SELECT FROM tasks t WHERE t.session_id = s.id AND t.status IN ('queued', 'running')) AS busy
FROM sessions s
WHERE s.id = $1;

-- :messages
-- Its messages in their order.
SELECT id, role, parts, task_id::text, created_at
FROM messages
WHERE session_id = $1
ORDER BY seq;

-- :post
-- A message and the turn that answers it, unless a turn is queued or running.
SELECT is_known, task_id, input_id FROM playhead_post($1, $2) AS posted (is_known, task_id, input_id);
