//! What operators have banned, on whichever node: followed on the record, held on this node, and carried out on the
//! sessions that it has.
//!
//! - The record is asked twice a second where others write to it too, and at once when this node has. What it says is in
//!   the list before anyone who is here is told: a newcomer is refused by the list, or else is here to be told.
//! - While the record cannot be read, what was known last holds; terms go on to run out. It is kept in the node's
//!   journal, for a start without the record.
//! - A list that was not followed for too long, or is newer than the record (one that was put back from a backup), is
//!   read anew as a whole.

use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;

use crate::bans::{Bans, Changed, KEPT};
use crate::metrics::Metrics;
use crate::reason::{DetectedBy, Reason};
use crate::store::bans::{Ban, BanChange, Target};
use crate::store::journal::Journal;
use crate::store::{Store, StoreError};
use crate::supervisor::Inspector;
use crate::supervisor::messages::{EndDevices, EndSessions, ToEnd};
use crate::time::{Mono, Timestamp};

/// How often the record is asked that others write to. With the call itself a ban holds everywhere within a second.
const POLL: Duration = Duration::from_millis(500);
/// How often what is over is taken out.
const SWEEP: Duration = Duration::from_secs(60);
/// After so long without the record, what was lifted may be forgotten there.
const STALE: Duration = Duration::from_secs(KEPT.as_secs() / 2);
/// Changes read in one go.
const PAGE: usize = 2_000;
/// Sessions or devices in one message.
const BATCH: usize = 1_000;

pub struct Parts {
    pub store: Store,
    /// Where what is known is kept, where the store may be away.
    pub journal: Option<Journal>,
    pub bans: Arc<Bans>,
    pub devices: Recipient<EndDevices>,
    pub sessions: Recipient<EndSessions>,
    pub inspector: Inspector,
    pub metrics: Arc<Metrics>,
}

pub struct BanWatch {
    parts: Parts,
    /// The last change that was read, and when it was asked for.
    read: Option<(i64, Mono)>,
    swept: Mono,
    /// Sessions are still to be looked through for who is banned.
    looks: bool,
    readable: bool,
}

impl BanWatch {
    pub fn new(parts: Parts) -> Self {
        Self { parts, read: None, swept: Mono::now(), looks: false, readable: true }
    }

    /// Takes up what this node knew before it was stopped.
    pub async fn remember(&self) {
        let Some(journal) = &self.parts.journal else { return };
        match journal.known_bans().await {
            Ok(known) => {
                let now = Timestamp::now();
                let over = known.iter().filter(|ban| !ban.holds(now)).map(|ban| ban.target.clone()).collect();
                self.parts.bans.replace(known, now);
                self.keep(Changed { fresh: Vec::new(), gone: over }).await;
            }
            Err(error) => {
                log::error!(error:% = error; "the bans that this node knew cannot be read: none holds until the store tells them");
            }
        }
    }

    /// Reads what changed, and sees to it that it holds here.
    ///
    /// # Errors
    /// The record cannot be read: what was known holds.
    pub async fn catch_up(&mut self) -> Result<(), StoreError> {
        let asked = Mono::now();
        let known = self.read.filter(|(_, at)| asked.since(*at) < STALE).map(|(rev, _)| rev);
        let mut whole = known.is_none();
        let (mut changes, mut rev) = self.read_from(known.unwrap_or(0)).await?;
        if known.is_some_and(|known| rev < known) {
            whole = true;
            (changes, rev) = self.read_from(0).await?;
        }
        let now = Timestamp::now();
        let changed = match whole {
            true => {
                let standing = changes.into_iter().filter(|change| !change.lifted);
                self.parts.bans.replace(standing.map(|change| change.ban).collect(), now)
            }
            false => self.parts.bans.apply(changes, now),
        };
        self.read = Some((rev, asked));
        if changed != Changed::default() {
            self.tell(&changed).await;
            self.keep(changed).await;
        }
        self.parts.bans.done(rev);
        Ok(())
    }

    /// The changes after `rev`, and up to where they go. Less than `rev` is the end of a record that goes less far.
    async fn read_from(&self, rev: i64) -> Result<(Vec<BanChange>, i64), StoreError> {
        let (mut all, mut last) = (Vec::new(), rev);
        loop {
            let asked = self.parts.store.ban_changes(last, PAGE);
            let page = self.parts.metrics.timed("sql", "bans", asked).await?;
            if page.newest < last {
                return Ok((Vec::new(), page.newest));
            }
            let is_last = page.changes.len() < PAGE;
            last = page.changes.last().map_or(last, |change| change.rev);
            all.extend(page.changes);
            if is_last {
                return Ok((all, last.max(page.newest)));
            }
        }
    }

    /// Ends who is here and newly banned.
    async fn tell(&mut self, changed: &Changed) {
        let mut devices = Vec::new();
        for Ban { target, .. } in &changed.fresh {
            match target {
                Target::Device(device) => devices.push(device.clone()),
                Target::Network(_) => self.looks = true,
            }
        }
        let (reason, detected_by) = (Reason::Banned, DetectedBy::Operator);
        for devices in devices.chunks(BATCH).map(<[_]>::to_vec) {
            // The root is gone only when the node is.
            let _ = self.parts.devices.send(EndDevices { devices, reason, detected_by }).await;
        }
        self.look_through().await;
    }

    /// Ends who comes from a banned network.
    async fn look_through(&mut self) {
        if !self.looks {
            return;
        }
        let asked = Mono::now();
        let snapshots = self.parts.inspector.look_now().await;
        let now = Timestamp::now();
        let mut banned = Vec::new();
        for view in snapshots.iter().flat_map(|snapshot| &snapshot.sessions) {
            let start = &view.start;
            if self.parts.bans.refuse(&start.device_id, start.remote_addr.ip(), now).is_some() {
                let (device_id, session_id) = (start.device_id.clone(), view.session_id);
                let (reason, detected_by) = (Reason::Banned, DetectedBy::Operator);
                banned.push(ToEnd { device_id, session_id, reason, detected_by });
            }
        }
        for sessions in banned.chunks(BATCH).map(<[_]>::to_vec) {
            let _ = self.parts.sessions.send(EndSessions(sessions)).await;
        }
        // A worker that did not answer is asked again.
        self.looks = snapshots.iter().any(|snapshot| snapshot.taken < asked);
    }

    async fn keep(&self, changed: Changed) {
        let Some(journal) = &self.parts.journal else { return };
        if let Err(error) = journal.keep_bans(changed.fresh, changed.gone).await {
            log::warn!(error:% = error; "the bans are not kept: a restart without the store would not know the last of them");
        }
    }

    /// Follows the record for as long as the node runs.
    pub async fn run(mut self) {
        let shared = self.parts.store.cluster().is_some();
        loop {
            let pause = if shared || self.looks || !self.readable { POLL } else { SWEEP };
            tokio::select! {
                () = self.parts.bans.asked() => {}
                () = tokio::time::sleep(pause) => {}
            }
            let read = self.catch_up().await;
            match &read {
                Err(error) if self.readable => {
                    log::warn!(error:% = error; "the bans cannot be read: those that are known hold");
                }
                Ok(()) if !self.readable => log::info!("the bans are read again"),
                _ => {}
            }
            self.readable = read.is_ok();
            self.look_through().await;
            if Mono::now().since(self.swept) >= SWEEP {
                self.swept = Mono::now();
                self.keep(self.parts.bans.sweep(Timestamp::now())).await;
            }
        }
    }
}
