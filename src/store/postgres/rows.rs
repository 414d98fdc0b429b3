//! Between rows and what they mean. What cannot be read is an error that names the column.

use diesel::pg::Pg;
use diesel::prelude::*;
use uuid::Uuid;

use super::schema::{events, session_records};
use crate::event::{Connected, Disconnected, EventKind, EventRow, Meta, RttMs};
use crate::ids::{DeviceId, DeviceType, EventId, Incarnation, NodeId, SessionId};
use crate::reason::{DetectedBy, Reason};
use crate::store::filter::Traits;
use crate::store::{HeldSession, SessionRecord, Status, StoreError};
use crate::time::Timestamp;

pub(super) const ACTIVE: &str = "active";
const CLOSED: &str = "closed";

/// An event as its row says.
#[derive(Queryable, Selectable)]
#[diesel(table_name = events, check_for_backend(Pg))]
pub(super) struct LogRow {
    pub seq: i64,
    device_seq: Option<i64>,
    id: Uuid,
    kind: String,
    time: i64,
    node_id: String,
    device_id: Option<String>,
    device_type: Option<String>,
    session_id: Option<Uuid>,
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
            session_id: self.session_id.map(SessionId),
        }
    }
}

impl TryFrom<LogRow> for EventRow {
    type Error = StoreError;

    fn try_from(row: LogRow) -> Result<Self, StoreError> {
        Ok(EventRow {
            seq: row.seq,
            device_seq: row.device_seq,
            id: EventId(row.id),
            kind: EventKind::parse(&row.kind)
                .ok_or_else(|| StoreError::bad_row("events", "kind", &row.kind))?,
            time: Timestamp(row.time),
            node_id: word("events", "node_id", &row.node_id)?,
            device_id: optional("events", "device_id", row.device_id.as_deref())?,
            device_type: optional("events", "device_type", row.device_type.as_deref())?,
            session_id: row.session_id.map(SessionId),
            reason: optional("events", "reason", row.reason.as_deref())?,
            data: row.data,
        })
    }
}

/// A session's row, as far as its readers are told.
#[derive(Queryable, Selectable)]
#[diesel(table_name = session_records, check_for_backend(Pg))]
pub(super) struct SessionRow {
    session_id: Uuid,
    device_id: String,
    device_type: String,
    node_id: String,
    incarnation: Uuid,
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
            session_id: SessionId(self.session_id),
            device_id: word(TABLE, "device_id", &self.device_id)?,
            device_type: word(TABLE, "device_type", &self.device_type)?,
            node_id: word(TABLE, "node_id", &self.node_id)?,
            incarnation: Incarnation(self.incarnation),
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

/// What an active session's row knows for its end, where its node does not say it.
#[derive(Queryable, Selectable)]
#[diesel(table_name = session_records, check_for_backend(Pg))]
pub(super) struct LeftRow {
    pub session_id: Uuid,
    device_id: String,
    device_type: String,
    node_id: String,
    pub incarnation: Uuid,
    start_time: i64,
    start_seq: i64,
    last_pong_at: Option<i64>,
    last_active_at: i64,
    reconnect_count: i64,
    remote_addr: String,
    meta: String,
    trace_id: Option<String>,
}

/// An active session's row, for whoever looks at it from another node.
#[derive(Queryable, Selectable)]
#[diesel(table_name = session_records, check_for_backend(Pg))]
pub(super) struct HeldRow {
    pub start_device_seq: i64,
    #[diesel(embed)]
    left: LeftRow,
}

impl TryFrom<HeldRow> for HeldSession {
    type Error = StoreError;

    fn try_from(HeldRow { start_device_seq, left }: HeldRow) -> Result<Self, StoreError> {
        let left = Left::try_from(left)?;
        Ok(HeldSession {
            device_seq: start_device_seq,
            last_pong_at: left.last_pong_at,
            last_active_at: left.last_active_at,
            reconnect_count: left.reconnect_count,
            start: Connected {
                device_id: left.device_id,
                device_type: left.device_type,
                session_id: left.session_id,
                node_id: left.node_id,
                incarnation: left.incarnation,
                connected_at: left.connected_at,
                remote_addr: left.remote_addr,
                meta: left.meta,
                trace_id: left.trace_id,
            },
        })
    }
}

/// A session that somebody else ends than the run that held it.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub session_id: SessionId,
    pub incarnation: Incarnation,
    pub connected_at: Timestamp,
    /// The event of its start; above all others where that is not on the record yet.
    pub start_seq: i64,
    pub last_pong_at: Option<Timestamp>,
    pub last_active_at: Timestamp,
    device_id: DeviceId,
    device_type: DeviceType,
    node_id: NodeId,
    reconnect_count: u32,
    remote_addr: std::net::SocketAddr,
    meta: Meta,
    trace_id: Option<String>,
}

impl TryFrom<LeftRow> for Left {
    type Error = StoreError;

    fn try_from(row: LeftRow) -> Result<Self, StoreError> {
        const TABLE: &str = "session_records";
        Ok(Left {
            session_id: SessionId(row.session_id),
            incarnation: Incarnation(row.incarnation),
            connected_at: Timestamp(row.start_time),
            start_seq: row.start_seq,
            last_pong_at: row.last_pong_at.map(Timestamp),
            last_active_at: Timestamp(row.last_active_at),
            device_id: word(TABLE, "device_id", &row.device_id)?,
            device_type: word(TABLE, "device_type", &row.device_type)?,
            node_id: word(TABLE, "node_id", &row.node_id)?,
            reconnect_count: u32::try_from(row.reconnect_count).unwrap_or(u32::MAX),
            remote_addr: word(TABLE, "remote_addr", &row.remote_addr)?,
            meta: serde_json::from_str(&row.meta)
                .map_err(|_| StoreError::bad_row(TABLE, "meta", &row.meta))?,
            trace_id: row.trace_id,
        })
    }
}

impl From<&Connected> for Left {
    fn from(start: &Connected) -> Self {
        Left {
            session_id: start.session_id,
            incarnation: start.incarnation,
            connected_at: start.connected_at,
            start_seq: i64::MAX,
            last_pong_at: None,
            last_active_at: start.connected_at,
            device_id: start.device_id.clone(),
            device_type: start.device_type.clone(),
            node_id: start.node_id.clone(),
            reconnect_count: 0,
            remote_addr: start.remote_addr,
            meta: start.meta.clone(),
            trace_id: start.trace_id.clone(),
        }
    }
}

impl Left {
    /// Its end, found at `detected`. Clocks differ, and may have been set back: no duration is below zero.
    pub(super) fn ended(&self, reason: Reason, by: DetectedBy, detected: Timestamp) -> Disconnected {
        let detected = detected.max(self.last_active_at).max(self.connected_at);
        let millis_since = |then: Timestamp| detected.0.saturating_sub(then.0).max(0) as f64 / 1000.0;
        Disconnected {
            device_id: self.device_id.clone(),
            device_type: self.device_type.clone(),
            session_id: self.session_id,
            node_id: self.node_id.clone(),
            incarnation: self.incarnation,
            reason,
            initiator: reason.initiator(),
            detected_by: by,
            // Its node tells the device when it reads of it; a lost one tells nothing.
            close_code: reason.close_code().filter(|_| reason != Reason::NodeLost),
            connected_at: self.connected_at,
            last_pong_at: self.last_pong_at,
            last_active_at: self.last_active_at,
            disconnected_at: detected,
            detection_ms: millis_since(self.last_active_at),
            duration_ms: millis_since(self.connected_at),
            rtt_ms: RttMs::default(),
            pings_sent: None,
            pongs_received: None,
            reconnect_count: self.reconnect_count,
            remote_addr: self.remote_addr,
            meta: self.meta.clone(),
            trace_id: self.trace_id.clone(),
        }
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
