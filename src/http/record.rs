//! A session as the record has it, in the words of every answer that shows one.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::event::Disconnected;
use crate::ids::{DeviceId, DeviceType, Incarnation, NodeId, SessionId};
use crate::reason::Reason;
use crate::store::{SessionRecord, Status};
use crate::time::Timestamp;

/// A session as the record has it.
#[derive(Serialize, ToSchema)]
pub(super) struct Record {
    pub(super) session_id: SessionId,
    pub(super) device_id: DeviceId,
    pub(super) device_type: DeviceType,
    pub(super) node_id: NodeId,
    incarnation: Incarnation,
    pub(super) state: Status,
    pub(super) connected_at: Timestamp,
    pub(super) disconnected_at: Option<Timestamp>,
    pub(super) reason: Option<Reason>,
    /// `data` of its end.
    #[schema(value_type = Option<Disconnected>)]
    pub(super) end: Option<Box<RawValue>>,
}

impl From<SessionRecord> for Record {
    fn from(record: SessionRecord) -> Self {
        Self {
            session_id: record.session_id,
            device_id: record.device_id,
            device_type: record.device_type,
            node_id: record.node_id,
            incarnation: record.incarnation,
            state: record.status,
            connected_at: record.start_time,
            disconnected_at: record.end_time,
            reason: record.reason,
            end: record.end.and_then(|json| RawValue::from_string(json).ok()),
        }
    }
}
