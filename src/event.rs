//! What is told of sessions: CloudEvents 1.0 in JSON, written once and shared by every reader.
//!
//! A store keeps of an event its order (`seq`, `device_seq`), what can be filtered on, and `data` without the
//! order, because the order is known only inside the transaction. [`Event`] is made of the two.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{DeviceId, DeviceType, EventId, Incarnation, NodeId, SessionId};
use crate::reason::{DetectedBy, Initiator, Reason};
use crate::time::Timestamp;

/// What a device said of itself at the handshake: at most 16 keys of 64 bytes with values of 256.
pub type Meta = BTreeMap<String, String>;

macro_rules! kinds {
    ($($variant:ident = $name:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventKind { $($variant,)* }

        impl EventKind {
            pub const ALL: &[EventKind] = &[$(EventKind::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self { $(EventKind::$variant => $name),* }
            }

            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(EventKind::$variant),)* _ => None }
            }
        }
    };
}

crate::schema::schema_of!(
    EventKind,
    crate::schema::word("What happened.", EventKind::ALL.iter().map(|kind| kind.as_str()))
);

kinds! {
    SessionConnected = "lastpong.session.connected.v1",
    SessionDisconnected = "lastpong.session.disconnected.v1",
    SessionSuspected = "lastpong.session.suspected.v1",
    SessionRecovered = "lastpong.session.recovered.v1",
    SessionSuspended = "lastpong.session.suspended.v1",
    SessionResumed = "lastpong.session.resumed.v1",
    DeviceFlapping = "lastpong.device.flapping.v1",
    NodeLost = "lastpong.node.lost.v1",
    ServiceDown = "lastpong.service.down.v1",
    ServiceUp = "lastpong.service.up.v1",
}

/// Round-trip times of a session's matched pongs, in milliseconds; absent before the first.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct RttMs {
    pub last: Option<f64>,
    pub min: Option<f64>,
    pub avg: Option<f64>,
    pub max: Option<f64>,
}

/// `data` of a connected event, less the order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Connected {
    pub device_id: DeviceId,
    pub device_type: DeviceType,
    pub session_id: SessionId,
    pub node_id: NodeId,
    pub incarnation: Incarnation,
    pub connected_at: Timestamp,
    #[schema(value_type = String)]
    pub remote_addr: SocketAddr,
    pub meta: Meta,
    pub trace_id: Option<String>,
}

/// `data` of a disconnected event, less the order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Disconnected {
    pub device_id: DeviceId,
    pub device_type: DeviceType,
    pub session_id: SessionId,
    pub node_id: NodeId,
    pub incarnation: Incarnation,
    pub reason: Reason,
    pub initiator: Initiator,
    pub detected_by: DetectedBy,
    /// As sent to the device, or as the device sent it; absent where no close frame was.
    pub close_code: Option<u16>,
    pub connected_at: Timestamp,
    /// Absent where no pong ever came.
    pub last_pong_at: Option<Timestamp>,
    pub last_active_at: Timestamp,
    pub disconnected_at: Timestamp,
    /// From the last proof of life to the decision.
    pub detection_ms: f64,
    pub duration_ms: f64,
    pub rtt_ms: RttMs,
    /// Absent, with `pongs_received`, where the node that counted them died.
    pub pings_sent: Option<u32>,
    pub pongs_received: Option<u32>,
    pub reconnect_count: u32,
    #[schema(value_type = String)]
    pub remote_addr: SocketAddr,
    pub meta: Meta,
    pub trace_id: Option<String>,
}

/// A durable event as its readers get it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub seq: i64,
    pub id: EventId,
    pub kind: EventKind,
    pub device_id: Option<DeviceId>,
    pub device_type: Option<DeviceType>,
    pub session_id: Option<SessionId>,
    pub reason: Option<Reason>,
    pub time: Timestamp,
    /// The whole CloudEvent as JSON.
    pub json: Arc<str>,
}

/// An event's parts as a store keeps them.
#[derive(Debug, Clone)]
pub struct EventRow {
    pub seq: i64,
    pub device_seq: Option<i64>,
    pub id: EventId,
    pub kind: EventKind,
    pub time: Timestamp,
    pub node_id: NodeId,
    pub device_id: Option<DeviceId>,
    pub device_type: Option<DeviceType>,
    pub session_id: Option<SessionId>,
    pub reason: Option<Reason>,
    /// A JSON object without `seq` and `device_seq`.
    pub data: String,
}

impl From<EventRow> for Event {
    fn from(row: EventRow) -> Self {
        use std::fmt::Write;
        let mut json = String::with_capacity(320 + row.data.len());
        let _ = write!(
            json,
            r#"{{"specversion":"1.0","id":"{}","source":"/lastpong/{}","type":"{}","time":"{}","#,
            row.id,
            row.node_id,
            row.kind.as_str(),
            row.time
        );
        if let Some(device) = &row.device_id {
            let _ = write!(json, r#""subject":"{device}","#);
        }
        let _ = write!(json, r#""datacontenttype":"application/json","data":{{"seq":{}"#, row.seq);
        match row.device_seq {
            Some(n) => _ = write!(json, r#","device_seq":{n}"#),
            None if row.device_id.is_some() => json.push_str(r#","device_seq":null"#),
            None => {}
        }
        let rest = row.data.trim_start().strip_prefix('{').unwrap_or("}");
        if rest.trim_start() != "}" {
            json.push(',');
        }
        json.push_str(rest);
        json.push('}');
        Event {
            seq: row.seq,
            id: row.id,
            kind: row.kind,
            device_id: row.device_id,
            device_type: row.device_type,
            session_id: row.session_id,
            reason: row.reason,
            time: row.time,
            json: json.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_the_first_of_the_data() {
        let row = EventRow {
            seq: 7,
            device_seq: Some(3),
            id: EventId::new(),
            kind: EventKind::SessionConnected,
            time: Timestamp(0),
            node_id: "n1".parse().unwrap(),
            device_id: Some("d1".parse().unwrap()),
            device_type: None,
            session_id: None,
            reason: None,
            data: r#"{"x":1}"#.into(),
        };
        let whole: serde_json::Value = serde_json::from_str(&Event::from(row.clone()).json).unwrap();
        assert_eq!(whole["data"], serde_json::json!({"seq": 7, "device_seq": 3, "x": 1}));
        assert_eq!(whole["subject"], "d1");
        assert_eq!(whole["time"], "1970-01-01T00:00:00.000000Z");
        let bare = EventRow { device_id: None, device_seq: None, data: "{}".into(), ..row };
        let whole: serde_json::Value = serde_json::from_str(&Event::from(bare).json).unwrap();
        assert_eq!(whole["data"], serde_json::json!({"seq": 7}));
    }
}
