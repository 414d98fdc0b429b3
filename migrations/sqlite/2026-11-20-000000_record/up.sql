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
    device_id        TEXT    NOT NULL REFERENCES devices (device_id),
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
-- History, newest end first: of all, and of one device.
CREATE INDEX session_records_by_end ON session_records (end_time, session_id) WHERE end_time IS NOT NULL;
CREATE INDEX session_records_by_device ON session_records (device_id, end_time, session_id) WHERE end_time IS NOT NULL;
-- A session leaves with the event of its end.
CREATE INDEX session_records_by_end_seq ON session_records (end_seq) WHERE end_seq IS NOT NULL;

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

-- Each of these ends with the rowid, which is `seq`: one device's or session's events come out in order.
CREATE INDEX events_by_device ON events (device_id);
CREATE INDEX events_by_session ON events (session_id);

-- One row. The last `seq` used outlives the event that had it, so that retention never makes a number come twice.
CREATE TABLE log_head (
    id         INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    newest     INTEGER NOT NULL,
    -- When a write was last tried for the sake of trying.
    checked_at INTEGER NOT NULL
) STRICT;

INSERT INTO log_head (id, newest, checked_at) VALUES (1, 0, 0);
