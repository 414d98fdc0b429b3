-- What a node has made durable by itself while the SQL store was away, in the order in which it is to be moved there.

-- 'ljnl', so that neither the record nor another program's database is taken for a journal.
PRAGMA application_id = 1818914412;

CREATE TABLE entries (
    -- The order. A number is never used again, so that "up to this one" always means the same entries.
    id         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    -- 'begin', 'start' or 'end'.
    kind       TEXT    NOT NULL,
    -- Whose start or end it is.
    session_id TEXT,
    -- A JSON object.
    entry      TEXT    NOT NULL
) STRICT;

-- Whether a start's end is in the journal too.
CREATE INDEX entries_ends ON entries (session_id) WHERE kind = 'end';

-- One row.
CREATE TABLE folder (
    id         INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    -- A UUID that names this data folder; empty until the first opening makes it.
    home       TEXT    NOT NULL,
    -- The node whose entries these are; empty before the first.
    node_id    TEXT    NOT NULL,
    -- When a write was last tried for the sake of trying.
    checked_at INTEGER NOT NULL
) STRICT;

INSERT INTO folder (id, home, node_id, checked_at) VALUES (1, '', '', 0);
