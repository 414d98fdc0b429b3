//! Compares this node's sessions with their rows in the record, a bounded part each round.
//!
//! - A difference is told when it is seen twice: in a page of the active rows, and in a look at that row a round
//!   later. What is young, or may still be on its way to the record, is none.
//! - It is told and not judged: whoever gets [`Differences`] ends what must end, through the one writer.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{Message, Recipient};
use tokio::sync::watch;

use super::recorded;
use crate::ids::{DeviceId, Run, SessionId};
use crate::metrics::Metrics;
use crate::store::{SessionRecord, Status, Store, StoreError};
use crate::supervisor::Inspector;
use crate::time::{Mono, Timestamp};

/// Rows read in one round.
const PAGE: usize = 500;
/// Differences followed up in one round; what is over is met again.
const SUSPECTS: usize = 100;
/// What is younger may not have reached the other side yet.
const SETTLED: Duration = Duration::from_secs(5);

/// A snapshot older than this is none to judge by; well under [`SETTLED`].
const STALE: Duration = Duration::from_secs(1);

/// What is not as it should be.
#[derive(Debug, Default, Message)]
#[rtype(result = "()")]
pub struct Differences {
    /// Rows that are active under this run, and no session is here.
    pub orphans: Vec<SessionRecord>,
    /// Sessions here whose row is not active: their end was recorded by another.
    pub missing: Vec<(DeviceId, SessionId)>,
}

/// What a reconciler is made of.
pub struct Parts {
    pub store: Store,
    pub inspector: Inspector,
    pub run: watch::Receiver<Run>,
    pub metrics: Arc<Metrics>,
    pub found: Recipient<Differences>,
    pub update_interval: Duration,
    /// Whether the record has all that it was told: nothing waits, and the journal is empty.
    pub settled: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Works round by round, for as long as it is held.
pub struct Reconciler {
    parts: Parts,
    /// Where the pages go on.
    after: Option<SessionId>,
    suspects: HashSet<SessionId>,
}

impl Reconciler {
    pub fn new(parts: Parts) -> Self {
        Self { parts, after: None, suspects: HashSet::new() }
    }

    /// Never ends: for a task of its own.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(self.parts.update_interval).await;
            if !(self.parts.settled)() {
                self.suspects.clear();
                continue;
            }
            match self.round().await {
                Ok(found) if found.orphans.is_empty() && found.missing.is_empty() => {}
                // A full mailbox: they are met again.
                Ok(found) => _ = self.parts.found.try_send(found),
                Err(error) => log::debug!(error:% = error; "the record is compared later"),
            }
        }
    }

    /// One round: follows up what the last one met, and reads the next page.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn round(&mut self) -> Result<Differences, StoreError> {
        let run = self.parts.run.borrow().clone();
        let found = self.follow_up(&run).await?;
        let asked = Mono::now();
        let page = self.parts.store.active_page(&run, self.after, PAGE);
        let rows = self.parts.metrics.timed("sql", "reconcile", page).await?;
        // The sessions after the rows: whoever began between is young, whoever ended is gone from both.
        let snapshots = self.parts.inspector.look().await;
        if snapshots.iter().any(|snapshot| asked.since(snapshot.taken) > STALE) {
            // A worker that does not answer shows what it held, not what it holds.
            self.suspects.clear();
            return Ok(found);
        }
        let last = if rows.len() < PAGE { None } else { rows.last().map(|row| row.session_id) };
        let of_page =
            |id: SessionId| self.after.is_none_or(|after| id > after) && last.is_none_or(|last| id <= last);
        let all: HashSet<_> =
            snapshots.iter().flat_map(|s| &s.sessions).map(|view| view.session_id).collect();
        let active: HashSet<_> = rows.iter().map(|row| row.session_id).collect();
        let young = Timestamp::now().saturating_sub(SETTLED);
        let orphans = rows.iter().filter(|row| row.start_time < young && !all.contains(&row.session_id));
        let missing = recorded(&snapshots).filter(|v| {
            v.start.connected_at < young && of_page(v.session_id) && !active.contains(&v.session_id)
        });
        let met = orphans.map(|row| row.session_id).chain(missing.map(|view| view.session_id));
        self.suspects = met.take(SUSPECTS).collect();
        self.after = last;
        Ok(found)
    }

    async fn follow_up(&mut self, run: &Run) -> Result<Differences, StoreError> {
        let mut found = Differences::default();
        if self.suspects.is_empty() {
            return Ok(found);
        }
        let suspects = std::mem::take(&mut self.suspects);
        let snapshots = self.parts.inspector.look().await;
        for id in suspects {
            let row = self.parts.store.session(id).await?;
            let active = row.filter(|row| {
                row.status == Status::Active
                    && row.node_id == run.node_id
                    && row.incarnation == run.incarnation
            });
            let view = snapshots.iter().flat_map(|s| &s.sessions).find(|view| view.session_id == id);
            match (active, view) {
                (Some(row), None) => found.orphans.push(row),
                (None, Some(view)) => found.missing.push((view.start.device_id.clone(), id)),
                _ => {}
            }
        }
        let drift = &self.parts.metrics.live.reconcile_drift;
        drift.with_label_values(&["sql_orphan"]).add(found.orphans.len() as i64);
        drift.with_label_values(&["sql_missing"]).add(found.missing.len() as i64);
        Ok(found)
    }
}
