//! Live state in this process: for a node without Redis, and for programs that use lastpong as a library.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::ids::{DeviceId, NodeId, SessionId};
use crate::metrics::Metrics;
use crate::time::Mono;

use super::{Heartbeat, LivePage, LiveSession, Vitals};

/// Sessions in a page, and sessions looked at for their time to live with each write.
const PAGE: usize = 500;

#[derive(Clone)]
pub struct MemoryLive(Arc<Shared>);

struct Shared {
    ttl: Duration,
    metrics: Arc<Metrics>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    sessions: BTreeMap<SessionId, Kept<LiveSession>>,
    devices: HashMap<DeviceId, SessionId>,
    marks: HashMap<NodeId, Kept<String>>,
    /// Up to where the sessions' times to live were looked at.
    swept: Option<SessionId>,
}

struct Kept<T> {
    value: T,
    until: Mono,
}

impl MemoryLive {
    pub(super) fn new(ttl: Duration, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared { ttl, metrics, held: Mutex::default() }))
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn until(&self) -> Mono {
        Mono::now() + self.0.ttl
    }

    pub(super) fn put(&self, sessions: &[LiveSession]) {
        let until = self.until();
        let mut held = self.held();
        held.sweep(Mono::now());
        for session in sessions {
            let of_device = held.devices.entry(session.device_id.clone()).or_insert(session.session_id);
            *of_device = (*of_device).max(session.session_id);
            held.sessions.insert(session.session_id, Kept { value: session.clone(), until });
        }
    }

    pub(super) fn remove(&self, sessions: &[(SessionId, DeviceId)]) {
        let mut held = self.held();
        for (id, device) in sessions {
            held.sessions.remove(id);
            held.leave(device, *id);
        }
    }

    pub(super) fn update(&self, heartbeats: &[Heartbeat]) -> Vec<SessionId> {
        let (now, until) = (Mono::now(), self.until());
        let mut held = self.held();
        held.sweep(now);
        let mut unknown = Vec::new();
        for heartbeat in heartbeats {
            match held.sessions.get_mut(&heartbeat.session_id).filter(|kept| kept.until > now) {
                Some(kept) => {
                    kept.value.vitals = heartbeat.vitals.clone();
                    kept.until = until;
                }
                None => unknown.push(heartbeat.session_id),
            }
        }
        unknown
    }

    pub(super) fn sessions(&self, ids: &[SessionId]) -> Vec<Option<LiveSession>> {
        let now = Mono::now();
        let held = self.held();
        ids.iter().map(|id| held.session(*id, now).cloned()).collect()
    }

    pub(super) fn keep(&self, sessions: &[(SessionId, DeviceId)]) -> Vec<Option<Vitals>> {
        let (now, until) = (Mono::now(), self.until());
        let mut held = self.held();
        let keep = |(id, device): &(SessionId, DeviceId)| {
            let named = held.devices.get(device) == Some(id);
            let kept = held.sessions.get_mut(id).filter(|kept| kept.until > now)?;
            kept.until = until;
            named.then(|| kept.value.vitals.clone())
        };
        sessions.iter().map(keep).collect()
    }

    pub(super) fn session_of(&self, device: &DeviceId) -> Option<SessionId> {
        let held = self.held();
        let id = *held.devices.get(device)?;
        held.session(id, Mono::now()).map(|_| id)
    }

    /// A cursor is the upper half of the last id seen, whose first 48 bits are its time: so pages go on in order, and
    /// ids that share the half are looked at together.
    pub(super) fn page(&self, cursor: u64) -> LivePage {
        let now = Mono::now();
        let held = self.held();
        let from = match cursor {
            0 => Bound::Unbounded,
            half => Bound::Excluded(SessionId(uuid::Uuid::from_u64_pair(half, u64::MAX))),
        };
        let mut page = LivePage::default();
        let mut last = 0;
        for (id, kept) in held.sessions.range((from, Bound::Unbounded)) {
            let half = id.0.as_u64_pair().0;
            if page.sessions.len() >= PAGE && half != last {
                page.next = last;
                break;
            }
            last = half;
            if kept.until > now {
                page.sessions.push((*id, Some(kept.value.clone())));
            }
        }
        page
    }

    pub(super) fn mark(&self, node: &NodeId) -> Option<String> {
        let held = self.held();
        held.marks.get(node).filter(|kept| kept.until > Mono::now()).map(|kept| kept.value.clone())
    }

    pub(super) fn set_mark(&self, node: &NodeId, mark: &str) {
        let kept = Kept { value: mark.to_owned(), until: self.until() };
        self.held().marks.insert(node.clone(), kept);
    }
}

impl Held {
    fn session(&self, id: SessionId, now: Mono) -> Option<&LiveSession> {
        self.sessions.get(&id).filter(|kept| kept.until > now).map(|kept| &kept.value)
    }

    fn leave(&mut self, device: &DeviceId, id: SessionId) {
        if self.devices.get(device) == Some(&id) {
            self.devices.remove(device);
        }
    }

    /// Lets go of what is past its time, a part at each call.
    fn sweep(&mut self, now: Mono) {
        let from = self.swept.map_or(Bound::Unbounded, Bound::Excluded);
        let some: Vec<_> = self
            .sessions
            .range((from, Bound::Unbounded))
            .take(PAGE)
            .map(|(id, kept)| (*id, kept.until <= now))
            .collect();
        self.swept = if some.len() < PAGE { None } else { some.last().map(|(id, _)| *id) };
        for (id, over) in some {
            if over && let Some(gone) = self.sessions.remove(&id) {
                self.leave(&gone.value.device_id, id);
            }
        }
    }
}
