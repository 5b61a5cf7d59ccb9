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

-- Conversations. Whoever posts to one or ends its turn locks its row first.
CREATE TABLE sessions (
    id          text        PRIMARY KEY DEFAULT playhead_uuid7()::text,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- Units of agent work, each with a log of its own.
CREATE TABLE tasks (
    id          uuid        PRIMARY KEY DEFAULT playhead_uuid7(),
    session_id  text        NOT NULL REFERENCES sessions ON DELETE CASCADE,
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
CREATE INDEX tasks_of_session ON tasks (session_id, id);

-- Who may write a task's log, and until when by this server's clock. Narrow, since it is written all the time.
CREATE TABLE leases (
    task_id     uuid        PRIMARY KEY REFERENCES tasks ON DELETE CASCADE,
    epoch       bigint      NOT NULL DEFAULT 0,
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    lost_attempts smallint  NOT NULL DEFAULT 0  -- holders in a row whose lease lapsed while the task ran
) WITH (fillfactor = 50);

-- Accepted entries of the conversations, in the order of `seq`. `parts` is json and not jsonb: it is kept as it came, and
-- jsonb refuses \u0000.
CREATE TABLE messages (
    session_id  text        NOT NULL REFERENCES sessions ON DELETE CASCADE,
    id          text        NOT NULL DEFAULT playhead_uuid7()::text,
    seq         bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    role        text        NOT NULL CHECK (role IN ('user', 'assistant')),
    parts       json        NOT NULL,
    task_id     uuid        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (session_id, id)
);
CREATE INDEX messages_in_order ON messages (session_id, seq);

-- Accept a message and queue the turn that answers it, unless a turn is queued or running. A function, so that it is one
-- round trip and yet two statements: the second one sees what whoever held the session's row before has committed. One
-- statement that locks and looks would look as of before it waited. (So would two statements where transactions are
-- repeatable: programs refuse such a database, and tasks_one_queued refuses the second turn.)
CREATE FUNCTION playhead_post(conversation text, said json, OUT is_known boolean, OUT new_task text, OUT new_input text)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM sessions WHERE id = conversation FOR UPDATE;
    is_known := FOUND;
    WITH task AS (
        INSERT INTO tasks (session_id, kind, input_id)
        SELECT conversation, 'turn', playhead_uuid7()::text
        WHERE is_known
          AND NOT EXISTS (SELECT FROM tasks WHERE session_id = conversation AND status IN ('queued', 'running'))
        RETURNING id, session_id, input_id
    ), lease AS (
        INSERT INTO leases (task_id) SELECT id FROM task
    ), message AS (
        INSERT INTO messages (session_id, id, role, parts, task_id)
        SELECT session_id, input_id, 'user', said, id FROM task
    )
    SELECT id, input_id INTO new_task, new_input FROM task;
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
