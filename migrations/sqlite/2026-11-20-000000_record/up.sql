-- The record of sessions and the event log.
--
-- Times are microseconds since the Unix epoch. Ids are UUIDs as text: the same words as in `events.data`, in the
-- logs and in every answer, so that a row found here can be looked for there; a UUIDv7 sorts as text as it does
-- as bytes. Sixteen bytes would save a tenth of the file and show nothing in the sqlite3 shell.

-- 'last', so that no other program's database is taken for this one.
PRAGMA application_id = 1818325876;

CREATE TABLE nodes (
    node_id     TEXT    NOT NULL PRIMARY KEY,
    -- The run that wrote last; sessions active under any other are lost.
    incarnation TEXT    NOT NULL,
    started_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Rows stay for good: a device that returns after years goes on counting.
CREATE TABLE devices (
    device_id   TEXT    NOT NULL PRIMARY KEY,
    device_type TEXT    NOT NULL,
    -- The last number used.
    device_seq  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE session_records (
    session_id       TEXT    NOT NULL PRIMARY KEY,
    device_id        TEXT    NOT NULL,
    device_type      TEXT    NOT NULL,
    node_id          TEXT    NOT NULL,
    incarnation      TEXT    NOT NULL,
    -- 'active' or 'closed'.
    status           TEXT    NOT NULL,
    start_time       INTEGER NOT NULL,
    end_time         INTEGER,
    reason           TEXT,
    start_device_seq INTEGER NOT NULL,
    -- The event of its end, which holds the rest of what is known.
    end_seq          INTEGER,
    last_pong_at     INTEGER,
    last_active_at   INTEGER NOT NULL,
    reconnect_count  INTEGER NOT NULL,
    remote_addr      TEXT    NOT NULL,
    -- A JSON object of strings.
    meta             TEXT    NOT NULL,
    trace_id         TEXT
) STRICT;

CREATE INDEX session_records_by_status ON session_records (status, start_time, end_time);
CREATE INDEX session_records_active ON session_records (session_id, status) WHERE status = 'active';
-- One device's sessions. Written at their starts only; what is kept by device need not move at each end.
CREATE INDEX session_records_by_device ON session_records (device_id);
-- History in the order in which the ends came on the record, to which every end adds at the index's own end. A
-- session also leaves by it, with the event of its end.
CREATE INDEX session_records_by_end_seq ON session_records (end_seq) WHERE end_seq IS NOT NULL;

-- When the sessions of a run were last heard, some hundreds to a page, rewritten every few seconds: so that a
-- session lost with its node still says it. A row a session would rewrite as many pages of the file as there are
-- sessions. `heard` holds 32 bytes a session: its id, and microseconds (big-endian) of its last pong, or zero, and
-- of its last sign of life.
CREATE TABLE last_heard (
    incarnation TEXT    NOT NULL,
    page        INTEGER NOT NULL,
    heard       BLOB    NOT NULL,
    PRIMARY KEY (incarnation, page)
) STRICT;

CREATE TABLE events (
    seq         INTEGER NOT NULL PRIMARY KEY,
    device_seq  INTEGER,
    id          TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    time        INTEGER NOT NULL,
    -- The node that says so.
    node_id     TEXT    NOT NULL,
    device_id   TEXT,
    device_type TEXT,
    session_id  TEXT,
    reason      TEXT,
    -- A JSON object without `seq` and `device_seq`.
    data        TEXT    NOT NULL
) STRICT;

-- It ends with the rowid, which is `seq`: one device's events come out in order, those of its sessions among them.
CREATE INDEX events_by_device ON events (device_id);

-- One row. The last `seq` used outlives the event that had it, so that retention never makes a number come twice.
CREATE TABLE log_head (
    id         INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    newest     INTEGER NOT NULL,
    -- When a write was last tried for the sake of trying.
    checked_at INTEGER NOT NULL
) STRICT;

-- Who may log in.
CREATE TABLE users (
    name       TEXT    NOT NULL PRIMARY KEY,
    -- 'admin' or 'reader'.
    role       TEXT    NOT NULL,
    -- As a PHC string, which says how it was hashed.
    password   TEXT    NOT NULL,
    -- New with each password. Logins hang on it: they end with the password, and with the user.
    credential TEXT    NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE logins (
    -- The SHA-256 of the token that proves it, which is kept nowhere.
    token      BLOB    NOT NULL PRIMARY KEY,
    credential TEXT    NOT NULL,
    -- 'cookie' or 'bearer': how the token has to come.
    kind       TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    -- Not at every use: see the code.
    used_at    INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX logins_by_credential ON logins (credential, created_at);
CREATE INDEX logins_by_end ON logins (expires_at);

INSERT INTO log_head (id, newest, checked_at) VALUES (1, 0, 0);
