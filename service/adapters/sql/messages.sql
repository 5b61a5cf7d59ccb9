-- :page
-- A page of a conversation's messages, the newest first: those before $2, where it is given; at most $3, and no more than fit into $4
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
        WHERE session_id = $1 AND set_aside_by IS NULL AND seq < coalesce($2::bigint, 9223372036854775807)
        ORDER BY seq DESC
        LIMIT $3::int + 1
    ) newest
) counted
WHERE number <= $3 AND (number = 1 OR bytes_so_far <= $4::bigint)
ORDER BY seq DESC;

-- :settings
-- How a conversation is set, for its agent.
SELECT settings::text FROM sessions WHERE id = $1;

-- :post
-- A message and the turn that answers it, or a place in the mailbox.
SELECT outcome, known, task, input FROM playhead_post($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12);

-- :answer_again
-- Another turn for a message that is there.
SELECT outcome, task, input FROM playhead_answer_again($1, $2, $3, $4, $5, $6);

-- :taken_by
-- The task that works on a message, or has, also where it took the message back; a row without one while it waits.
SELECT NULL AS task_id FROM pending_messages WHERE session_id = $1 AND id = $2
UNION ALL
SELECT task_id::text FROM messages WHERE session_id = $1 AND id = $2 AND set_aside_by IS NULL
UNION ALL
(SELECT id::text FROM tasks WHERE session_id = $1 AND input_id = $2 ORDER BY seq DESC LIMIT 1)
LIMIT 1;

-- :current
-- A conversation within reach, and its task that runs, or else the one that is queued.
SELECT playhead_open_turn(s.id) AS task
FROM sessions s
WHERE s.id = $1 AND s.deleted_at IS NULL AND ($2::boolean OR s.owner IS NOT DISTINCT FROM $3::text);

-- :find_chat
-- An owner's conversation by the name that its client gave it, or by its id.
SELECT id FROM sessions
WHERE chat_id = $2 AND deleted_at IS NULL AND coalesce(owner, '') = coalesce($1::text, '')
UNION ALL
SELECT id FROM sessions WHERE id = $2 AND deleted_at IS NULL AND owner IS NOT DISTINCT FROM $1::text
LIMIT 1;

-- :make_chat
-- A conversation of this name, unless another one was just made.
INSERT INTO sessions (owner, chat_id) VALUES ($1, $2)
ON CONFLICT (coalesce(owner, ''), chat_id) WHERE deleted_at IS NULL AND chat_id IS NOT NULL DO NOTHING
RETURNING id;
