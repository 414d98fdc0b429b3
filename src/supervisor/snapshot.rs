//! What inspection sees: a copy of a worker's sessions, published for everyone to read without asking again.

use std::sync::Arc;
use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::event::{Connected, RttMs};
use crate::ids::SessionId;
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

/// Where it is seen, and so how much of it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Held by this node.
    Here,
    /// Another node's, as that node last wrote it to live state.
    LiveState,
    /// Another node's, by its row on the record: that it is there, and when it was last heard.
    Record,
}

/// One live session, at the moment its snapshot was taken.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// What does not change, shared with the session.
    pub start: Arc<Connected>,
    pub session_id: SessionId,
    pub device_seq: Option<i64>,
    pub state: State,
    pub source: Source,
    /// Its key at the worker that holds it; of no meaning where that is another node's.
    pub key: u32,
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
}

// As large as what it tells needs: a snapshot has one for every session.
const _: () = assert!(size_of::<SessionView>() <= 160);

impl Serialize for SessionView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // What the record does not know is no number.
        let counted = |number: u32| (self.source != Source::Record).then_some(number);
        let (start, mut shown) = (&self.start, serializer.serialize_struct("SessionView", 18)?);
        shown.serialize_field("session_id", &self.session_id)?;
        shown.serialize_field("device_id", &start.device_id)?;
        shown.serialize_field("device_type", &start.device_type)?;
        shown.serialize_field("device_seq", &self.device_seq)?;
        shown.serialize_field("node_id", &start.node_id)?;
        shown.serialize_field("state", &self.state)?;
        shown.serialize_field("connected_at", &start.connected_at)?;
        shown.serialize_field("last_pong_at", &self.last_pong_at)?;
        shown.serialize_field("last_active_at", &self.last_active_at)?;
        shown.serialize_field("idle_ms", &self.idle_ms)?;
        shown.serialize_field("rtt_ms", &self.rtt_ms)?;
        shown.serialize_field("missed", &counted(self.missed))?;
        shown.serialize_field("pings_sent", &counted(self.pings_sent))?;
        shown.serialize_field("pongs_received", &counted(self.pongs_received))?;
        shown.serialize_field("reconnect_count", &self.reconnect_count)?;
        shown.serialize_field("remote_addr", &start.remote_addr)?;
        shown.serialize_field("meta", &start.meta)?;
        shown.serialize_field("trace_id", &start.trace_id)?;
        shown.end()
    }
}

/// One worker's sessions.
#[derive(Debug, Clone)]
pub struct WorkerSnapshot {
    pub worker: usize,
    pub taken_at: Timestamp,
    /// The same moment; zero before the first.
    pub taken: Mono,
    pub took: Duration,
    pub sessions: Vec<SessionView>,
}

impl WorkerSnapshot {
    /// What is shown before the first.
    pub fn none(worker: usize) -> Self {
        let (taken_at, taken, took) = (Timestamp::now(), Mono(0), Duration::ZERO);
        Self { worker, taken_at, taken, took, sessions: Vec::new() }
    }

    /// Than `by` at this moment.
    pub fn is_older(&self, now: Mono, by: Duration) -> bool {
        self.taken == Mono(0) || self.taken + by < now
    }
}
