//! What the registry's tests share, and the actor on a real store.

use std::sync::Arc;

use crate::event::{Connected, Disconnected, Meta, RttMs};
use crate::ids::{EventId, Run, SessionId};
use crate::reason::{DetectedBy, Reason};
use crate::store::End;
use crate::time::Timestamp;

/// A session's two ends.
pub(super) fn start_of(device: &str, run: &Run) -> (Arc<Connected>, Arc<Disconnected>) {
    let start = Connected {
        device_id: device.parse().unwrap(),
        device_type: Default::default(),
        session_id: SessionId::new(),
        node_id: run.node_id.clone(),
        incarnation: run.incarnation,
        connected_at: Timestamp::now(),
        remote_addr: "127.0.0.1:1".parse().unwrap(),
        meta: Meta::new(),
        trace_id: None,
    };
    let end = Disconnected {
        device_id: start.device_id.clone(),
        device_type: start.device_type.clone(),
        session_id: start.session_id,
        node_id: run.node_id.clone(),
        incarnation: run.incarnation,
        reason: Reason::ClientClosed,
        initiator: Reason::ClientClosed.initiator(),
        detected_by: DetectedBy::CloseFrame,
        close_code: Some(1000),
        connected_at: start.connected_at,
        last_pong_at: None,
        last_active_at: start.connected_at,
        disconnected_at: Timestamp::now(),
        detection_ms: 0.125,
        duration_ms: 1.5,
        rtt_ms: RttMs::default(),
        pings_sent: Some(0),
        pongs_received: Some(0),
        reconnect_count: 0,
        remote_addr: start.remote_addr,
        meta: Meta::new(),
        trace_id: None,
    };
    (Arc::new(start), Arc::new(end))
}

pub(super) fn end_of(data: Arc<Disconnected>) -> End {
    End { event_id: EventId::new(), data }
}

mod outage;
