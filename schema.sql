-- Playhead's database: everything that is owed. What happened is in the logs.
-- Applied as one transaction on an empty database by `playhead schema apply` and at every start of the embedded default;
-- on a database that has it already, nothing happens. PostgreSQL 15 or later.

-- One row: which schema this is, and which database. Programs refuse one with a higher number than they know; and what a
-- Redis holds that was first used with another database is not theirs to remove. `token_key` signs stream tokens: every
-- door of this database takes those of every other. Two UUIDs, since no extension may be assumed: 244 random bits.
CREATE TABLE schema_version (
    version     integer     NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now(),
    database_id uuid        NOT NULL DEFAULT gen_random_uuid(),
    token_key   bytea       NOT NULL CHECK (octet_length(token_key) = 32)
                            DEFAULT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()),
    only_row    boolean     NOT NULL DEFAULT true UNIQUE CHECK (only_row)
);

-- UUIDs of version 7 by this server's clock: ids sort by their time of creation, whichever process asked for them.
CREATE FUNCTION playhead_uuid7() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
            || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid
$$;

-- What programs may ask with. Of a key's secret only the hash is kept; the secret has 256 random bits, so that nothing slower
-- than SHA-256 is needed.
CREATE TABLE api_keys (
    id            text        PRIMARY KEY,
    secret_sha256 bytea       NOT NULL CHECK (octet_length(secret_sha256) = 32),
    owner         text        CHECK (char_length(owner) BETWEEN 1 AND 255),  -- NULL: the service's
    scopes        text[]      NOT NULL CHECK (cardinality(scopes) > 0
                                              AND scopes <@ ARRAY['read', 'write', 'ops', 'complete']),
    name          text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz,
    revoked_at    timestamptz
);

-- Conversations. Whoever posts to one, ends its turn or deletes it locks its row first. `owner` is null while it is
-- nobody's. `chat_id` is the name that a chat client gave it, which is its owner's alone. `settings` has the fields that
-- are set: title, model, system_prompt, max_iterations, max_seconds.
CREATE TABLE sessions (
    id          text        PRIMARY KEY DEFAULT playhead_uuid7()::text,
    seq         bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    owner       text        CHECK (owner <> ''),
    chat_id     text,
    settings    jsonb       NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now(),
    deleted_at  timestamptz            -- nobody finds it any more; it goes when the logs of its tasks are closed
);
CREATE INDEX sessions_of_owner ON sessions (owner, seq) WHERE deleted_at IS NULL;
CREATE INDEX sessions_in_order ON sessions (seq) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX sessions_chats ON sessions (coalesce(owner, ''), chat_id) WHERE deleted_at IS NULL AND chat_id IS NOT NULL;
CREATE INDEX sessions_deleted ON sessions (seq) WHERE deleted_at IS NOT NULL;

-- Units of agent work, each with a log of its own.
CREATE TABLE tasks (
    id          uuid        PRIMARY KEY DEFAULT playhead_uuid7(),
    seq         bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,  -- of one session's, in the order of their commits
    session_id  text        NOT NULL REFERENCES sessions ON DELETE CASCADE,
    owner       text,                  -- the session's, so that an owner's tasks are found
    kind        text        NOT NULL CHECK (kind IN ('turn')),
    status      text        NOT NULL DEFAULT 'queued'
                            CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    input_id    text        NOT NULL,  -- the message that is answered; it may have been taken back since
    answer_id   text        NOT NULL DEFAULT playhead_uuid7()::text,  -- the assistant's message, as soon as there is one
    error_type  text,
    usage       json        NOT NULL DEFAULT '{"input_tokens":0,"output_tokens":0}',
    ending      json,                  -- the closing chunks that the log is owed, from the moment the task has ended
    log_closed  boolean     NOT NULL DEFAULT false,  -- the log has them
    log_archived boolean    NOT NULL DEFAULT false,  -- log_events has the log, whole
    cancel_requested_at timestamptz,   -- its owner wants it ended; a worker does that, also where it is queued
    traceparent text,                  -- the span in which its message was accepted
    created_at  timestamptz NOT NULL DEFAULT now(),
    started_at  timestamptz,
    finished_at timestamptz,
    CHECK ((status IN ('queued', 'running')) = (ending IS NULL)),
    CHECK (log_closed OR NOT log_archived)
);

-- What can be claimed, oldest first; small however many tasks have ended.
CREATE INDEX tasks_queued ON tasks (created_at, id) WHERE status = 'queued';
-- What may have lost its worker, or is to be ended before one runs it.
CREATE INDEX tasks_unclosed ON tasks (id)
    WHERE (status <> 'queued' OR cancel_requested_at IS NOT NULL) AND NOT log_closed;
-- What is to be archived.
CREATE INDEX tasks_unarchived ON tasks (id) WHERE log_closed AND NOT log_archived;
-- The safety nets under every claim and every post: one running turn a session, and one queued. They hold whatever a
-- transaction sees of others, by the isolation that a server gives it.
CREATE UNIQUE INDEX tasks_one_running ON tasks (session_id) WHERE status = 'running';
CREATE UNIQUE INDEX tasks_one_queued ON tasks (session_id) WHERE status = 'queued';
CREATE INDEX tasks_of_session ON tasks (session_id, seq);
CREATE INDEX tasks_in_order ON tasks (seq);
CREATE INDEX tasks_by_status ON tasks (status, seq);
CREATE INDEX tasks_of_owner ON tasks (owner, seq);

-- Who may write a task's log, and until when by this server's clock. Narrow, since it is written all the time.
CREATE TABLE leases (
    task_id     uuid        PRIMARY KEY REFERENCES tasks ON DELETE CASCADE,
    epoch       bigint      NOT NULL DEFAULT 0,
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    lost_attempts smallint  NOT NULL DEFAULT 0  -- holders in a row whose lease lapsed while the task ran
) WITH (fillfactor = 50);

-- Accepted entries of the conversations, in the order of `seq`. `parts` is json and not jsonb: it is kept as it came, and
-- jsonb refuses \u0000. What an edited or repeated message had led to is set aside: kept, and no part of the conversation.
CREATE TABLE messages (
    session_id  text        NOT NULL REFERENCES sessions ON DELETE CASCADE,
    seq         bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    id          text        NOT NULL DEFAULT playhead_uuid7()::text,
    role        text        NOT NULL CHECK (role IN ('user', 'assistant')),
    parts       json        NOT NULL,
    task_id     uuid        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    set_aside_by uuid,                 -- the task that answers an earlier message again
    PRIMARY KEY (session_id, seq)
);
CREATE UNIQUE INDEX messages_named ON messages (session_id, id) WHERE set_aside_by IS NULL;

-- The mailboxes: messages that were accepted while a turn was queued or running, each until a turn takes it. As long as
-- there is one, its session has a turn that is queued or running.
CREATE TABLE pending_messages (
    session_id  text        NOT NULL REFERENCES sessions ON DELETE CASCADE,
    seq         bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    id          text        NOT NULL,
    parts       json        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    traceparent text,                  -- the span in which it was accepted
    PRIMARY KEY (session_id, seq),
    UNIQUE (session_id, id)
);

-- The steps of turns that run, as far as they are done, and which messages were taken in behind each: where a log is lost,
-- it is told again, and nothing is asked or done twice. They go with the end of the turn, whose answer has all of it.
CREATE TABLE steps (
    task_id     uuid        NOT NULL REFERENCES tasks ON DELETE CASCADE,
    number      integer     NOT NULL CHECK (number > 0),
    parts       json        NOT NULL,
    call        json        NOT NULL,  -- how its model call ended
    promoted    text[]      NOT NULL,
    PRIMARY KEY (task_id, number)
);

-- Calls of tools that must not run twice, each noted before it begins, by the epoch of who begins it. They go with the end
-- of the turn.
CREATE TABLE tool_calls (
    task_id     uuid        NOT NULL REFERENCES tasks ON DELETE CASCADE,
    call_id     text        NOT NULL,
    epoch       bigint      NOT NULL,
    PRIMARY KEY (task_id, call_id)
);

-- What was answered to a request that named itself by a key, for a day: its repeat changes nothing and is answered alike.
CREATE TABLE idempotency_keys (
    owner       text        NOT NULL,  -- whose key it is; empty: the service's
    route       text        NOT NULL,
    key         text        NOT NULL,
    body_hash   bytea       NOT NULL,
    answer      json        NOT NULL,
    session_id  text        NOT NULL REFERENCES sessions ON DELETE CASCADE,
    message_id  text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner, route, key)
);
CREATE INDEX idempotency_keys_of_session ON idempotency_keys (session_id, message_id);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- The functions below are functions so that each is one round trip and yet several statements: what follows the lock of
-- the session's row sees what whoever held it before has committed. One statement that locks and looks would look as of
-- before it waited. (So would several where transactions are repeatable: programs refuse such a database, and
-- tasks_one_queued refuses a second turn.)

-- Lock a conversation: whether it is there, and within reach. A reach is everything, or one owner's, null being nobody's.
CREATE FUNCTION playhead_lock(conversation text, everyones boolean, whose text) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM sessions
    WHERE id = conversation AND deleted_at IS NULL AND (everyones OR owner IS NOT DISTINCT FROM whose)
    FOR UPDATE;
    RETURN FOUND;
END
$$;

-- The task that works on a conversation, which is locked, or will next.
CREATE FUNCTION playhead_open_turn(conversation text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT id::text FROM tasks
    WHERE session_id = conversation AND status IN ('queued', 'running')
    ORDER BY status DESC LIMIT 1
$$;

-- Queue the turn that answers a message of a conversation, which is locked and has no queued turn.
CREATE FUNCTION playhead_queue_turn(conversation text, input text, traced text) RETURNS uuid LANGUAGE sql VOLATILE AS $$
    WITH task AS (
        INSERT INTO tasks (session_id, owner, kind, input_id, traceparent)
        SELECT id, owner, 'turn', input, traced FROM sessions WHERE id = conversation
        RETURNING id
    )
    INSERT INTO leases (task_id) SELECT id FROM task RETURNING task_id
$$;

-- Store a user's message, and queue the turn that answers it.
CREATE FUNCTION playhead_begin_turn(
    conversation text, message text, said json, said_at timestamptz, traced text
) RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    task uuid := playhead_queue_turn(conversation, message, traced);
BEGIN
    INSERT INTO messages (session_id, id, role, parts, task_id, created_at)
    VALUES (conversation, message, 'user', said, task, said_at);
    RETURN task::text;
END
$$;

-- Accept a message: begin a turn for it, or keep it in the mailbox while there is a turn. `outcome` is unknown (no such
-- conversation), repeated (the same key with the same body: `known` is what was answered), mismatched (with another
-- body), taken (there is a message of this id, or will be), full (the mailbox is), accepted or pending.
CREATE FUNCTION playhead_post(
    conversation text, everyones boolean, whose text, said json, message text, mailbox bigint,
    key_owner text, key_route text, key_name text, key_hash bytea, key_seconds double precision,
    traced text, OUT outcome text, OUT known json, OUT task text, OUT input text
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    earlier record;
BEGIN
    IF NOT playhead_lock(conversation, everyones, whose) THEN
        outcome := 'unknown';
        RETURN;
    END IF;
    IF key_name IS NOT NULL THEN
        DELETE FROM idempotency_keys k
        WHERE k.owner = key_owner AND k.route = key_route AND k.key = key_name
          AND k.created_at < now() - make_interval(secs => key_seconds);
        SELECT k.body_hash, k.answer INTO earlier FROM idempotency_keys k
        WHERE k.owner = key_owner AND k.route = key_route AND k.key = key_name;
        IF FOUND THEN
            outcome := CASE WHEN earlier.body_hash = key_hash THEN 'repeated' ELSE 'mismatched' END;
            known := earlier.answer;
            RETURN;
        END IF;
    END IF;
    input := coalesce(message, playhead_uuid7()::text);
    task := playhead_open_turn(conversation);
    PERFORM FROM messages m WHERE m.session_id = conversation AND m.id = input AND m.set_aside_by IS NULL
    UNION ALL SELECT FROM pending_messages p WHERE p.session_id = conversation AND p.id = input
    UNION ALL SELECT FROM tasks t  -- an answer that is being given has its id already
    WHERE t.session_id = conversation AND t.status IN ('queued', 'running') AND t.answer_id = input;
    IF FOUND THEN
        outcome := 'taken';
        RETURN;
    END IF;
    IF task IS NULL THEN
        outcome := 'accepted';
        task := playhead_begin_turn(conversation, input, said, now(), traced);
    ELSIF (SELECT count(*) FROM pending_messages p WHERE p.session_id = conversation) >= mailbox THEN
        outcome := 'full';
        RETURN;
    ELSE
        outcome := 'pending';
        INSERT INTO pending_messages (session_id, id, parts, traceparent) VALUES (conversation, input, said, traced);
    END IF;
    IF key_name IS NOT NULL THEN
        INSERT INTO idempotency_keys (owner, route, key, body_hash, answer, session_id, message_id)
        VALUES (key_owner, key_route, key_name, key_hash,
                json_build_object('task_id', task, 'message_id', input, 'status', outcome), conversation, input);
    END IF;
END
$$;

-- Create a conversation. `outcome` is created, repeated or mismatched, as with a message; `known` is its id.
CREATE FUNCTION playhead_create(
    whose text, chosen jsonb, key_route text, key_name text, key_hash bytea, key_seconds double precision,
    OUT outcome text, OUT known text
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    earlier record;
BEGIN
    IF key_name IS NOT NULL THEN
        DELETE FROM idempotency_keys k
        WHERE k.owner = coalesce(whose, '') AND k.route = key_route AND k.key = key_name
          AND k.created_at < now() - make_interval(secs => key_seconds);
        SELECT k.body_hash, k.session_id INTO earlier FROM idempotency_keys k
        WHERE k.owner = coalesce(whose, '') AND k.route = key_route AND k.key = key_name;
        IF FOUND THEN
            outcome := CASE WHEN earlier.body_hash = key_hash THEN 'repeated' ELSE 'mismatched' END;
            known := earlier.session_id;
            RETURN;
        END IF;
    END IF;
    outcome := 'created';
    INSERT INTO sessions (owner, settings) VALUES (whose, chosen) RETURNING id INTO known;
    IF key_name IS NOT NULL THEN  -- where another has the same key now, this fails, and the session is not there either
        INSERT INTO idempotency_keys (owner, route, key, body_hash, answer, session_id)
        VALUES (coalesce(whose, ''), key_route, key_name, key_hash, '{}', known);
    END IF;
END
$$;

-- Answer a message again, as it was or with other words ($4): it and what came after it are set aside by the new task, and
-- it is said once more. `outcome` is unknown, busy (a turn is queued or running), missing (there is no such message of the
-- user's) or accepted. Without an id the newest message of the user is meant.
CREATE FUNCTION playhead_answer_again(
    conversation text, everyones boolean, whose text, said json, message text, traced text,
    OUT outcome text, OUT task text, OUT input text
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    asked messages;
BEGIN
    IF NOT playhead_lock(conversation, everyones, whose) THEN
        outcome := 'unknown';
        RETURN;
    END IF;
    IF playhead_open_turn(conversation) IS NOT NULL THEN
        outcome := 'busy';
        RETURN;
    END IF;
    SELECT m.* INTO asked FROM messages m
    WHERE m.session_id = conversation AND m.role = 'user' AND m.set_aside_by IS NULL AND (message IS NULL OR m.id = message)
    ORDER BY m.seq DESC LIMIT 1;
    IF NOT FOUND THEN
        outcome := 'missing';
        RETURN;
    END IF;
    outcome := 'accepted';
    input := asked.id;
    task := playhead_queue_turn(conversation, input, traced)::text;
    UPDATE messages m SET set_aside_by = task::uuid
    WHERE m.session_id = conversation AND m.set_aside_by IS NULL AND m.seq >= asked.seq;
    INSERT INTO messages (session_id, id, role, parts, task_id, created_at)
    VALUES (conversation, input, 'user', coalesce(said, asked.parts), task::uuid,
            CASE WHEN said IS NULL THEN asked.created_at ELSE now() END);
END
$$;

-- Between two steps of a turn, by its holder alone: the step is kept, what waits in the mailbox becomes a part of the
-- conversation, in its order, and attempts count again from 0. Answers what this turn has taken in so that its log (which
-- has `told`) does not have yet, as a list of id and parts: a repeat answers the same. Null where another holds the task,
-- or it does not run. The session is locked first, then the lease.
CREATE FUNCTION playhead_promote(
    promoting uuid, holder bigint, step integer, said json, how json, told text[]
) RETURNS json LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    turn record;
    place bigint;
    taken text[];
BEGIN
    SELECT t.session_id, t.input_id INTO turn
    FROM sessions s JOIN tasks t ON t.session_id = s.id WHERE t.id = promoting FOR UPDATE OF s;
    PERFORM FROM leases l JOIN tasks t ON t.id = l.task_id
    WHERE l.task_id = promoting AND l.epoch = holder AND t.status = 'running' FOR UPDATE OF l;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE leases l SET lost_attempts = 0 WHERE l.task_id = promoting AND l.lost_attempts > 0;
    WITH waiting AS (
        DELETE FROM pending_messages p WHERE p.session_id = turn.session_id RETURNING p.*
    ), moved AS (
        INSERT INTO messages (session_id, id, role, parts, task_id, created_at)
        SELECT w.session_id, w.id, 'user', w.parts, promoting, w.created_at FROM waiting w ORDER BY w.seq
        RETURNING id, seq
    )
    SELECT coalesce(array_agg(id ORDER BY seq), '{}') INTO taken FROM moved;
    INSERT INTO steps (task_id, number, parts, call, promoted) VALUES (promoting, step, said, how, taken)
    ON CONFLICT (task_id, number) DO UPDATE SET promoted = steps.promoted || excluded.promoted;
    SELECT m.seq INTO place FROM messages m
    WHERE m.session_id = turn.session_id AND m.id = turn.input_id AND m.set_aside_by IS NULL;
    RETURN (
        SELECT coalesce(json_agg(json_build_object('id', m.id, 'parts', m.parts) ORDER BY m.seq), '[]') FROM messages m
        WHERE m.session_id = turn.session_id AND m.seq > place AND m.set_aside_by IS NULL
          AND m.task_id = promoting AND m.role = 'user' AND m.id <> ALL (told)
    );
END
$$;

-- The end of a task and all that hangs on it, by its holder alone: the status, what its log is owed, the assistant's
-- message or the return of the input, in whose place what was set aside for it is said again, and the next turn, where the
-- mailbox has a message. The session is locked first, then the lease. What ends without having been run has started when
-- it finished.
CREATE FUNCTION playhead_end(
    ending_task uuid, holder bigint, how text, owed json, used json, why text, ended_at timestamptz, said json, bounced boolean,
    OUT has_ended boolean, OUT next_task text
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    ended record;
    waiting record;
BEGIN
    PERFORM FROM sessions s JOIN tasks t ON t.session_id = s.id WHERE t.id = ending_task FOR UPDATE OF s;
    PERFORM FROM leases l WHERE l.task_id = ending_task AND l.epoch = holder FOR UPDATE;
    has_ended := FOUND;
    IF NOT has_ended THEN
        RETURN;
    END IF;
    UPDATE tasks t SET status = how, ending = owed, usage = used, error_type = why, finished_at = ended_at,
                       started_at = coalesce(t.started_at, ended_at)
    WHERE t.id = ending_task AND t.status IN ('queued', 'running')
    RETURNING t.session_id, t.input_id, t.answer_id INTO ended;
    has_ended := FOUND;
    IF NOT has_ended THEN
        RETURN;
    END IF;
    DELETE FROM steps WHERE task_id = ending_task;
    DELETE FROM tool_calls WHERE task_id = ending_task;
    IF said IS NOT NULL THEN
        INSERT INTO messages (session_id, id, role, parts, task_id)
        VALUES (ended.session_id, ended.answer_id, 'assistant', said, ending_task);
    END IF;
    IF bounced THEN
        DELETE FROM messages m WHERE m.session_id = ended.session_id AND m.id = ended.input_id AND m.set_aside_by IS NULL;
        UPDATE messages m SET set_aside_by = NULL WHERE m.session_id = ended.session_id AND m.set_aside_by = ending_task;
        IF NOT FOUND THEN  -- nobody has said it
            DELETE FROM idempotency_keys k WHERE k.session_id = ended.session_id AND k.message_id = ended.input_id;
        END IF;
    END IF;
    IF playhead_open_turn(ended.session_id) IS NULL THEN
        DELETE FROM pending_messages p
        WHERE p.session_id = ended.session_id
          AND p.seq = (SELECT min(o.seq) FROM pending_messages o WHERE o.session_id = ended.session_id)
        RETURNING p.id, p.parts, p.created_at, p.traceparent INTO waiting;
        IF FOUND THEN
            next_task := playhead_begin_turn(
                ended.session_id, waiting.id, waiting.parts, waiting.created_at, waiting.traceparent
            );
        END IF;
    END IF;
END
$$;

-- Change a conversation: settings that are null in `patch` are unset, the others are set. An owner is given to one that
-- has none; one that has is not changed at all. A chat loses its name there where its new owner has a chat of that name.
-- The answer is unknown, owned or changed.
CREATE FUNCTION playhead_change(conversation text, everyones boolean, whose text, patch jsonb, given text) RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT playhead_lock(conversation, everyones, whose) THEN
        RETURN 'unknown';
    END IF;
    IF given IS NOT NULL THEN
        UPDATE sessions SET owner = given, chat_id = CASE WHEN NOT EXISTS (
            SELECT FROM sessions o WHERE coalesce(o.owner, '') = given AND o.chat_id = sessions.chat_id AND o.deleted_at IS NULL
        ) THEN chat_id END
        WHERE id = conversation AND owner IS NULL;
        IF NOT FOUND THEN
            RETURN 'owned';
        END IF;
        UPDATE tasks SET owner = given WHERE session_id = conversation;
    END IF;
    UPDATE sessions SET settings = jsonb_strip_nulls(settings || patch) WHERE id = conversation;
    RETURN 'changed';
END
$$;

-- Delete a conversation: nobody finds it any more, its mailbox is empty, and what is open of it is to be cancelled, which
-- is the answer. Null where it is unknown.
CREATE FUNCTION playhead_delete(conversation text, everyones boolean, whose text) RETURNS text[]
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    open_tasks text[];
BEGIN
    IF NOT playhead_lock(conversation, everyones, whose) THEN
        RETURN NULL;
    END IF;
    UPDATE sessions SET deleted_at = now() WHERE id = conversation;
    DELETE FROM pending_messages WHERE session_id = conversation;
    DELETE FROM idempotency_keys WHERE session_id = conversation;
    WITH cancelled AS (
        UPDATE tasks SET cancel_requested_at = coalesce(cancel_requested_at, now())
        WHERE session_id = conversation AND status IN ('queued', 'running')
        RETURNING id
    )
    SELECT coalesce(array_agg(id::text), '{}') INTO open_tasks FROM cancelled;
    RETURN open_tasks;
END
$$;

-- Remove a deleted conversation for good, with all that is archived of it; false while a log of it is not closed. Its
-- tasks are locked first: whoever archives one of them has then either committed, or finds it gone.
CREATE FUNCTION playhead_remove(conversation text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    removed uuid[];
BEGIN
    PERFORM FROM sessions WHERE id = conversation AND deleted_at IS NOT NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM FROM tasks WHERE session_id = conversation ORDER BY id FOR UPDATE;
    PERFORM FROM tasks WHERE session_id = conversation AND NOT log_closed;
    IF FOUND THEN
        RETURN false;
    END IF;
    SELECT array_agg(id) INTO removed FROM tasks WHERE session_id = conversation;
    DELETE FROM log_events WHERE task_id = ANY (removed);
    DELETE FROM log_archives WHERE task_id = ANY (removed);
    DELETE FROM sessions WHERE id = conversation;
    RETURN true;
END
$$;

-- The events of closed logs, for good: `ms` and `n` are an event's position, `data` its JSON. Partitioned by the months in
-- which the tasks' ids were made, so that what is old can go at once; without foreign keys, for the same reason.
CREATE TABLE log_events (
    task_id     uuid        NOT NULL,
    n           bigint      NOT NULL,
    ms          bigint      NOT NULL,
    data        bytea       NOT NULL,
    PRIMARY KEY (task_id, n)
) PARTITION BY RANGE (task_id);

-- One row: this log is archived whole. It came in one transaction with its events.
CREATE TABLE log_archives (
    task_id     uuid        PRIMARY KEY,
    events      bigint      NOT NULL,
    last_n      bigint      NOT NULL,
    last_ms     bigint      NOT NULL,
    sha256      bytea       NOT NULL CHECK (octet_length(sha256) = 32),  -- the last link of the chain over its frames
    archived_at timestamptz NOT NULL DEFAULT now()
);

-- When the id of a task was made, by the clock that made it: the first 48 bits are Unix milliseconds.
CREATE FUNCTION playhead_made_at(task uuid) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT to_timestamp(('x0000' || left(replace(task::text, '-', ''), 12))::bit(64)::bigint / 1000.0)
$$;

-- Make the partition that a task's events go to, if there is none: for the month of its id, whatever any clock says.
-- Attached rather than created in place, since that waits for no reader and no copy that is under way.
CREATE FUNCTION playhead_log_partition(task uuid) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    month timestamp := date_trunc('month', playhead_made_at(task) AT TIME ZONE 'UTC');
    name  text      := 'log_events_' || to_char(month, 'YYYY_MM');
    first text      := to_hex((extract(epoch FROM month) * 1000)::bigint);
    next  text      := to_hex((extract(epoch FROM month + interval '1 month') * 1000)::bigint);
BEGIN
    IF to_regclass(name) IS NOT NULL THEN
        RETURN;
    END IF;
    LOCK TABLE log_events IN SHARE UPDATE EXCLUSIVE MODE;  -- what attaching takes anyway
    IF to_regclass(name) IS NOT NULL THEN  -- another one was faster
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE log_events INCLUDING ALL)', name);
    EXECUTE format(
        'ALTER TABLE log_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%s)',
        name,
        rpad(lpad(first, 12, '0'), 32, '0')::uuid,
        -- 48 bits end in August 10889
        CASE WHEN length(next) > 12 THEN 'MAXVALUE' ELSE quote_literal(rpad(lpad(next, 12, '0'), 32, '0')::uuid) END
    );
END
$$;

INSERT INTO schema_version (version) VALUES (5);
