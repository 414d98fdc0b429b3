//! Live state: what the sessions of all nodes are like just now, for whoever asks without holding them.
//!
//! - It is a projection of the sessions: lost, evicted or away, it is written anew, and nothing is decided by what it
//!   does not hold (promise P4).
//! - A heartbeat never brings back a session that was removed: it is told as unknown instead.
//! - A device is that of its latest session; removing an earlier one leaves it.
//! - What is not updated is gone after the time to live.
//!
//! In Redis each session is JSON at `lastpong:session:{session_id}`, each device's session is named at
//! `lastpong:device:{device_id}`, and `lastpong:active` orders the sessions by last pong.
//!
//! Left out: who writes it (`projection/`), and everything that must not be lost (the SQL store).

pub mod link;
mod memory;
pub mod nonces;
mod redis;

#[cfg(test)]
mod contract;
#[cfg(test)]
pub(crate) mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::RedisUrl;
use crate::event::{Meta, RttMs};
use crate::ids::{DeviceId, DeviceType, Incarnation, NodeId, SessionId};
use crate::metrics::Metrics;
use crate::time::Timestamp;
use link::RedisLink;

/// Where a session is in its life, as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LiveState {
    Live,
    /// Missed a pong and may recover.
    Suspect,
}

/// What of a session changes with its heartbeats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vitals {
    pub state: LiveState,
    /// Absent where no pong ever came.
    pub last_pong_at: Option<Timestamp>,
    pub last_active_at: Timestamp,
    pub rtt_ms: RttMs,
    /// Pongs missed in a row.
    pub missed: u32,
    pub pings_sent: u32,
    pub pongs_received: u32,
}

/// A session as live state holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveSession {
    // First and followed by `session_id`: a heartbeat takes the place of the text before that.
    #[serde(flatten)]
    pub vitals: Vitals,
    pub session_id: SessionId,
    pub device_id: DeviceId,
    pub device_type: DeviceType,
    pub device_seq: Option<i64>,
    pub node_id: NodeId,
    pub incarnation: Incarnation,
    pub connected_at: Timestamp,
    pub reconnect_count: u32,
    pub remote_addr: SocketAddr,
    pub meta: Arc<Meta>,
    pub trace_id: Option<String>,
}

/// A session was heard.
#[derive(Debug, Clone, PartialEq)]
pub struct Heartbeat {
    pub session_id: SessionId,
    pub vitals: Vitals,
}

/// Whether a session shows life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    Active,
    /// It is in live state, and was not heard for the time asked about.
    Inactive,
    /// Live state does not say: it is away, or has no such session. Decides nothing.
    Unknown,
}

impl Activity {
    pub fn as_str(self) -> &'static str {
        match self {
            Activity::Active => "active",
            Activity::Inactive => "inactive",
            Activity::Unknown => "unknown",
        }
    }
}

/// Some of the sessions in live state.
#[derive(Debug, Default)]
pub struct LivePage {
    /// With what is held of each; none where only its place among the active is left. One may come twice.
    pub sessions: Vec<(SessionId, Option<LiveSession>)>,
    /// Where the next page begins; zero after the last.
    pub next: u64,
}

/// Why live state did not do as asked. Nothing is to be concluded from it; it may be asked again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("live state is away: {0}")]
pub struct LiveError(pub String);

/// The store of live state. Cheap to clone; its calls may be awaited on any Tokio runtime.
#[derive(Clone)]
pub enum Live {
    Memory(memory::MemoryLive),
    Redis(redis::RedisLive),
}

impl Live {
    /// In Redis where there is a URL, else in this process. Connects at the first call.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn open(url: Option<&RedisUrl>, ttl: Duration, metrics: Arc<Metrics>) -> Result<Self, LiveError> {
        Ok(match url {
            Some(url) => {
                Live::Redis(redis::RedisLive::new(RedisLink::new(url, metrics.clone())?, ttl, metrics))
            }
            None => Live::Memory(memory::MemoryLive::new(ttl, metrics)),
        })
    }

    /// The connection that other uses of the same Redis share.
    pub fn link(&self) -> Option<&RedisLink> {
        match self {
            Live::Memory(_) => None,
            Live::Redis(r) => Some(r.link()),
        }
    }

    /// Writes whole sessions.
    pub async fn put(&self, sessions: &[LiveSession]) -> Result<(), LiveError> {
        match self {
            Live::Memory(m) => m.put(sessions),
            Live::Redis(r) => return r.put(sessions).await,
        }
        Ok(())
    }

    pub async fn remove(&self, sessions: &[(SessionId, DeviceId)]) -> Result<(), LiveError> {
        match self {
            Live::Memory(m) => m.remove(sessions),
            Live::Redis(r) => return r.remove(sessions).await,
        }
        Ok(())
    }

    /// Notes one heartbeat. False where there is no such session.
    pub async fn update_heartbeat(&self, heartbeat: &Heartbeat) -> Result<bool, LiveError> {
        Ok(self.update_heartbeat_batch(std::slice::from_ref(heartbeat)).await?.is_empty())
    }

    /// Notes heartbeats, and says of which there is no such session.
    pub async fn update_heartbeat_batch(
        &self,
        heartbeats: &[Heartbeat],
    ) -> Result<Vec<SessionId>, LiveError> {
        match self {
            Live::Memory(m) => Ok(m.update(heartbeats)),
            Live::Redis(r) => r.update(heartbeats).await,
        }
    }

    /// What a session's last heartbeat left.
    pub async fn session_heartbeat(&self, id: SessionId) -> Result<Option<Vitals>, LiveError> {
        Ok(self.session(id).await?.map(|session| session.vitals))
    }

    pub async fn session(&self, id: SessionId) -> Result<Option<LiveSession>, LiveError> {
        Ok(self.sessions(&[id]).await?.pop().flatten())
    }

    /// The sessions of these ids, in their order.
    pub async fn sessions(&self, ids: &[SessionId]) -> Result<Vec<Option<LiveSession>>, LiveError> {
        match self {
            Live::Memory(m) => Ok(m.sessions(ids)),
            Live::Redis(r) => r.sessions(ids).await,
        }
    }

    /// Whether a session was heard within `max_inactive`.
    pub async fn check_activity(&self, id: SessionId, max_inactive: Duration) -> Activity {
        let found = self.session_heartbeat(id).await.unwrap_or_default();
        let verdict = activity(found.as_ref(), max_inactive);
        self.metrics().live.activity_checks.with_label_values(&[verdict.as_str()]).inc();
        verdict
    }

    /// As [`Live::check_activity`] for sessions that are held here: what is there gets a new time to live, with its
    /// device's. A session is unknown too where its device names another one.
    pub async fn check_and_keep(
        &self,
        sessions: &[(SessionId, DeviceId)],
        max_inactive: Duration,
    ) -> Result<Vec<Activity>, LiveError> {
        let found = match self {
            Live::Memory(m) => m.keep(sessions),
            Live::Redis(r) => r.keep(sessions).await?,
        };
        let verdicts: Vec<_> = found.iter().map(|vitals| activity(vitals.as_ref(), max_inactive)).collect();
        for verdict in &verdicts {
            self.metrics().live.activity_checks.with_label_values(&[verdict.as_str()]).inc();
        }
        Ok(verdicts)
    }

    /// The session that a device has.
    pub async fn session_of(&self, device: &DeviceId) -> Result<Option<SessionId>, LiveError> {
        match self {
            Live::Memory(m) => Ok(m.session_of(device)),
            Live::Redis(r) => r.session_of(device).await,
        }
    }

    /// Some of all sessions, from `cursor` on; 0 is the beginning. Whoever is there from the first page to the last is
    /// met at least once.
    pub async fn page(&self, cursor: u64) -> Result<LivePage, LiveError> {
        match self {
            Live::Memory(m) => Ok(m.page(cursor)),
            Live::Redis(r) => r.page(cursor).await,
        }
    }

    /// Takes sessions from among the active of which nothing else is left.
    pub async fn forget(&self, ids: &[SessionId]) -> Result<(), LiveError> {
        match self {
            Live::Memory(_) => Ok(()),
            Live::Redis(r) => r.forget(ids).await,
        }
    }

    /// What a node last said of itself with [`Live::set_mark`].
    pub async fn mark(&self, node: &NodeId) -> Result<Option<String>, LiveError> {
        match self {
            Live::Memory(m) => Ok(m.mark(node)),
            Live::Redis(r) => r.mark(node).await,
        }
    }

    pub async fn set_mark(&self, node: &NodeId, mark: &str) -> Result<(), LiveError> {
        match self {
            Live::Memory(m) => m.set_mark(node, mark),
            Live::Redis(r) => return r.set_mark(node, mark).await,
        }
        Ok(())
    }

    /// Whether it would be written now: a small write.
    pub async fn ping(&self) -> Result<(), LiveError> {
        match self {
            Live::Memory(_) => Ok(()),
            Live::Redis(r) => r.ping().await,
        }
    }

    fn metrics(&self) -> &Metrics {
        match self {
            Live::Memory(m) => m.metrics(),
            Live::Redis(r) => r.metrics(),
        }
    }
}

impl LiveSession {
    pub fn heartbeat(&self) -> Heartbeat {
        Heartbeat { session_id: self.session_id, vitals: self.vitals.clone() }
    }
}

fn activity(found: Option<&Vitals>, max_inactive: Duration) -> Activity {
    match found {
        None => Activity::Unknown,
        Some(vitals) if vitals.last_active_at < Timestamp::now().saturating_sub(max_inactive) => {
            Activity::Inactive
        }
        Some(_) => Activity::Active,
    }
}
