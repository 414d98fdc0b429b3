-- Devices that come and go too often, told of in the transaction of the start that is one too many.

-- As `lastpong_commit`, which nodes of an earlier version still call; and then an event for each start with which its
-- device begins to flap: the `flap_count`th within `flap_window` microseconds, and the first such within a window.
-- `flaps` has the places of those starts in the batch, counted from 1, and what was told of each.
--
-- A device's earlier sessions are all closed when a new one starts, so their starts are found by their ends' index: in
-- most cases one row is looked for, and it is older than the window.
CREATE FUNCTION lastpong_commit_flapping(
    told_by TEXT, run UUID,
    is_end BOOLEAN[], past BOOLEAN[], event_ids UUID[], session_ids UUID[], device_ids TEXT[], device_types TEXT[],
    node_ids TEXT[], runs UUID[], times BIGINT[], datas TEXT[],
    remote_addrs TEXT[], metas TEXT[], trace_ids TEXT[],
    reasons TEXT[], last_pongs BIGINT[], last_actives BIGINT[], reconnects BIGINT[],
    flap_ids UUID[], flap_count BIGINT, flap_window BIGINT, flap_ban BIGINT,
    OUT fenced BOOLEAN, OUT newcomers BIGINT[], OUT occupants UUID[], OUT neighbours BIGINT[],
    OUT seqs BIGINT[], OUT device_seqs BIGINT[],
    OUT flaps BIGINT[], OUT flap_seqs BIGINT[], OUT flap_device_seqs BIGINT[], OUT flap_datas TEXT[]
) LANGUAGE plpgsql AS $$
DECLARE
    head BIGINT;
    number BIGINT;
    told TEXT;
    -- The start itself and those before it, the newest first.
    starts BIGINT[];
    w RECORD;
BEGIN
    flaps := '{}'; flap_seqs := '{}'; flap_device_seqs := '{}'; flap_datas := '{}';
    SELECT c.fenced, c.newcomers, c.occupants, c.neighbours, c.seqs, c.device_seqs
    INTO STRICT fenced, newcomers, occupants, neighbours, seqs, device_seqs
    FROM lastpong_commit(told_by, run, is_end, past, event_ids, session_ids, device_ids, device_types, node_ids, runs,
        times, datas, remote_addrs, metas, trace_ids, reasons, last_pongs, last_actives, reconnects) c;
    IF fenced OR NOT coalesce(0 < ANY (seqs), false) THEN
        RETURN;
    END IF;
    FOR w IN
        SELECT s.* FROM unnest(is_end, seqs, device_seqs, session_ids, device_ids, device_types, node_ids, times,
                remote_addrs, flap_ids)
            WITH ORDINALITY AS s (is_end, seq, device_seq, session_id, device_id, device_type, node_id, at, remote_addr,
                flap_id, n)
        CROSS JOIN LATERAL (
            SELECT r.start_time FROM session_records r
            WHERE r.device_id = s.device_id AND r.end_seq IS NOT NULL AND r.start_seq < s.seq
            ORDER BY r.end_seq DESC OFFSET flap_count - 2 LIMIT 1
        ) p
        WHERE NOT s.is_end AND s.seq > 0 AND s.device_seq > 2 * (flap_count - 1) AND s.at - p.start_time <= flap_window
        ORDER BY s.n
    LOOP
        SELECT w.at || coalesce(array_agg(o.start_time ORDER BY o.end_seq DESC), '{}') INTO starts FROM (
            SELECT r.start_time, r.end_seq FROM session_records r
            WHERE r.device_id = w.device_id AND r.end_seq IS NOT NULL AND r.start_seq < w.seq
            ORDER BY r.end_seq DESC LIMIT 2 * flap_count - 2
        ) o;
        CONTINUE WHEN EXISTS (
            SELECT FROM generate_series(2, flap_count) k
            WHERE starts[1] - starts[k] <= flap_window AND starts[k] - starts[k + flap_count - 1] <= flap_window
        );
        head := coalesce(head, (SELECT l.newest FROM log_head l WHERE l.id = 1)) + 1;
        UPDATE devices d SET device_seq = d.device_seq + 1 WHERE d.device_id = w.device_id
        RETURNING d.device_seq INTO STRICT number;
        told := json_build_object('device_id', w.device_id, 'device_type', w.device_type, 'session_id', w.session_id,
            'node_id', w.node_id, 'starts', flap_count, 'span_ms', (w.at - starts[flap_count]) / 1000,
            'window_ms', flap_window / 1000, 'ban_ms', flap_ban / 1000, 'remote_addr', w.remote_addr)::text;
        INSERT INTO events (seq, device_seq, id, kind, time, node_id, device_id, device_type, session_id, data)
        VALUES (head, number, w.flap_id, 'lastpong.device.flapping.v1', w.at, told_by, w.device_id, w.device_type,
            w.session_id, told);
        flaps := flaps || w.n; flap_seqs := flap_seqs || head;
        flap_device_seqs := flap_device_seqs || number; flap_datas := flap_datas || told;
    END LOOP;
    IF cardinality(flaps) > 0 THEN
        UPDATE log_head l SET newest = head WHERE l.id = 1;
        PERFORM pg_notify('lastpong_log', head::text);
    END IF;
END
$$;
