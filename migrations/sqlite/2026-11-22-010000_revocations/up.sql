-- Tokens that are good no more, although they have not expired: one by its id, or all of a device up to a moment.

-- One row for each; one given anew takes the row of the one before, with an id of its own.
CREATE TABLE revocations (
    id         TEXT    NOT NULL PRIMARY KEY,
    jti        TEXT    UNIQUE,
    -- Whatever tokens of it were issued up to `revoked_at`.
    device_id  TEXT    UNIQUE,
    reason     TEXT,
    -- Who revoked it, as in `audit.actor`.
    revoked_by TEXT    NOT NULL,
    revoked_at INTEGER NOT NULL,
    -- When the tokens have expired in any case, and the row may be forgotten; NULL is never.
    until      INTEGER,
    -- The change that made the row as it is.
    rev        INTEGER NOT NULL,
    CHECK ((jti IS NULL) <> (device_id IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX revocations_by_rev ON revocations (rev);
CREATE INDEX revocations_by_end ON revocations (until) WHERE until IS NOT NULL;

-- One row: the last `rev` used. It outlives the row that had it.
CREATE TABLE revocation_head (
    id     INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    newest INTEGER NOT NULL
) STRICT;

INSERT INTO revocation_head (id, newest) VALUES (1, 0);
