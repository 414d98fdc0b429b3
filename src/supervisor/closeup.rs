//! What is seen of one session that is looked at closely: its view, its recent heartbeats, its socket.
//!
//! These are told of a session that somebody asks for, and of no other: an idle session keeps nothing for it. What was
//! noted of one that has ended is kept for a while ([`Past`]), for whoever wants to know how it came to that.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::ids::SessionId;
use crate::time::{Mono, Timestamp};

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

/// Ended sessions whose heartbeats are kept, and for how long.
const KEPT: usize = 64;
const KEPT_FOR: Duration = Duration::from_secs(10 * 60);

/// The heartbeats of sessions that ended while they were noted: of the last few of all workers. Cheap to clone; locked for
/// the moment in which such a session ends or is asked for.
#[derive(Debug, Clone, Default)]
pub struct Past(Arc<Mutex<VecDeque<(SessionId, Mono, Heartbeats)>>>);

impl Past {
    pub fn keep(&self, id: SessionId, beats: Heartbeats, now: Mono) {
        let mut kept = self.kept(now);
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((id, now, beats));
    }

    pub fn of(&self, id: SessionId, now: Mono) -> Option<Heartbeats> {
        self.kept(now).iter().find(|(known, ..)| *known == id).map(|(.., beats)| beats.clone())
    }

    fn kept(&self, now: Mono) -> MutexGuard<'_, VecDeque<(SessionId, Mono, Heartbeats)>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(_, ended, _)| now.since(*ended) < KEPT_FOR);
        kept
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_the_past_is_bounded() {
        let past = Past::default();
        let at = |seconds: u64| Mono(seconds * 1_000_000);
        let ids: Vec<SessionId> = (0..=KEPT).map(|_| SessionId::new()).collect();
        for id in &ids {
            past.keep(*id, Heartbeats::default(), at(1));
        }
        assert!(past.of(ids[0], at(2)).is_none(), "the oldest makes room");
        assert!(ids[1..].iter().all(|id| past.of(*id, at(600)).is_some()));
        assert!(ids.iter().all(|id| past.of(*id, at(601)).is_none()), "kept for too long");
    }
}
