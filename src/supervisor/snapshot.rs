//! What inspection sees: a copy of a worker's sessions, published for everyone to read without asking again.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::event::{Meta, RttMs};
use crate::ids::{DeviceId, DeviceType, NodeId, SessionId};
use crate::time::{Mono, Timestamp};

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Admitted; its start is not durable yet and it has not been welcomed.
    Starting,
    Live,
    /// Missed a pong and may recover.
    Suspect,
}

/// One live session, at the moment its snapshot was taken.
#[derive(Debug, Clone, Serialize)]
pub struct SessionView {
    pub session_id: SessionId,
    pub device_id: DeviceId,
    pub device_type: DeviceType,
    pub device_seq: Option<i64>,
    pub node_id: NodeId,
    pub state: State,
    pub connected_at: Timestamp,
    pub last_pong_at: Option<Timestamp>,
    pub last_active_at: Timestamp,
    /// Since the last proof of life.
    pub idle_ms: f64,
    pub rtt_ms: RttMs,
    /// Pongs missed in a row.
    pub missed: u32,
    pub pings_sent: u32,
    pub pongs_received: u32,
    pub reconnect_count: u32,
    pub remote_addr: SocketAddr,
    pub meta: Arc<Meta>,
    pub trace_id: Option<String>,
}

/// One worker's sessions.
#[derive(Debug, Clone)]
pub struct WorkerSnapshot {
    pub worker: usize,
    pub taken_at: Timestamp,
    /// The same moment; zero before the first.
    pub taken: Mono,
    pub sessions: Vec<SessionView>,
}
