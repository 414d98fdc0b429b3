-- The record of sessions and the event log, shared by all nodes of an installation.
--
-- Times are microseconds since the Unix epoch, as in the SQLite file. Names are compared byte by byte (COLLATE "C"),
-- so that a name's beginning is a range of an index whatever language the server speaks.
--
-- Whoever writes an event holds the row of `log_head` until its transaction ends: so `seq` is the order of commits,
-- without gaps, and whoever has read up to `newest` has missed nothing. Each such writing is one function below,
-- called as a statement of its own: a client that stands still holds no lock. The functions count on READ COMMITTED,
-- where each statement inside them sees what was committed before the lock was had.

CREATE TABLE nodes (
    node_id     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    -- The run that may write; a session that is active under any other is lost.
    incarnation UUID   NOT NULL,
    started_at  BIGINT NOT NULL,
    -- Names its data directory.
    home        UUID,
    -- 'live', 'lost' (declared by a peer), 'reaped' (and nothing of it is active any more), 'stopped' (in good order).
    state       TEXT COLLATE "C" NOT NULL DEFAULT 'live',
    -- Counts signs of life, so that peers need not compare clocks.
    renewals    BIGINT NOT NULL DEFAULT 0,
    renewed_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- Of a lost node: the one that ends its sessions.
    reaper      TEXT COLLATE "C"
) WITH (fillfactor = 50);

-- Rows stay for good: a device that returns after years goes on counting.
CREATE TABLE devices (
    device_id   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    device_type TEXT COLLATE "C" NOT NULL,
    -- The last number used.
    device_seq  BIGINT NOT NULL
) WITH (fillfactor = 80);

CREATE TABLE session_records (
    session_id       UUID NOT NULL PRIMARY KEY,
    device_id        TEXT COLLATE "C" NOT NULL,
    device_type      TEXT COLLATE "C" NOT NULL,
    node_id          TEXT COLLATE "C" NOT NULL,
    incarnation      UUID   NOT NULL,
    -- 'active' or 'closed'.
    status           TEXT COLLATE "C" NOT NULL,
    start_time       BIGINT NOT NULL,
    end_time         BIGINT,
    reason           TEXT COLLATE "C",
    start_device_seq BIGINT NOT NULL,
    -- The event of its start.
    start_seq        BIGINT NOT NULL,
    -- The event of its end, which holds the rest of what is known.
    end_seq          BIGINT,
    last_pong_at     BIGINT,
    last_active_at   BIGINT NOT NULL,
    reconnect_count  BIGINT NOT NULL,
    remote_addr      TEXT   NOT NULL,
    -- A JSON object of strings.
    meta             TEXT   NOT NULL,
    trace_id         TEXT
);

CREATE INDEX session_records_by_status ON session_records (status, start_time, end_time);
CREATE INDEX session_records_active ON session_records (session_id, status) WHERE status = 'active';
-- Who is there: the sessions that a newcomer meets, and a device's presence. Asked for as those without an end, in
-- words that no other index answers to: where nothing was active when the planner looked, all indexes of what is
-- active are empty and alike to it, and reading another one through for every newcomer takes minutes once it is not.
CREATE INDEX session_records_active_by_device ON session_records (device_id) WHERE end_seq IS NULL;
-- What a node holds, and what it leaves behind; ids of sessions are in the order of their starts.
CREATE INDEX session_records_active_by_node ON session_records (node_id, session_id) WHERE status = 'active';
-- One device's history. With the order of ends, so that a page of it is read and no more.
CREATE INDEX session_records_by_device ON session_records (device_id, end_seq) WHERE end_seq IS NOT NULL;
-- History in the order in which the ends came on the record. A session also leaves by it, with the event of its end.
CREATE INDEX session_records_by_end_seq ON session_records (end_seq) WHERE end_seq IS NOT NULL;

-- When the sessions of a run were last heard, some hundreds to a page, rewritten every few seconds: so that a
-- session lost with its node still says it. `heard` holds 32 bytes a session: its id, and microseconds (big-endian)
-- of its last pong, or zero, and of its last sign of life.
CREATE TABLE last_heard (
    incarnation UUID   NOT NULL,
    page        BIGINT NOT NULL,
    node_id     TEXT COLLATE "C" NOT NULL,
    heard       BYTEA  NOT NULL,
    PRIMARY KEY (incarnation, page)
) WITH (fillfactor = 50);

CREATE INDEX last_heard_by_node ON last_heard (node_id);

CREATE TABLE events (
    seq         BIGINT NOT NULL PRIMARY KEY,
    device_seq  BIGINT,
    id          UUID   NOT NULL,
    kind        TEXT COLLATE "C" NOT NULL,
    time        BIGINT NOT NULL,
    -- The node that says so.
    node_id     TEXT COLLATE "C" NOT NULL,
    device_id   TEXT COLLATE "C",
    device_type TEXT COLLATE "C",
    session_id  UUID,
    reason      TEXT COLLATE "C",
    -- A JSON object without `seq` and `device_seq`.
    data        TEXT   NOT NULL
);

CREATE INDEX events_by_device ON events (device_id, seq);

-- One row. The last `seq` used outlives the event that had it, so that retention never makes a number come twice.
-- It is updated with every commit: room for many versions keeps that within its page.
CREATE TABLE log_head (
    id         INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    newest     BIGINT  NOT NULL,
    -- When a write was last tried for the sake of trying.
    checked_at BIGINT  NOT NULL
) WITH (fillfactor = 10);

INSERT INTO log_head (id, newest, checked_at) VALUES (1, 0, 0);

-- Who may log in.
CREATE TABLE users (
    name       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    -- 'admin' or 'reader'.
    role       TEXT COLLATE "C" NOT NULL,
    -- As a PHC string, which says how it was hashed.
    password   TEXT   NOT NULL,
    -- New with each password. Logins hang on it: they end with the password, and with the user.
    credential UUID   NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
);

CREATE TABLE logins (
    -- The SHA-256 of the token that proves it, which is kept nowhere.
    token      BYTEA  NOT NULL PRIMARY KEY,
    credential UUID   NOT NULL,
    -- 'cookie' or 'bearer': how the token has to come.
    kind       TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    -- Not at every use: see the code.
    used_at    BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
) WITH (fillfactor = 50);

CREATE INDEX logins_by_credential ON logins (credential, created_at);
CREATE INDEX logins_by_end ON logins (expires_at);

-- Whether a run may write no more: another run of its node began, or a peer declared it lost.
CREATE FUNCTION lastpong_fenced(of_node TEXT, run UUID) RETURNS BOOLEAN LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM nodes n
        WHERE n.node_id = of_node AND (n.incarnation <> run OR n.state IN ('lost', 'reaped'))
    )
$$;

-- Makes a run its node's. Under the lock, so that what an earlier run was just committing is there to be recovered.
-- Says whether the node was known.
CREATE FUNCTION lastpong_begin(of_node TEXT, run UUID, at BIGINT, of_home UUID) RETURNS BOOLEAN LANGUAGE plpgsql AS $$
DECLARE
    known BOOLEAN;
BEGIN
    PERFORM FROM log_head WHERE id = 1 FOR UPDATE;
    known := EXISTS (SELECT FROM nodes n WHERE n.node_id = of_node);
    INSERT INTO nodes AS n (node_id, incarnation, started_at, home) VALUES (of_node, run, at, of_home)
    ON CONFLICT (node_id) DO UPDATE SET
        incarnation = run, started_at = at, home = of_home, state = 'live', reaper = NULL, renewed_at = now(),
        -- Begun twice is begun once: its peers go on counting.
        renewals = CASE WHEN n.incarnation = run THEN n.renewals + 1 ELSE 0 END;
    RETURN known;
END
$$;

-- Writes a batch of starts and ends, each array with one element for each of them, in their order; the record comes
-- out as if they had been done one after the other.
--
-- Where a start meets an active session of its device under another run, nothing is written, and the answer names the
-- first such start of each device (`newcomers`, counted from 1) with who is in its place: `occupants` on the record, or
-- `neighbours` started earlier in this batch. The caller settles it and asks again. A start that is `past` meets nobody.
--
-- Otherwise `seqs` has each write's number, 0 where it makes no event, and `device_seqs` its place in the device's
-- order, 0 where another end stands.
CREATE FUNCTION lastpong_commit(
    told_by TEXT, run UUID,
    is_end BOOLEAN[], past BOOLEAN[], event_ids UUID[], session_ids UUID[], device_ids TEXT[], device_types TEXT[],
    node_ids TEXT[], runs UUID[], times BIGINT[], datas TEXT[],
    remote_addrs TEXT[], metas TEXT[], trace_ids TEXT[],
    reasons TEXT[], last_pongs BIGINT[], last_actives BIGINT[], reconnects BIGINT[],
    OUT fenced BOOLEAN, OUT newcomers BIGINT[], OUT occupants UUID[], OUT neighbours BIGINT[],
    OUT seqs BIGINT[], OUT device_seqs BIGINT[]
) LANGUAGE plpgsql AS $$
DECLARE
    head BIGINT;
    -- By write: whether it makes an event, and the place of a start that was there before.
    counts BOOLEAN[];
    known BIGINT[];
    -- No session and no device comes twice; and yet a start meets somebody.
    apart BOOLEAN;
    meets BOOLEAN := false;
BEGIN
    newcomers := '{}'; occupants := '{}'; neighbours := '{}'; seqs := '{}'; device_seqs := '{}';
    SELECT l.newest INTO STRICT head FROM log_head l WHERE l.id = 1 FOR UPDATE;
    fenced := lastpong_fenced(told_by, run);
    IF fenced THEN
        RETURN;
    END IF;

    -- In most batches no write alters what another finds, and each is looked up by itself.
    SELECT count(DISTINCT w.session_id) = count(*) AND count(DISTINCT w.device_id COLLATE "C") = count(*) INTO apart
    FROM unnest(session_ids, device_ids) AS w (session_id, device_id);
    IF apart THEN
        SELECT array_agg(CASE WHEN q.counts THEN q.seq ELSE 0 END ORDER BY n), array_agg(CASE WHEN q.counts
            THEN q.newest + 1 WHEN q.is_end THEN 0 ELSE q.known END ORDER BY n), bool_or(q.meets)
        INTO seqs, device_seqs, meets
        FROM (
            SELECT p.*, head + count(*) FILTER (WHERE p.counts) OVER (ORDER BY n) AS seq,
                p.counts AND NOT p.is_end AND NOT p.past AND EXISTS (
                    SELECT FROM session_records o WHERE o.device_id = p.device_id AND o.end_seq IS NULL
                        AND (o.node_id, o.incarnation) IS DISTINCT FROM (p.node_id, p.run)
                ) AS meets
            FROM (
                SELECT w.*, r.start_device_seq AS known, coalesce(d.device_seq, 0) AS newest,
                    CASE WHEN w.is_end THEN r.status IS NOT DISTINCT FROM 'active' AND r.incarnation = w.run
                        ELSE r.session_id IS NULL END AS counts
                FROM unnest(is_end, past, session_ids, device_ids, node_ids, runs)
                    WITH ORDINALITY AS w (is_end, past, session_id, device_id, node_id, run, n)
                LEFT JOIN session_records r ON r.session_id = w.session_id
                LEFT JOIN devices d ON d.device_id = w.device_id
            ) p
        ) q;
    END IF;

    -- Otherwise they are gone through as if one came after the other, and where somebody is met, it is said who.
    IF NOT apart OR meets THEN
        seqs := '{}'; device_seqs := '{}';
        WITH asked AS (
            SELECT w.*, r.start_device_seq, r.session_id IS NOT NULL AS there,
                CASE WHEN r.status = 'active' THEN r.incarnation END AS active_run
            FROM unnest(is_end, past, session_ids, device_ids, node_ids, runs)
                WITH ORDINALITY AS w (is_end, past, session_id, device_id, node_id, run, n)
            LEFT JOIN session_records r ON r.session_id = w.session_id
        ), births AS (
            -- Its session's first start in this batch, where the session is new.
            SELECT *, CASE WHEN NOT there AND NOT first_value(a.is_end) OVER s THEN first_value(n) OVER s END AS born,
                coalesce(active_run, CASE WHEN NOT there AND NOT first_value(a.is_end) OVER s THEN first_value(a.run) OVER s END)
                    AS life_run
            FROM asked a
            WINDOW s AS (PARTITION BY a.session_id ORDER BY a.is_end, a.n)
        ), deaths AS (
            -- Its session's first end that applies.
            SELECT *, min(n) FILTER (WHERE b.is_end AND b.run = life_run AND n > coalesce(born, 0))
                OVER (PARTITION BY b.session_id) AS died
            FROM births b
        ), told AS MATERIALIZED (
            SELECT *, CASE WHEN d.is_end THEN n IS NOT DISTINCT FROM died ELSE n IS NOT DISTINCT FROM born END AS counts
            FROM deaths d
        ), lives AS (
            -- What is active at some time in this batch: from one write to another, by device.
            SELECT t.device_id, t.node_id, t.run, n AS since, coalesce(died, 9223372036854775807) AS till,
                NOT t.past AS asks, NULL::uuid AS occupant
            FROM told t WHERE t.counts AND NOT t.is_end
            UNION ALL
            SELECT r.device_id, r.node_id, r.incarnation, 0, 9223372036854775807, false, r.session_id
            FROM (SELECT DISTINCT t.device_id, t.node_id, t.run FROM told t WHERE t.counts AND NOT t.is_end AND NOT t.past) s
            JOIN session_records r ON r.device_id = s.device_id AND r.end_seq IS NULL
                AND (r.node_id, r.incarnation) IS DISTINCT FROM (s.node_id, s.run)
            UNION ALL
            -- An occupant whose end is in this batch is there until then.
            SELECT t.device_id, t.node_id, t.run, 0, n, false, t.session_id
            FROM told t WHERE t.counts AND t.is_end AND t.born IS NULL
        ), met AS (
            -- Few devices come here. Theirs are gathered into small arrays, for each to be looked through by itself.
            SELECT m.* FROM (
                SELECT l.device_id, array_agg(l.since) AS since, array_agg(l.till) AS till, array_agg(l.asks) AS asks,
                    array_agg(l.node_id || ' ' || l.run::text) AS who, array_agg(l.occupant) AS occupant
                FROM lives l GROUP BY l.device_id
                HAVING bool_or(l.asks) AND min(l.node_id || ' ' || l.run::text) <> max(l.node_id || ' ' || l.run::text)
            ) d CROSS JOIN LATERAL (
                SELECT x.since AS newcomer, y.occupant, y.since AS neighbour, min(x.since) OVER () AS first
                FROM unnest(d.since, d.asks, d.who) AS x (since, asks, who)
                JOIN unnest(d.since, d.till, d.who, d.occupant) AS y (since, till, who, occupant)
                    ON y.who <> x.who AND y.since < x.since AND y.till > x.since
                WHERE x.asks AND NOT EXISTS (
                    SELECT FROM unnest(d.till, d.occupant) AS z (till, occupant)
                    WHERE z.occupant = y.occupant AND z.till < x.since
                )
            ) m WHERE m.newcomer = m.first
        )
        SELECT a.counts, a.known, coalesce(b.newcomers, '{}'), coalesce(b.occupants, '{}'), coalesce(b.neighbours, '{}')
        INTO counts, known, newcomers, occupants, neighbours
        FROM (
            SELECT array_agg(t.counts ORDER BY n) AS counts, array_agg(t.start_device_seq ORDER BY n) AS known FROM told t
        ) a CROSS JOIN (
            SELECT array_agg(m.newcomer) AS newcomers, array_agg(m.occupant) AS occupants,
                array_agg(m.neighbour) AS neighbours FROM met m
        ) b;
        IF cardinality(newcomers) > 0 THEN
            RETURN;
        END IF;

        -- A start told twice has one place.
        SELECT array_agg(coalesce(p.seq, 0) ORDER BY n), array_agg(coalesce(p.device_seq, CASE WHEN NOT p.is_end THEN
                coalesce(p.known, p.twin) END, 0) ORDER BY n)
        INTO seqs, device_seqs
        FROM (
            SELECT *, max(q.device_seq) FILTER (WHERE NOT q.is_end) OVER (PARTITION BY q.session_id) AS twin
            FROM (
                SELECT w.*,
                    CASE WHEN w.counts THEN head + count(*) FILTER (WHERE w.counts) OVER (ORDER BY n) END AS seq,
                    CASE WHEN w.counts THEN coalesce(d.device_seq, 0)
                        + count(*) FILTER (WHERE w.counts) OVER (PARTITION BY w.device_id ORDER BY n) END AS device_seq
                FROM unnest(is_end, counts, known, session_ids, device_ids)
                    WITH ORDINALITY AS w (is_end, counts, known, session_id, device_id, n)
                LEFT JOIN devices d ON d.device_id = w.device_id
            ) q
        ) p;
    END IF;
    IF NOT 0 < ANY (seqs) THEN
        RETURN;
    END IF;

    INSERT INTO devices AS d (device_id, device_type, device_seq)
    SELECT DISTINCT ON (w.device_id) w.device_id, w.device_type, w.device_seq
    FROM unnest(device_ids, device_types, seqs, device_seqs) AS w (device_id, device_type, seq, device_seq)
    WHERE w.seq > 0 ORDER BY w.device_id, w.seq DESC
    ON CONFLICT (device_id) DO UPDATE SET device_type = excluded.device_type, device_seq = excluded.device_seq;

    INSERT INTO session_records (session_id, device_id, device_type, node_id, incarnation, status, start_time,
        start_device_seq, start_seq, last_active_at, reconnect_count, remote_addr, meta, trace_id)
    SELECT w.session_id, w.device_id, w.device_type, w.node_id, w.run, 'active', w.at, w.device_seq, w.seq, w.at, 0,
        w.remote_addr, w.meta, w.trace_id
    FROM unnest(is_end, seqs, device_seqs, session_ids, device_ids, device_types, node_ids, runs, times, remote_addrs,
            metas, trace_ids)
        AS w (is_end, seq, device_seq, session_id, device_id, device_type, node_id, run, at, remote_addr, meta, trace_id)
    WHERE w.seq > 0 AND NOT w.is_end;

    UPDATE session_records r SET status = 'closed', end_time = w.at, reason = w.reason, end_seq = w.seq,
        last_pong_at = w.last_pong, last_active_at = w.last_active, reconnect_count = w.reconnects
    FROM unnest(is_end, seqs, session_ids, times, reasons, last_pongs, last_actives, reconnects)
        AS w (is_end, seq, session_id, at, reason, last_pong, last_active, reconnects)
    WHERE r.session_id = w.session_id AND w.seq > 0 AND w.is_end;

    INSERT INTO events (seq, device_seq, id, kind, time, node_id, device_id, device_type, session_id, reason, data)
    SELECT w.seq, w.device_seq, w.id,
        CASE WHEN w.is_end THEN 'lastpong.session.disconnected.v1' ELSE 'lastpong.session.connected.v1' END,
        w.at, told_by, w.device_id, w.device_type, w.session_id, w.reason, w.data
    FROM unnest(is_end, seqs, device_seqs, event_ids, times, device_ids, device_types, session_ids, reasons, datas)
        AS w (is_end, seq, device_seq, id, at, device_id, device_type, session_id, reason, data)
    WHERE w.seq > 0;

    SELECT max(w.seq) INTO head FROM unnest(seqs) AS w (seq);
    UPDATE log_head l SET newest = head WHERE l.id = 1;
    PERFORM pg_notify('lastpong_log', head::text);
END
$$;

-- A sign of life. Answers `live`; `fenced`; `taken` where another process is live in the node's name; or `unknown`
-- where the run never began, or has stopped.
CREATE FUNCTION lastpong_renew(of_node TEXT, run UUID) RETURNS TEXT LANGUAGE plpgsql AS $$
BEGIN
    UPDATE nodes n SET renewals = n.renewals + 1, renewed_at = now()
    WHERE n.node_id = of_node AND n.incarnation = run AND n.state = 'live';
    IF FOUND THEN
        RETURN 'live';
    END IF;
    RETURN coalesce((
        SELECT CASE
            WHEN n.incarnation = run AND n.state = 'stopped' THEN 'unknown'
            WHEN n.incarnation <> run AND n.state = 'live' THEN 'taken'
            ELSE 'fenced'
        END
        FROM nodes n WHERE n.node_id = of_node
    ), 'unknown');
END
$$;

-- Declares a run lost that has not renewed since it was seen at `seen`, unless whoever says so is itself fenced. The
-- answer is the number of the event, or NULL where it is no longer so.
CREATE FUNCTION lastpong_declare_lost(
    told_by TEXT, run UUID, lost_node TEXT, lost_run UUID, seen BIGINT, event_id UUID, at BIGINT,
    OUT fenced BOOLEAN, OUT seq BIGINT, OUT data TEXT
) LANGUAGE plpgsql AS $$
DECLARE
    head BIGINT;
    held BIGINT;
BEGIN
    -- Before the lock, for it may take a while.
    SELECT count(*) INTO held FROM session_records r
    WHERE r.status = 'active' AND r.node_id = lost_node AND r.incarnation = lost_run;
    SELECT l.newest INTO STRICT head FROM log_head l WHERE l.id = 1 FOR UPDATE;
    fenced := lastpong_fenced(told_by, run);
    IF fenced THEN
        RETURN;
    END IF;
    UPDATE nodes n SET state = 'lost', reaper = told_by
    WHERE n.node_id = lost_node AND n.incarnation = lost_run AND n.renewals = seen AND n.state = 'live';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    seq := head + 1;
    data := json_build_object('node_id', lost_node, 'incarnation', lost_run, 'declared_by', told_by, 'sessions', held, 'renewals', seen)::text;
    INSERT INTO events (seq, id, kind, time, node_id, data)
    VALUES (lastpong_declare_lost.seq, event_id, 'lastpong.node.lost.v1', at, told_by, lastpong_declare_lost.data);
    UPDATE log_head l SET newest = lastpong_declare_lost.seq WHERE l.id = 1;
    PERFORM pg_notify('lastpong_log', seq::text);
END
$$;

-- Makes a live node the reaper of a lost one whose reaper is not alive, or is itself. Says whether it is to reap.
CREATE FUNCTION lastpong_adopt(told_by TEXT, run UUID, lost_node TEXT) RETURNS BOOLEAN LANGUAGE plpgsql AS $$
BEGIN
    UPDATE nodes n SET reaper = told_by
    WHERE n.node_id = lost_node AND n.state = 'lost'
        AND (n.reaper = told_by OR NOT EXISTS (SELECT FROM nodes r WHERE r.node_id = n.reaper AND r.state = 'live'))
        AND EXISTS (SELECT FROM nodes o WHERE o.node_id = told_by AND o.incarnation = run AND o.state = 'live');
    RETURN FOUND;
END
$$;

-- Deletes up to `batch` events from the log's old end as far as every one is older: where a clock once ran ahead, its
-- events are kept until their time comes, and those after them too, rather than leave a hole. One node at a time; the
-- others find nothing to do.
CREATE FUNCTION lastpong_expire(older_than BIGINT, batch BIGINT) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
    last BIGINT;
    gone BIGINT;
BEGIN
    -- 'last' as a number: the key of this program's locks.
    IF NOT pg_try_advisory_xact_lock(1818325876, 2) THEN
        RETURN 0;
    END IF;
    SELECT max(o.seq) INTO last FROM (
        SELECT e.seq, bool_and(e.time < older_than) OVER (ORDER BY e.seq) AS old
        FROM (SELECT seq, time FROM events ORDER BY seq LIMIT batch) e
    ) o WHERE o.old;
    IF last IS NULL THEN
        RETURN 0;
    END IF;
    DELETE FROM events e WHERE e.seq <= last;
    GET DIAGNOSTICS gone = ROW_COUNT;
    -- The end is the last event of its session, so that none of those is left.
    DELETE FROM session_records r WHERE r.end_seq <= last;
    DELETE FROM nodes n WHERE n.state IN ('stopped', 'reaped') AND n.renewed_at < now() - interval '30 days';
    RETURN gone;
END
$$;
