-- Playhead's database: everything that is owed. What happened is in the logs.
-- Applied as one transaction on an empty database by `playhead schema apply` and at every start of the embedded default;
-- on a database that has it already, nothing happens. PostgreSQL 15 or later.

-- One row: which schema this is. Programs refuse a database with a higher number than they know.
CREATE TABLE schema_version (
    version     integer     NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now(),
    only_row    boolean     NOT NULL DEFAULT true UNIQUE CHECK (only_row)
);

-- UUIDs of version 7 by this server's clock: ids sort by their time of creation, whichever process asked for them.
CREATE FUNCTION playhead_uuid7() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
            || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid
$$;

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
    created_at  timestamptz NOT NULL DEFAULT now(),
    started_at  timestamptz,
    finished_at timestamptz,
    CHECK ((status IN ('queued', 'running')) = (ending IS NULL))
);

-- What can be claimed, oldest first; small however many tasks have ended.
CREATE INDEX tasks_queued ON tasks (created_at, id) WHERE status = 'queued';
-- What may have lost its worker.
CREATE INDEX tasks_unclosed ON tasks (id) WHERE status <> 'queued' AND NOT log_closed;
-- The safety nets under every claim and every post: one running turn a session, and one queued. They hold whatever a
-- transaction sees of others, by the isolation that a server gives it.
CREATE UNIQUE INDEX tasks_one_running ON tasks (session_id) WHERE status = 'running';
CREATE UNIQUE INDEX tasks_one_queued ON tasks (session_id) WHERE status = 'queued';
CREATE INDEX tasks_of_session ON tasks (session_id, id);

-- Who may write a task's log, and until when by this server's clock. Narrow, since it is written all the time.
CREATE TABLE leases (
    task_id     uuid        PRIMARY KEY REFERENCES tasks ON DELETE CASCADE,
    epoch       bigint      NOT NULL DEFAULT 0,
    lease_until timestamptz NOT NULL DEFAULT '-infinity'
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

INSERT INTO schema_version (version) VALUES (3);
