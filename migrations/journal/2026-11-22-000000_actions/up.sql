-- What operators did, as far as this node has to know it while the SQL store is away.

-- The bans as the store last told them: what a node goes by that starts while the store is away.
CREATE TABLE known_bans (
    -- The device or the network.
    target TEXT NOT NULL PRIMARY KEY,
    -- A JSON object.
    ban    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Entries of the audit that the store does not have yet.
CREATE TABLE audit_waiting (
    id    TEXT NOT NULL PRIMARY KEY,
    -- A JSON object.
    entry TEXT NOT NULL
) STRICT, WITHOUT ROWID;
