//! The statements that lastpong is measured by, and the rows that they are given.

use bytes::Bytes;
use lastpong::ids::NodeId;
use lastpong::store::End;
use uuid::Uuid;

/// The events, an array for each column that is not the same for all.
#[derive(Default)]
pub struct Rows {
    pub seqs: Vec<i64>,
    pub ids: Vec<Uuid>,
    pub times: Vec<i64>,
    pub device_ids: Vec<String>,
    pub device_types: Vec<String>,
    pub session_ids: Vec<Uuid>,
    pub reasons: Vec<&'static str>,
    pub datas: Vec<String>,
}

impl Rows {
    pub fn of(ends: &[End], newest: i64) -> anyhow::Result<Self> {
        let mut rows = Rows { seqs: (newest + 1..).take(ends.len()).collect(), ..Rows::default() };
        for End { event_id, data } in ends {
            rows.ids.push(event_id.0);
            rows.times.push(data.disconnected_at.0);
            rows.device_ids.push(data.device_id.to_string());
            rows.device_types.push(data.device_type.to_string());
            rows.session_ids.push(data.session_id.0);
            rows.reasons.push(data.reason.as_str());
            rows.datas.push(serde_json::to_string(&**data)?);
        }
        Ok(rows)
    }

    /// As `COPY` reads them.
    pub fn text(&self, node: &NodeId) -> Bytes {
        let mut text = String::new();
        for n in 0..self.ids.len() {
            let data = self.datas[n].replace('\\', r"\\");
            text += &format!(
                "{}\t{}\t{}\tlastpong.session.disconnected.v1\t{}\t{node}\t{}\t{}\t{}\t{}\t{data}\n",
                self.seqs[n],
                2,
                self.ids[n],
                self.times[n],
                self.device_ids[n],
                self.device_types[n],
                self.session_ids[n],
                self.reasons[n],
            );
        }
        text.into()
    }
}

/// As the store sets up its connections, but for the deadlines.
pub const TABLES: &str = "
    CREATE TABLE inserted (LIKE events INCLUDING ALL);
    CREATE TABLE copied (LIKE events INCLUDING ALL);
    SET jit = off; SET enable_seqscan = off;
";

/// The record of the ends, where every session is known to be active and every device to be there.
pub const BY_HAND: &str = "
    WITH head AS (
        UPDATE log_head SET newest = newest + $10 WHERE id = 1 RETURNING newest - $10 AS before
    ), ends AS (
        SELECT * FROM unnest($1::uuid[], $2::bigint[], $4::text[], $5::text[], $6::uuid[], $7::text[], $8::text[])
            WITH ORDINALITY AS w (id, at, device_id, device_type, session_id, reason, data, n)
    ), numbers AS (
        UPDATE devices d SET device_seq = d.device_seq + 1, device_type = e.device_type
        FROM ends e WHERE d.device_id = e.device_id RETURNING d.device_id, d.device_seq
    ), closed AS (
        UPDATE session_records r SET status = 'closed', end_time = e.at, reason = e.reason,
            end_seq = head.before + e.n, last_pong_at = e.at, last_active_at = e.at, reconnect_count = 2
        FROM ends e, head WHERE r.session_id = e.session_id AND r.status = 'active' AND r.incarnation = $9
    )
    INSERT INTO events (seq, device_seq, id, kind, time, node_id, device_id, device_type, session_id, reason, data)
    SELECT head.before + e.n, d.device_seq, e.id, 'lastpong.session.disconnected.v1', e.at, $3, e.device_id,
        e.device_type, e.session_id, e.reason, e.data
    FROM head, ends e JOIN numbers d ON d.device_id = e.device_id
";

pub const INSERT: &str = "
    INSERT INTO inserted (seq, device_seq, id, kind, time, node_id, device_id, device_type, session_id, reason, data)
    SELECT w.seq, 2, w.id, 'lastpong.session.disconnected.v1', w.at, $3, w.device_id, w.device_type, w.session_id,
        w.reason, w.data
    FROM unnest($1::uuid[], $2::bigint[], $4::text[], $5::text[], $6::uuid[], $7::text[], $8::text[], $9::bigint[])
        AS w (id, at, device_id, device_type, session_id, reason, data, seq)
";

pub const COPY: &str = "
    COPY copied (seq, device_seq, id, kind, time, node_id, device_id, device_type, session_id, reason, data) FROM STDIN
";
