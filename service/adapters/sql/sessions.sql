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

-- :place
-- Where one of its messages stands.
SELECT seq FROM messages WHERE session_id = $1 AND id = $2;

-- :messages
-- A page of its messages, the newest first: those before $2, where it is given; at most $3, and no more than fit into $4
-- bytes of parts, but one in any case. There are earlier ones where `seen` is more than the rows that come.
SELECT seq, id, role, parts, task_id::text, created_at, bytes, seen
FROM (
    SELECT newest.*,
           row_number() OVER (ORDER BY seq DESC) AS number,
           sum(bytes) OVER (ORDER BY seq DESC) AS bytes_so_far,
           count(*) OVER () AS seen
    FROM (
        SELECT seq, id, role, parts, task_id, created_at, octet_length(parts::text) AS bytes
        FROM messages
        WHERE session_id = $1 AND seq < coalesce($2::bigint, 9223372036854775807)
        ORDER BY seq DESC
        LIMIT $3::int + 1
    ) newest
) counted
WHERE number <= $3 AND (number = 1 OR bytes_so_far <= $4::bigint)
ORDER BY seq DESC;

-- :post
-- A message and the turn that answers it, unless a turn is queued or running.
SELECT is_known, task_id, input_id FROM playhead_post($1, $2) AS posted (is_known, task_id, input_id);
