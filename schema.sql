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
    kind        text        NOT NULL CHECK (kind IN ('turn', 'operation')),
    status      text        NOT NULL DEFAULT 'queued'
                            CHECK (status IN ('queued', 'waiting', 'running', 'succeeded', 'failed', 'cancelled')),
    input_id    text,                  -- the message that is answered; it may have been taken back since
    operation_id uuid,                 -- whose work it is; the newest of an operation's is its follow-up
    answer_id   text        NOT NULL DEFAULT playhead_uuid7()::text,  -- the assistant's message, as soon as there is one
    error_type  text,                  -- why it failed; of a follow-up that rests, its last try
    usage       json        NOT NULL DEFAULT '{"input_tokens":0,"output_tokens":0}',
    ending      json,                  -- the closing chunks that the log is owed, from the moment the task has ended
    log_closed  boolean     NOT NULL DEFAULT false,  -- the log has them
    log_archived boolean    NOT NULL DEFAULT false,  -- log_events has the log, whole
    cancel_requested_at timestamptz,   -- its owner wants it ended; a worker does that, also where it is queued
    traceparent text,                  -- the span in which its message was accepted
    created_at  timestamptz NOT NULL DEFAULT now(),
    due_at      timestamptz NOT NULL DEFAULT now(),  -- a queued one is not claimed before
    failed_tries smallint   NOT NULL DEFAULT 0,      -- of a follow-up; behind each its next one is due later
    tell_at     timestamptz,           -- the log of a waiting one is owed something, from then on
    told_at     timestamptz,           -- when its log was last brought up to date
    started_at  timestamptz,
    finished_at timestamptz,
    CHECK ((kind = 'turn') = (input_id IS NOT NULL)),
    CHECK ((kind = 'operation') = (operation_id IS NOT NULL)),
    CHECK (status <> 'waiting' OR kind = 'operation'),
    CHECK (tell_at IS NULL OR status = 'waiting'),
    CHECK ((status IN ('queued', 'waiting', 'running')) = (ending IS NULL)),
    CHECK (log_closed OR NOT log_archived)
);

-- What can be claimed, oldest first; small however many tasks have ended.
CREATE INDEX tasks_queued ON tasks (due_at, id) WHERE status = 'queued';
CREATE INDEX tasks_queued_of_session ON tasks (session_id, due_at, id) WHERE status = 'queued';
-- What may have lost its worker, is to be ended before one runs it, or waits with a log that is owed something.
CREATE INDEX tasks_unclosed ON tasks (id)
    WHERE (status NOT IN ('queued', 'waiting') OR cancel_requested_at IS NOT NULL OR tell_at IS NOT NULL)
      AND NOT log_closed;
-- What is to be archived.
CREATE INDEX tasks_unarchived ON tasks (id) WHERE log_closed AND NOT log_archived;
-- The safety nets under every claim and every post: one running turn or follow-up a session, and one queued turn. They
-- hold whatever a transaction sees of others, by the isolation that a server gives it.
CREATE UNIQUE INDEX tasks_one_running ON tasks (session_id) WHERE status = 'running';
CREATE UNIQUE INDEX tasks_one_queued ON tasks (session_id) WHERE status = 'queued' AND kind = 'turn';
CREATE INDEX tasks_of_session ON tasks (session_id, seq);
CREATE INDEX tasks_in_order ON tasks (seq);
CREATE INDEX tasks_by_status ON tasks (status, seq);
CREATE INDEX tasks_of_owner ON tasks (owner, seq);
CREATE INDEX tasks_of_operation ON tasks (operation_id, seq) WHERE operation_id IS NOT NULL;
-- What an operator looks for: follow-ups that failed, or are to be tried again.
CREATE INDEX tasks_stuck ON tasks (operation_id)
    WHERE operation_id IS NOT NULL AND (status = 'failed' OR (status = 'queued' AND failed_tries > 0));

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
-- there is one, its session has a turn that is queued, or a turn or a follow-up that is running.
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

-- What the agent waits for: an external service, a background job, a person, the clock. A row is there before the outside
-- is told of it. It belongs to no other row, so that it outlives its session: a late completion of what is deleted is no
-- unknown one. `outcome` is null while it is pending, and where the session's data is gone.
CREATE TABLE operations (
    id          uuid        PRIMARY KEY DEFAULT playhead_uuid7(),
    seq         bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    session_id  text        NOT NULL,
    owner       text,                  -- the session's
    task_id     uuid        NOT NULL UNIQUE,  -- its own; a follow-up that is redriven is another one
    turn_id     uuid        NOT NULL,  -- the task that asked for it
    call_id     text        NOT NULL,
    tool        text        NOT NULL,
    executor    text        NOT NULL CHECK (executor IN ('remote', 'job', 'person', 'timer')),
    arguments   json,
    key         text,                  -- names the work itself, within its session and tool
    status      text        NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'succeeded', 'failed', 'cancelled')),
    outcome     json,
    outcome_sha256 bytea    CHECK (octet_length(outcome_sha256) = 32),  -- of status and outcome as canonical JSON
    completion_id uuid,                -- the delivery that ended it
    has_follow_up boolean   NOT NULL DEFAULT false,
    begun_by    bigint,                -- of a background job: the epoch of the holder that runs it; no other one may
    progress    json,
    progress_number integer NOT NULL DEFAULT 0,
    deliveries  integer     NOT NULL DEFAULT 0,  -- messages about its end, kept or not
    created_at  timestamptz NOT NULL DEFAULT now(),
    deadline    timestamptz,
    ended_at    timestamptz,
    UNIQUE (turn_id, call_id),
    CHECK ((status = 'pending') = (outcome_sha256 IS NULL))
);
CREATE UNIQUE INDEX operations_keyed ON operations (session_id, tool, key) WHERE key IS NOT NULL;
CREATE INDEX operations_overdue ON operations (deadline) WHERE status = 'pending';
CREATE INDEX operations_pending ON operations (session_id) WHERE status = 'pending';
CREATE INDEX operations_of_session ON operations (session_id, seq);
CREATE INDEX operations_of_owner ON operations (owner, seq);
CREATE INDEX operations_by_status ON operations (status, seq);
CREATE INDEX operations_in_order ON operations (seq);

-- The inbox: every message about the end of an operation, and what became of it, and who had its follow-up tried again, up
-- to a bound for each operation. A delivery that has a name comes once, however often it is sent. Of progress there are names alone, for ten minutes.
CREATE TABLE completions (
    id          uuid        PRIMARY KEY DEFAULT playhead_uuid7(),
    seq         bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,  -- of one operation's, in the order of their arrival
    operation_id uuid       NOT NULL REFERENCES operations ON DELETE CASCADE,
    at          timestamptz NOT NULL DEFAULT now(),
    door        text        NOT NULL CHECK (door IN ('http', 'amqp', 'service')),
    by          text        NOT NULL,
    delivery    text,
    disposition text        NOT NULL CHECK (disposition IN ('accepted', 'duplicate', 'conflicting', 'redriven', 'progress')),
    status      text        NOT NULL,  -- what the operation was to be
    outcome     json,
    times       integer     NOT NULL DEFAULT 1
);
CREATE INDEX completions_of_operation ON completions (operation_id, seq);
CREATE INDEX completions_of_progress ON completions (operation_id, at) WHERE disposition = 'progress';
CREATE UNIQUE INDEX completions_named ON completions (operation_id, delivery) WHERE delivery IS NOT NULL;

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

-- The task that works on a conversation, which is locked, or the turn that will. A follow-up that is queued is not it: it
-- may be due only later.
CREATE FUNCTION playhead_open_turn(conversation text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT id::text FROM tasks
    WHERE session_id = conversation AND (status = 'running' OR (status = 'queued' AND kind = 'turn'))
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

-- Begin the turn for the oldest message in the mailbox of a conversation, which is locked: null where there is none, or
-- what takes it is there already.
CREATE FUNCTION playhead_begin_next_turn(conversation text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    waiting record;
BEGIN
    IF playhead_open_turn(conversation) IS NOT NULL THEN
        RETURN NULL;
    END IF;
    DELETE FROM pending_messages p
    WHERE p.session_id = conversation
      AND p.seq = (SELECT min(o.seq) FROM pending_messages o WHERE o.session_id = conversation)
    RETURNING p.id, p.parts, p.created_at, p.traceparent INTO waiting;
    RETURN CASE WHEN FOUND THEN
        playhead_begin_turn(conversation, waiting.id, waiting.parts, waiting.created_at, waiting.traceparent)
    END;
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
    WHERE t.session_id = conversation AND t.status IN ('queued', 'waiting', 'running') AND t.answer_id = input;
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
        WHERE m.session_id = turn.session_id AND m.seq > coalesce(place, 0) AND m.set_aside_by IS NULL
          AND m.task_id = promoting AND m.role = 'user' AND m.id <> ALL (told)  -- a follow-up answers no message
    );
END
$$;

-- Begin an operation, by a call of a turn whose holder alone may: the operation, its task, and a note that the call has
-- begun. What this call has begun before, or another of this session under the same key, is answered instead. `outcome`
-- is lost (another holds the turn, it does not run, or its conversation is deleted), full (too many are pending), begun
-- or known.
CREATE FUNCTION playhead_begin_operation(
    asking uuid, holder bigint, call text, named text, executed_by text, given json, key_name text,
    deadline_seconds double precision, most bigint, OUT outcome text, OUT operation uuid
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    conversation record;
    own uuid;
BEGIN
    SELECT s.id, s.owner INTO conversation
    FROM sessions s JOIN tasks t ON t.session_id = s.id WHERE t.id = asking AND s.deleted_at IS NULL FOR UPDATE OF s;
    PERFORM FROM leases l JOIN tasks t ON t.id = l.task_id
    WHERE l.task_id = asking AND l.epoch = holder AND t.status = 'running' FOR UPDATE OF l;
    IF NOT FOUND OR conversation.id IS NULL THEN
        outcome := 'lost';
        RETURN;
    END IF;
    outcome := 'known';
    SELECT o.id INTO operation FROM operations o WHERE o.turn_id = asking AND o.call_id = call;
    IF NOT FOUND AND key_name IS NOT NULL THEN
        SELECT o.id INTO operation FROM operations o
        WHERE o.session_id = conversation.id AND o.tool = named AND o.key = key_name;
    END IF;
    IF operation IS NOT NULL THEN
        RETURN;
    END IF;
    IF (SELECT count(*) FROM operations o WHERE o.session_id = conversation.id AND o.status = 'pending') >= most THEN
        outcome := 'full';
        RETURN;
    END IF;
    outcome := 'begun';
    operation := playhead_uuid7();
    INSERT INTO tasks (session_id, owner, kind, status, operation_id, tell_at, traceparent)
    SELECT conversation.id, conversation.owner, 'operation', 'waiting', operation, now(), t.traceparent
    FROM tasks t WHERE t.id = asking
    RETURNING id INTO own;
    INSERT INTO leases (task_id) VALUES (own);
    INSERT INTO operations (id, session_id, owner, task_id, turn_id, call_id, tool, executor, arguments, key, deadline)
    VALUES (operation, conversation.id, conversation.owner, own, asking, call, named, executed_by, given, key_name,
            now() + make_interval(secs => deadline_seconds));
    INSERT INTO tool_calls (task_id, call_id, epoch) VALUES (asking, call, holder) ON CONFLICT DO NOTHING;
END
$$;

-- Find an operation for who wants to complete it, and lock its conversation, if that is still there, and then itself. A
-- reach is everything or one owner's; with a tool's name, only that tool's. Null where it is unknown.
CREATE FUNCTION playhead_lock_operation(wanted uuid, everyones boolean, whose text, of_tool text) RETURNS operations
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    found operations;
BEGIN
    PERFORM FROM sessions WHERE id = (  -- what is not theirs is not waited for: how long that takes would tell of it
        SELECT o.session_id FROM operations o
        WHERE o.id = wanted AND (everyones OR o.owner IS NOT DISTINCT FROM whose) AND (of_tool IS NULL OR o.tool = of_tool)
    ) FOR UPDATE;
    SELECT o.* INTO found FROM operations o
    WHERE o.id = wanted AND (everyones OR o.owner IS NOT DISTINCT FROM whose) AND (of_tool IS NULL OR o.tool = of_tool)
    FOR UPDATE;
    RETURN found;
END
$$;

-- Take a message that an operation has ended: one transaction, whichever door it came through. `became` is unknown,
-- refused (it names another task), not the person (only whoever is asked answers, or somebody cancels), accepted (the
-- operation has this outcome now, and its follow-up is due, where it is to have one), duplicate (it had this very outcome
-- before) or conflicting (it has another one). Whoever held its task does not any more. Without a follow-up is told only
-- the holder of the turn that asked (`asking`, `holder`), where it is its holder still. `most` bounds what is kept of
-- deliveries.
CREATE FUNCTION playhead_complete(
    wanted uuid, everyones boolean, whose text, of_tool text, named_task text, how text, said json, said_sha256 bytea,
    came_by text, sent_by text, called text, follows boolean, asking uuid, holder bigint, answers boolean, most bigint,
    OUT became text, OUT task text, OUT completion text, OUT ended_as text
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    known operations := playhead_lock_operation(wanted, everyones, whose, of_tool);
    delivered uuid := playhead_uuid7();
BEGIN
    IF known.id IS NULL THEN
        became := 'unknown';
        RETURN;
    END IF;
    task := known.task_id;
    IF named_task IS NOT NULL AND named_task <> task THEN
        became := 'refused';
        RETURN;
    END IF;
    IF known.executor = 'person' AND came_by <> 'service' AND how <> 'cancelled' AND NOT answers THEN
        became := 'not the person';
        RETURN;
    END IF;
    IF asking IS NOT NULL THEN  -- who asked is told by this only while the turn is theirs
        PERFORM FROM leases l JOIN tasks t ON t.id = l.task_id
        WHERE l.task_id = asking AND l.epoch = holder AND t.status = 'running';
        follows := follows OR NOT FOUND;
    END IF;
    became := CASE WHEN known.status = 'pending' THEN 'accepted'
                        WHEN known.outcome_sha256 = said_sha256 THEN 'duplicate' ELSE 'conflicting' END;
    UPDATE completions c SET times = times + 1
    WHERE c.operation_id = known.id AND c.delivery = called AND c.disposition <> 'progress' AND became <> 'accepted';
    IF NOT FOUND AND (became = 'accepted' OR known.deliveries < most) THEN
        INSERT INTO completions (id, operation_id, door, by, delivery, disposition, status, outcome)
        VALUES (delivered, known.id, came_by, sent_by, called, became, how, said)
        ON CONFLICT (operation_id, delivery) WHERE delivery IS NOT NULL  -- progress of this name came before
        DO UPDATE SET id = excluded.id, seq = DEFAULT, at = excluded.at, disposition = excluded.disposition, status = excluded.status,
                      outcome = excluded.outcome;
    END IF;
    UPDATE operations o SET deliveries = o.deliveries + 1 WHERE o.id = known.id;
    IF became = 'accepted' THEN
        UPDATE operations o SET status = how, outcome = said, outcome_sha256 = said_sha256, completion_id = delivered,
                                has_follow_up = follows, ended_at = now()
        WHERE o.id = known.id;
        UPDATE leases l SET epoch = l.epoch + 1, lease_until = '-infinity', lost_attempts = 0 WHERE l.task_id = known.task_id;
        UPDATE tasks t SET status = CASE WHEN follows THEN 'queued' ELSE t.status END, due_at = now(),
                           tell_at = CASE WHEN NOT follows THEN now() END
        WHERE t.id = known.task_id AND t.status = 'waiting';
        ended_as := how;
    ELSE
        ended_as := known.status;
    END IF;
    completion := coalesce(known.completion_id, delivered);
END
$$;

-- Have the follow-up of an operation tried again: one that failed by another task with a log of its own, one that rests at
-- once. `became` is unknown, nothing (none has failed) or due; `task` is the follow-up, the same one while it is under way.
CREATE FUNCTION playhead_redrive(
    wanted uuid, everyones boolean, whose text, came_by text, sent_by text, most bigint, OUT became text, OUT task text
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    known operations := playhead_lock_operation(wanted, everyones, whose, NULL);
    latest tasks;
    begun uuid;
BEGIN
    PERFORM FROM sessions s WHERE s.id = known.session_id AND s.deleted_at IS NULL;
    IF NOT FOUND THEN
        became := 'unknown';
        RETURN;
    END IF;
    SELECT t.* INTO latest FROM tasks t WHERE t.operation_id = wanted ORDER BY t.seq DESC LIMIT 1;
    IF NOT known.has_follow_up OR latest.status IN ('succeeded', 'cancelled') OR latest.cancel_requested_at IS NOT NULL THEN
        became := 'nothing';
        RETURN;
    END IF;
    became := 'due';
    IF latest.status = 'failed' THEN
        INSERT INTO tasks (session_id, owner, kind, operation_id, traceparent)
        VALUES (latest.session_id, latest.owner, 'operation', wanted, latest.traceparent)
        RETURNING id INTO begun;
        INSERT INTO leases (task_id) VALUES (begun);
        task := begun;
    ELSE
        task := latest.id;
        UPDATE tasks t SET due_at = now(), failed_tries = 0, error_type = NULL
        WHERE t.id = latest.id AND t.status = 'queued' AND t.failed_tries > 0;
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    UPDATE operations o SET deliveries = o.deliveries + 1 WHERE o.id = wanted;
    IF known.deliveries < most THEN
        INSERT INTO completions (operation_id, door, by, disposition, status)
        VALUES (wanted, came_by, sent_by, 'redriven', known.status);
    END IF;
END
$$;

-- End a pending operation from within, with no follow-up: its conversation is locked, or it is being deleted.
CREATE FUNCTION playhead_cancel_operation(own_task uuid, why text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    cancelled json := json_build_object('reason', why);
    canonical text := '{"outcome":{"reason":' || to_json(why)::text || '},"status":"cancelled"}';
    ended uuid;
    delivered uuid := playhead_uuid7();
BEGIN
    UPDATE operations SET status = 'cancelled', outcome = cancelled, ended_at = now(), completion_id = delivered,
                          outcome_sha256 = sha256(convert_to(canonical, 'UTF8')), deliveries = deliveries + 1
    WHERE task_id = own_task AND status = 'pending'
    RETURNING id INTO ended;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO completions (id, operation_id, door, by, disposition, status, outcome)
    VALUES (delivered, ended, 'service', 'playhead', 'accepted', 'cancelled', cancelled);
    UPDATE leases SET epoch = epoch + 1, lease_until = '-infinity', lost_attempts = 0 WHERE task_id = own_task;
    UPDATE tasks SET tell_at = now(), cancel_requested_at = coalesce(cancel_requested_at, now())
    WHERE id = own_task AND status = 'waiting';
    RETURN FOUND;
END
$$;

-- Cancel a task that waits for its operation, within reach; false where it does not.
CREATE FUNCTION playhead_cancel_waiting(wanted uuid, everyones boolean, whose text) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN playhead_lock((SELECT session_id FROM tasks WHERE id = wanted), everyones, whose)
       AND playhead_cancel_operation(wanted, 'cancelled by owner');
END
$$;

-- Take a message about how far an operation is. The answer is unknown, refused (it names another task), conflicting (the
-- operation has ended) or noted. A delivery of a name that was there is noted once. Its log is told once a second at most.
CREATE FUNCTION playhead_progress(
    wanted uuid, everyones boolean, whose text, of_tool text, named_task text, said json,
    came_by text, sent_by text, called text
) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    known operations := playhead_lock_operation(wanted, everyones, whose, of_tool);
BEGIN
    IF known.id IS NULL THEN
        RETURN 'unknown';
    ELSIF named_task IS NOT NULL AND named_task <> known.task_id::text THEN
        RETURN 'refused';
    ELSIF known.status <> 'pending' THEN
        RETURN 'conflicting';
    END IF;
    IF called IS NOT NULL THEN
        DELETE FROM completions c
        WHERE c.operation_id = wanted AND c.disposition = 'progress' AND c.at < now() - interval '10 minutes';
        INSERT INTO completions (operation_id, door, by, delivery, disposition, status)
        VALUES (wanted, came_by, sent_by, called, 'progress', 'pending')
        ON CONFLICT (operation_id, delivery) WHERE delivery IS NOT NULL DO NOTHING;
        IF NOT FOUND THEN
            RETURN 'noted';
        END IF;
    END IF;
    UPDATE operations o SET progress = said, progress_number = o.progress_number + 1 WHERE o.id = wanted;
    UPDATE tasks t SET tell_at = coalesce(t.tell_at, greatest(now(), t.told_at + interval '1 second'))
    WHERE t.id = known.task_id AND t.status = 'waiting';
    RETURN 'noted';
END
$$;

-- A follow-up failed, and is tried again later, by its holder alone: until then its conversation is free, and the next
-- turn begins, where the mailbox has a message. The session is locked first, then the lease.
CREATE FUNCTION playhead_postpone(
    postponed uuid, holder bigint, seconds double precision, why text, OUT was_held boolean, OUT next_task text
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    conversation text;
BEGIN
    SELECT s.id INTO conversation
    FROM sessions s JOIN tasks t ON t.session_id = s.id WHERE t.id = postponed FOR UPDATE OF s;
    UPDATE leases l SET lease_until = '-infinity', lost_attempts = 0 WHERE l.task_id = postponed AND l.epoch = holder;
    IF FOUND THEN
        UPDATE tasks t SET status = 'queued', due_at = now() + make_interval(secs => seconds), started_at = NULL,
                           failed_tries = t.failed_tries + 1, error_type = why
        WHERE t.id = postponed AND t.status = 'running';
    END IF;
    was_held := FOUND;
    IF was_held THEN
        next_task := playhead_begin_next_turn(conversation);
    END IF;
END
$$;

-- The end of a task and all that hangs on it, by its holder alone: the status, what its log is owed, the assistant's
-- message or the return of the input, in whose place what was set aside for it is said again, the end of the operations
-- that a cancelled one has begun, and the next turn, where the mailbox has a message. The session is locked first, then
-- the lease. What ends without having been run has started when it finished.
CREATE FUNCTION playhead_end(
    ending_task uuid, holder bigint, how text, owed json, used json, why text, ended_at timestamptz, said json, bounced boolean,
    OUT has_ended boolean, OUT next_task text
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    ended record;
BEGIN
    PERFORM FROM sessions s JOIN tasks t ON t.session_id = s.id WHERE t.id = ending_task FOR UPDATE OF s;
    PERFORM FROM leases l WHERE l.task_id = ending_task AND l.epoch = holder FOR UPDATE;
    has_ended := FOUND;
    IF NOT has_ended THEN
        RETURN;
    END IF;
    UPDATE tasks t SET status = how, ending = owed, usage = used, error_type = why, finished_at = ended_at,
                       started_at = coalesce(t.started_at, ended_at), tell_at = NULL
    WHERE t.id = ending_task AND t.status IN ('queued', 'waiting', 'running')
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
    IF how = 'cancelled' THEN
        PERFORM playhead_cancel_operation(o.task_id, 'cancelled with its turn')
        FROM operations o WHERE o.turn_id = ending_task AND o.status = 'pending';
    END IF;
    next_task := playhead_begin_next_turn(ended.session_id);
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
        UPDATE operations SET owner = given WHERE session_id = conversation;
    END IF;
    UPDATE sessions SET settings = jsonb_strip_nulls(settings || patch) WHERE id = conversation;
    RETURN 'changed';
END
$$;

-- Delete a conversation: nobody finds it any more, its mailbox is empty, what it waited for has ended, and what is open of
-- it is to be cancelled, which is the answer. Null where it is unknown.
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
    PERFORM playhead_cancel_operation(o.task_id, 'session deleted')
    FROM operations o WHERE o.session_id = conversation AND o.status = 'pending';
    WITH cancelled AS (
        UPDATE tasks SET cancel_requested_at = coalesce(cancel_requested_at, now())
        WHERE session_id = conversation AND status IN ('queued', 'waiting', 'running')
        RETURNING id
    )
    SELECT coalesce(array_agg(id::text), '{}') INTO open_tasks FROM cancelled;
    RETURN open_tasks;
END
$$;

-- Remove a deleted conversation for good, with all that is archived of it; of its operations there is only left that they
-- were, and how they ended; false while a log of it is not closed. Its
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
    DELETE FROM completions WHERE operation_id IN (SELECT id FROM operations WHERE session_id = conversation);
    UPDATE operations SET arguments = NULL, outcome = NULL, progress = NULL, key = NULL WHERE session_id = conversation;
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

INSERT INTO schema_version (version) VALUES (7);
