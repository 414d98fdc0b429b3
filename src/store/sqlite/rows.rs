//! Between rows and what they mean. What a row says was written by this program; where it cannot be read all the
//! same, the answer is an error that names the column, not a panic and not a guess.

use diesel::prelude::*;
use diesel::sqlite::Sqlite;

use crate::event::{EventKind, EventRow};
use crate::ids::NodeId;
use crate::reason::Reason;
use crate::store::filter::Traits;
use crate::store::schema::{events, session_records};
use crate::store::{SessionRecord, Status, StoreError};
use crate::time::Timestamp;

pub(super) const ACTIVE: &str = "active";
pub(super) const CLOSED: &str = "closed";

/// An event as its row says.
#[derive(Queryable, Selectable)]
#[diesel(table_name = events, check_for_backend(Sqlite))]
pub(super) struct LogRow {
    pub seq: i64,
    device_seq: Option<i64>,
    id: String,
    kind: String,
    time: i64,
    node_id: String,
    device_id: Option<String>,
    device_type: Option<String>,
    session_id: Option<String>,
    reason: Option<String>,
    data: String,
}

impl LogRow {
    pub(super) fn traits(&self) -> Traits<'_> {
        Traits {
            kind: &self.kind,
            device_id: self.device_id.as_deref(),
            device_type: self.device_type.as_deref(),
            reason: self.reason.as_deref(),
            session_id: self.session_id.as_deref().and_then(|id| id.parse().ok()),
        }
    }
}

impl TryFrom<LogRow> for EventRow {
    type Error = StoreError;

    fn try_from(row: LogRow) -> Result<Self, StoreError> {
        Ok(EventRow {
            seq: row.seq,
            device_seq: row.device_seq,
            id: word("events", "id", &row.id)?,
            kind: EventKind::parse(&row.kind)
                .ok_or_else(|| StoreError::bad_row("events", "kind", &row.kind))?,
            time: Timestamp(row.time),
            node_id: word("events", "node_id", &row.node_id)?,
            device_id: optional("events", "device_id", row.device_id.as_deref())?,
            device_type: optional("events", "device_type", row.device_type.as_deref())?,
            session_id: optional("events", "session_id", row.session_id.as_deref())?,
            reason: optional("events", "reason", row.reason.as_deref())?,
            data: row.data,
        })
    }
}

/// A session's row, as far as its readers are told.
#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = session_records, check_for_backend(Sqlite))]
pub(super) struct SessionRow {
    session_id: String,
    device_id: String,
    device_type: String,
    node_id: String,
    incarnation: String,
    status: String,
    start_time: i64,
    end_time: Option<i64>,
    reason: Option<String>,
    pub end_seq: Option<i64>,
}

impl SessionRow {
    pub(super) fn into_record(self, end: Option<String>) -> Result<SessionRecord, StoreError> {
        const TABLE: &str = "session_records";
        Ok(SessionRecord {
            session_id: word(TABLE, "session_id", &self.session_id)?,
            device_id: word(TABLE, "device_id", &self.device_id)?,
            device_type: word(TABLE, "device_type", &self.device_type)?,
            node_id: word(TABLE, "node_id", &self.node_id)?,
            incarnation: word(TABLE, "incarnation", &self.incarnation)?,
            status: match self.status.as_str() {
                ACTIVE => Status::Active,
                CLOSED => Status::Closed,
                other => return Err(StoreError::bad_row(TABLE, "status", other)),
            },
            start_time: Timestamp(self.start_time),
            end_time: self.end_time.map(Timestamp),
            end_seq: self.end_seq,
            reason: optional(TABLE, "reason", self.reason.as_deref())?,
            end,
        })
    }
}

/// What an active session's row knows for its end record, where nobody else can say any more.
#[derive(Queryable, Selectable)]
#[diesel(table_name = session_records, check_for_backend(Sqlite))]
pub(super) struct LostRow {
    pub session_id: String,
    device_id: String,
    device_type: String,
    node_id: String,
    pub incarnation: String,
    start_time: i64,
    pub last_pong_at: Option<i64>,
    pub last_active_at: i64,
    reconnect_count: i64,
    remote_addr: String,
    meta: String,
    trace_id: Option<String>,
}

impl LostRow {
    /// Its end by the death of its node, found at `detected`. The wall clock may have been set back meanwhile: no
    /// duration is below zero.
    pub(super) fn into_end(self, detected: Timestamp) -> Result<crate::event::Disconnected, StoreError> {
        use crate::event::{Disconnected, RttMs};
        const TABLE: &str = "session_records";
        // In order even where the wall clock was set back between the runs.
        let detected = detected.max(Timestamp(self.last_active_at.max(self.start_time)));
        let millis_since = |then: i64| detected.0.saturating_sub(then).max(0) as f64 / 1000.0;
        Ok(Disconnected {
            device_id: word(TABLE, "device_id", &self.device_id)?,
            device_type: word(TABLE, "device_type", &self.device_type)?,
            session_id: word(TABLE, "session_id", &self.session_id)?,
            node_id: word::<NodeId>(TABLE, "node_id", &self.node_id)?,
            incarnation: word(TABLE, "incarnation", &self.incarnation)?,
            reason: Reason::NodeLost,
            initiator: Reason::NodeLost.initiator(),
            detected_by: crate::reason::DetectedBy::Recovery,
            close_code: None,
            connected_at: Timestamp(self.start_time),
            last_pong_at: self.last_pong_at.map(Timestamp),
            last_active_at: Timestamp(self.last_active_at),
            disconnected_at: detected,
            detection_ms: millis_since(self.last_active_at),
            duration_ms: millis_since(self.start_time),
            rtt_ms: RttMs::default(),
            pings_sent: None,
            pongs_received: None,
            reconnect_count: u32::try_from(self.reconnect_count).unwrap_or(u32::MAX),
            remote_addr: word(TABLE, "remote_addr", &self.remote_addr)?,
            meta: serde_json::from_str(&self.meta)
                .map_err(|_| StoreError::bad_row(TABLE, "meta", &self.meta))?,
            trace_id: self.trace_id,
        })
    }
}

pub(super) fn word<T: std::str::FromStr>(table: &str, column: &str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::bad_row(table, column, text))
}

fn optional<T: std::str::FromStr>(
    table: &str,
    column: &str,
    text: Option<&str>,
) -> Result<Option<T>, StoreError> {
    text.map(|text| word(table, column, text)).transpose()
}
