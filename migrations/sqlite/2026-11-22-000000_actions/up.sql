-- What operators do: bans, and who did what.

-- Who may not come in: a device or a network, one of the two. One row each, also while it is lifted; a ban given anew
-- takes the row of the one before, with an id of its own.
CREATE TABLE bans (
    id          TEXT    NOT NULL PRIMARY KEY,
    device_id   TEXT    UNIQUE,
    -- In CIDR notation, without bits beyond its length.
    remote_addr TEXT    UNIQUE,
    reason      TEXT,
    -- Who banned it, as in `audit.actor`.
    banned_by   TEXT    NOT NULL,
    banned_at   INTEGER NOT NULL,
    -- NULL is for good.
    until       INTEGER,
    -- Since when it holds no more. Such rows stay for a while, so that who follows the changes learns of it.
    lifted_at   INTEGER,
    -- The change that made the row as it is.
    rev         INTEGER NOT NULL,
    CHECK ((device_id IS NULL) <> (remote_addr IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX bans_by_rev ON bans (rev);
CREATE INDEX bans_by_end ON bans (until) WHERE until IS NOT NULL;
CREATE INDEX bans_by_lift ON bans (lifted_at) WHERE lifted_at IS NOT NULL;

-- One row: the last `rev` used. It outlives the row that had it.
CREATE TABLE ban_head (
    id     INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    newest INTEGER NOT NULL
) STRICT;

INSERT INTO ban_head (id, newest) VALUES (1, 0);

CREATE TABLE audit (
    -- A UUIDv7: in the order of time.
    id          TEXT    NOT NULL PRIMARY KEY,
    at          INTEGER NOT NULL,
    -- A user's name, 'admin token' or 'command line'.
    actor       TEXT    NOT NULL,
    -- From where; NULL for the command line.
    remote_addr TEXT,
    action      TEXT    NOT NULL,
    -- To what it was done.
    target      TEXT    NOT NULL,
    detail      TEXT,
    -- The node that was asked.
    node_id     TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX audit_by_time ON audit (at);
