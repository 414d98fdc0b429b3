//! Live state as a projection of this node's sessions.
//!
//! - Starts and ends are written as the feed tells them, heartbeats in batches once an interval.
//! - Each round leaves a mark that is unlike the last. Whoever finds another mark than it left finds a live state that
//!   was emptied or went back in time, and writes everything anew.
//! - Where an end could not be written, everything is compared once live state is back.
//! - Otherwise a part of the sessions is looked up each round, and a part of live state for what nobody holds.

#[cfg(test)]
pub(super) mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::recorded;
use super::told::{NODE, SOURCE, lost_run, says, session, session_of};
use crate::event::{Event, EventKind};
use crate::feed::Feed;
use crate::ids::{Incarnation, NodeId, Run, SessionId};
use crate::metrics::Metrics;
use crate::reason::Reason;
use crate::store::live::{Activity, Live, LiveError, LiveSession};
use crate::store::{EventFilter, Match};
use crate::supervisor::Inspector;
use crate::supervisor::snapshot::{SessionView, State, WorkerSnapshot};
use crate::time::{Mono, Timestamp};

/// Events followed in one go.
const EVENTS: usize = 500;
/// The fewest sessions that are looked up in a round.
const CHECKED: usize = 500;
/// Each session is looked up so often within its time to live, or more.
const LOOKS: u32 = 4;
/// After a failure.
const PAUSE: Duration = Duration::from_millis(200);
/// What is younger may not be in the snapshot yet.
const SETTLED: Duration = Duration::from_secs(5);
/// An ended session is remembered until no snapshot shows it any more.
const REMEMBERED: Duration = Duration::from_secs(30);

/// What a projector is made of.
pub struct Parts {
    pub live: Live,
    pub feed: Feed,
    pub inspector: Inspector,
    /// The run that this node goes by.
    pub run: watch::Receiver<Run>,
    pub metrics: Arc<Metrics>,
    pub update_interval: Duration,
    /// The time to live of live state.
    pub session_timeout: Duration,
    pub max_inactive: Duration,
}

/// Runs until the feed is closed.
pub struct Projector(JoinHandle<()>);

impl Projector {
    pub fn start(parts: Parts) -> Self {
        Self(tokio::spawn(Work::new(parts).run()))
    }

    /// Waits until the last ends are written, for `patience` at most.
    pub async fn finish(mut self, patience: Duration) {
        if tokio::time::timeout(patience, &mut self.0).await.is_err() {
            log::warn!("live state lacks the last ends; it forgets these sessions with their time to live");
        }
    }
}

impl Drop for Projector {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Work {
    parts: Parts,
    filter: EventFilter,
    node: NodeId,
    /// Runs that this node has declared lost since the last round: what they left is its to take away.
    lost: HashSet<Incarnation>,
    after: i64,
    ended: HashMap<SessionId, Mono>,
    /// When the snapshots were taken that were written last.
    written: Mono,
    /// The mark left last.
    mark: Option<String>,
    round: u64,
    /// Live state may hold what it should not, or lack what it should hold.
    in_doubt: bool,
    /// Where the look-up of sessions, and that of live state, goes on.
    checked: usize,
    cursor: u64,
}

impl Work {
    fn new(parts: Parts) -> Self {
        let kinds = [EventKind::SessionConnected, EventKind::SessionDisconnected, EventKind::NodeLost];
        let types = kinds.iter().map(|kind| Match::Is(kind.as_str().to_owned())).collect();
        let node = parts.run.borrow().node_id.clone();
        Self {
            after: parts.feed.newest(),
            filter: EventFilter { types, ..EventFilter::default() },
            node,
            lost: HashSet::new(),
            parts,
            ended: HashMap::new(),
            written: Mono(0),
            mark: None,
            round: 0,
            in_doubt: true,
            checked: 0,
            cursor: 0,
        }
    }

    async fn run(mut self) {
        let mut newest = self.parts.feed.subscribe();
        let mut due = Instant::now();
        loop {
            // Whoever sees the feed closed must then see its last event.
            let closed = self.parts.feed.is_closed();
            newest.borrow_and_update();
            if self.follow().await {
                continue;
            }
            if closed {
                return;
            }
            if Instant::now() >= due {
                due = Instant::now()
                    + match self.flush().await {
                        Ok(()) => self.parts.update_interval,
                        // Told by the link. Asked again soon, for nobody else waits.
                        Err(_) => PAUSE.min(self.parts.update_interval),
                    };
            }
            let _ = tokio::time::timeout_at(due.min(Instant::now() + PAUSE), newest.changed()).await;
        }
    }

    /// Writes starts and ends that the feed has. True where there may be more.
    async fn follow(&mut self) -> bool {
        if self.after < 0 {
            // The log's end was not known yet; what is before it is in the snapshots.
            self.after = self.parts.feed.newest();
        }
        if self.after >= self.parts.feed.newest() {
            return false;
        }
        let Ok(page) = self.parts.feed.read(self.after, &self.filter, EVENTS).await else { return false };
        let moved = page.scanned_to > self.after;
        self.after = self.after.max(page.scanned_to);
        if !page.events.is_empty() && self.write(&page.events).await.is_err() {
            self.in_doubt = true;
        }
        moved
    }

    async fn write(&mut self, events: &[Arc<Event>]) -> Result<(), LiveError> {
        let (mut begun, mut over) = (Vec::new(), Vec::new());
        for event in events {
            if event.kind == EventKind::NodeLost && says(event, SOURCE, &self.node) {
                self.lost.extend(lost_run(event));
            }
            let (Some(session_id), Some(device_id)) = (event.session_id, &event.device_id) else { continue };
            let own = says(event, NODE, &self.node);
            match event.kind {
                EventKind::SessionConnected if own => begun.extend(session_of(event)),
                // Nobody else is left to take away what a lost node held.
                EventKind::SessionDisconnected if own || self.is_of_a_peer_s(event) => {
                    over.push((session_id, device_id.clone()));
                    if own {
                        self.ended.insert(session_id, Mono::now());
                    }
                }
                _ => {}
            }
        }
        begun.retain(|session: &LiveSession| !self.ended.contains_key(&session.session_id));
        if !begun.is_empty() {
            self.parts.live.put(&begun).await?;
        }
        if !over.is_empty() {
            self.parts.live.remove(&over).await?;
        }
        Ok(())
    }

    /// One round.
    async fn flush(&mut self) -> Result<(), LiveError> {
        let run = self.parts.run.borrow().clone();
        self.ended.retain(|_, at| Mono::now().since(*at) < REMEMBERED);
        // First, for it is the cheapest way to find live state away.
        let found = self.parts.live.mark(&run.node_id).await?;
        let lost = found != self.mark;
        let snapshots = self.parts.inspector.look().await;
        let held: Vec<_> = recorded(&snapshots).filter(|v| !self.ended.contains_key(&v.session_id)).collect();
        if lost || self.in_doubt {
            if lost && self.mark.is_some() {
                self.drift("redis_missing", held.len());
                log::info!(sessions = held.len(); "live state lost what it held: it is written anew");
            }
            if let Err(error) = self.put(&held, &run).await {
                // Their heartbeats would have been written with them.
                let failed = self.parts.metrics.live.heartbeat_updates.with_label_values(&["failed"]);
                failed.inc_by(held.len() as u64);
                return Err(error);
            }
            self.sweep(&held, &run, true).await?;
        } else {
            self.write_heard(&held, &snapshots, &run).await?;
            self.check(&held, &run).await?;
            self.sweep(&held, &run, !self.lost.is_empty()).await?;
        }
        self.lost.clear();
        self.round += 1;
        let mark = json!({"node_id": run.node_id, "incarnation": run.incarnation, "sessions": held.len(),
            "round": self.round, "at": Timestamp::now()});
        let mark = mark.to_string();
        // Left in doubt where the answer does not come: then the next round finds one of the two and writes all.
        self.parts.live.set_mark(&run.node_id, &mark).await?;
        self.mark = Some(mark);
        self.in_doubt = false;
        self.written = snapshots.iter().map(|s| s.taken).min().unwrap_or(self.written);
        Ok(())
    }

    /// Whether it tells the end of a session whose own node may not be there to take it from live state: one that is
    /// lost, or one that this node has ended for it.
    fn is_of_a_peer_s(&self, event: &Event) -> bool {
        event.reason == Some(Reason::NodeLost) || says(event, SOURCE, &self.node)
    }

    async fn put(&self, views: &[&SessionView], run: &Run) -> Result<(), LiveError> {
        for some in views.chunks(EVENTS) {
            let sessions: Vec<_> = some.iter().map(|view| session(view, run)).collect();
            self.parts.live.put(&sessions).await?;
        }
        Ok(())
    }

    /// Writes the heartbeats of those who were heard since the last round, or are suspect.
    async fn write_heard(
        &self,
        held: &[&SessionView],
        snapshots: &[Arc<WorkerSnapshot>],
        run: &Run,
    ) -> Result<(), LiveError> {
        let taken = snapshots.iter().map(|s| s.taken).max().unwrap_or_default();
        let since_ms = taken.since(self.written).as_millis() as f64 + 1.0;
        let heard = held.iter().filter(|v| v.idle_ms <= since_ms || v.state == State::Suspect);
        let heard: Vec<_> = heard.copied().collect();
        let beats: Vec<_> = heard.iter().map(|view| session(view, run).heartbeat()).collect();
        let unknown: HashSet<_> = self.parts.live.update_heartbeat_batch(&beats).await?.into_iter().collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let missing: Vec<_> = heard.into_iter().filter(|v| unknown.contains(&v.session_id)).collect();
        self.drift("redis_missing", missing.iter().filter(|view| is_settled(view)).count());
        self.put(&missing, run).await
    }

    /// Looks a part of the sessions up, and keeps them from running out.
    async fn check(&mut self, held: &[&SessionView], run: &Run) -> Result<(), LiveError> {
        if held.is_empty() {
            return Ok(());
        }
        let rounds =
            (self.parts.session_timeout / LOOKS).as_millis() / self.parts.update_interval.as_millis().max(1);
        let some =
            held.len().div_ceil(usize::try_from(rounds).unwrap_or(1).max(1)).max(CHECKED).min(held.len());
        let asked: Vec<_> = held.iter().cycle().skip(self.checked % held.len()).take(some).copied().collect();
        self.checked = (self.checked + some) % held.len();
        let keys: Vec<_> = asked.iter().map(|v| (v.session_id, v.start.device_id.clone())).collect();
        let verdicts = self.parts.live.check_and_keep(&keys, self.parts.max_inactive).await?;
        let patience = self.parts.max_inactive.as_millis() as f64;
        let mut wrong = Vec::new();
        for (view, verdict) in asked.into_iter().zip(verdicts) {
            let kind = match verdict {
                Activity::Unknown => "redis_missing",
                Activity::Inactive if view.idle_ms < patience => "redis_stale",
                Activity::Active | Activity::Inactive => continue,
            };
            self.drift(kind, is_settled(view).into());
            wrong.push(view);
        }
        self.put(&wrong, run).await
    }

    /// Takes from live state what this node does not hold and what nothing is left of: a page of it, or all.
    async fn sweep(&mut self, held: &[&SessionView], run: &Run, all: bool) -> Result<(), LiveError> {
        let held: HashSet<_> = held.iter().map(|v| v.session_id).collect();
        let settled = Timestamp::now().saturating_sub(SETTLED);
        if all {
            self.cursor = 0;
        }
        loop {
            let page = self.parts.live.page(self.cursor).await?;
            let (mut orphans, mut empty) = (Vec::new(), Vec::new());
            for (id, session) in page.sessions.iter().filter(|(id, _)| !held.contains(id)) {
                match session {
                    None => empty.push(*id),
                    Some(s) if self.lost.contains(&s.incarnation) => orphans.push((*id, s.device_id.clone())),
                    Some(s) if s.node_id != run.node_id => {}
                    Some(s) if self.ended.contains_key(id) || s.connected_at < settled => {
                        orphans.push((*id, s.device_id.clone()));
                    }
                    Some(_) => {}
                }
            }
            self.drift("redis_orphan", orphans.len() + empty.len());
            if !orphans.is_empty() {
                self.parts.live.remove(&orphans).await?;
            }
            self.parts.live.forget(&empty).await?;
            self.cursor = page.next;
            if !all || self.cursor == 0 {
                return Ok(());
            }
        }
    }

    fn drift(&self, kind: &str, count: usize) {
        self.parts.metrics.live.reconcile_drift.with_label_values(&[kind]).add(count as i64);
    }
}

/// The word of its start has had time to come here: where live state lacks it, something was lost.
fn is_settled(view: &SessionView) -> bool {
    view.start.connected_at < Timestamp::now().saturating_sub(SETTLED)
}
