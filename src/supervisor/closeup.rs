//! What is seen of one session that is looked at closely: its view, its recent heartbeats, its socket.
//!
//! These are told of a session that somebody asks for, and of no other: an idle session keeps nothing for it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::time::Timestamp;

use super::snapshot::SessionView;

/// One session, closely.
#[derive(Debug, Clone)]
pub struct CloseUp {
    pub view: SessionView,
    pub heartbeats: Heartbeats,
    /// Absent where the system does not tell.
    pub socket: Option<SocketStats>,
}

/// The pings of a session since it is looked at, the oldest first.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Heartbeats {
    /// Absent where nobody notes them.
    pub noted_since: Option<Timestamp>,
    pub items: Vec<Heartbeat>,
}

/// One ping, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Heartbeat {
    /// When it was sent; of a pong that answers none of those noted, when it came.
    pub at: Timestamp,
    pub outcome: Outcome,
    /// Of a pong that could be measured.
    pub rtt_ms: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not answered yet.
    Waiting,
    Answered,
    /// Not answered in time.
    Missed,
    /// A pong that answers no ping in time: late, or unasked.
    Late,
}

/// What the kernel says of a session's connection (`TCP_INFO`, tcp(7)), and what waits for it here.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct SocketStats {
    /// The kernel's own estimate from acknowledgements, which a device that is busy does not delay.
    pub rtt_ms: f64,
    pub rtt_var_ms: f64,
    /// How long until what is not acknowledged is sent again.
    pub retransmit_timeout_ms: f64,
    /// Segments sent again since the connection began.
    pub retransmits_total: u32,
    /// Sendings in a row of what is not acknowledged now.
    pub retransmits_now: u8,
    /// Segments sent and not acknowledged, and those of them that are taken for lost.
    pub unacknowledged: u32,
    pub lost: u32,
    pub since_data_received_ms: u32,
    pub since_data_sent_ms: u32,
    pub since_ack_received_ms: u32,
    /// Segments that may be under way at once.
    pub congestion_window: u32,
    pub segment_bytes: u32,
    pub path_mtu: u32,
    /// Output of this session that the kernel has not taken.
    pub output_waiting_bytes: usize,
}
