-- The revoked tokens as the store last told them: what a node goes by that starts while the store is away.
CREATE TABLE known_revocations (
    -- The id of the revocation.
    id         TEXT NOT NULL PRIMARY KEY,
    -- A JSON object.
    revocation TEXT NOT NULL
) STRICT, WITHOUT ROWID;
