//! What operators have banned, on whichever node: followed on the record, held on this node, and carried out on the
//! sessions that it has.
//!
//! - The record is asked twice a second where others write to it too, and at once when this node has. What it says is in
//!   the list before anyone who is here is told: a newcomer is refused by the list, or else is here to be told.
//! - While the record cannot be read, what was known last holds; terms go on to run out. It is kept in the node's
//!   journal, for a start without the record.
//! - A list that was not followed for too long, or is newer than the record (one that was put back from a backup), is
//!   read anew as a whole; and so it is, and kept as a whole, when it could not be kept.

mod read;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;

use crate::bans::{Bans, Changed, KEPT};
use crate::metrics::Metrics;
use crate::reason::{DetectedBy, Reason};
use crate::store::bans::{Ban, Target};
use crate::store::journal::Journal;
use crate::store::{Store, StoreError};
use crate::supervisor::Inspector;
use crate::supervisor::messages::{EndDevices, EndSessions, ToEnd};
use crate::time::{Mono, Now, Timestamp};
use read::{Reading, Step};

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
    read: Option<ReadTo>,
    swept: Mono,
    /// Sessions are still to be looked through for who is banned.
    looks: bool,
    readable: bool,
    /// The journal lacks something: from when on all is to be written there.
    mend_at: Option<Mono>,
}

/// The last change that was read, and when it was asked for.
#[derive(Debug, Clone, Copy)]
struct ReadTo {
    rev: i64,
    asked: Now,
}

impl ReadTo {
    /// The one clock stands still while the machine sleeps, and the other can be set back.
    fn is_stale(self, now: Now) -> bool {
        let slept =
            Duration::from_micros(now.wall.0.saturating_sub(self.asked.wall.0).try_into().unwrap_or(0));
        now.mono.since(self.asked.mono) >= STALE || slept >= STALE
    }
}

impl BanWatch {
    pub fn new(parts: Parts) -> Self {
        Self { parts, read: None, swept: Mono::now(), looks: false, readable: true, mend_at: None }
    }

    /// Takes up what this node knew before it was stopped.
    pub async fn remember(&mut self) {
        let Some(journal) = &self.parts.journal else { return };
        match journal.known_bans().await {
            Ok(known) => {
                let now = Timestamp::now();
                let over = known.iter().filter(|ban| !ban.holds(now)).map(|ban| ban.target.clone()).collect();
                self.parts.bans.replace(known, now);
                self.keep(Changed { fresh: Vec::new(), gone: over }).await;
            }
            Err(error) => {
                self.mend_at = Some(Mono::now());
                log::error!(error:% = error; "the bans that this node knew cannot be read: none holds until the store tells them");
            }
        }
    }

    /// Reads what changed, and sees to it that it holds here.
    ///
    /// # Errors
    /// The record cannot be read: what was known holds.
    pub async fn catch_up(&mut self) -> Result<(), StoreError> {
        let asked = Now::read();
        let mends = self.mend_at.is_some_and(|at| at <= asked.mono);
        let known = self.read.filter(|read| !mends && !read.is_stale(asked)).map(|read| read.rev);
        let reading = match known {
            Some(rev) => match self.read_on(Reading::after(rev)).await? {
                Some(reading) => Some(reading),
                // The record goes less far.
                None => self.read_on(Reading::whole()).await?,
            },
            None => self.read_on(Reading::whole()).await?,
        };
        // One that goes less far again, while it is read, is read at the next look.
        let Some(reading) = reading else { return Ok(()) };
        let (rev, now) = (reading.rev(), Timestamp::now());
        let (changed, all) = match reading.is_whole() {
            true => {
                let standing = reading.standing();
                let all = mends.then(|| standing.clone());
                (self.parts.bans.replace(standing, now), all)
            }
            false => (self.parts.bans.apply(reading.changes(), now), None),
        };
        self.read = Some(ReadTo { rev, asked });
        self.tell(&changed).await;
        match all {
            Some(all) => self.mend(all).await,
            None => self.keep(changed).await,
        }
        self.settle();
        self.parts.metrics.record.bans_read.set(Timestamp::now().0 / 1_000_000);
        Ok(())
    }

    /// Reads to the end of the record; `None` where that is before the place that was known.
    async fn read_on(&self, mut reading: Reading) -> Result<Option<Reading>, StoreError> {
        loop {
            let asked = self.parts.store.ban_changes(reading.rev(), PAGE);
            let page = self.parts.metrics.timed("sql", "bans", asked).await?;
            match reading.take(page, PAGE) {
                Step::More => {}
                Step::Done => return Ok(Some(reading)),
                Step::Shorter => return Ok(None),
            }
        }
    }

    /// Says up to where all is done, where it is.
    fn settle(&self) {
        if let Some(read) = self.read.filter(|_| !self.looks) {
            self.parts.bans.done(read.rev);
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

    async fn keep(&mut self, changed: Changed) {
        let Some(journal) = &self.parts.journal else { return };
        if let Err(error) = journal.keep_bans(changed.fresh, changed.gone).await
            && self.mend_at.is_none()
        {
            self.mend_at = Some(Mono::now());
            log::warn!(error:% = error; "the bans are not kept: a restart without the store would not know the last of them");
        }
    }

    /// Keeps these and no others.
    async fn mend(&mut self, all: Vec<Ban>) {
        let Some(journal) = &self.parts.journal else { return };
        match journal.keep_only_bans(all).await {
            Ok(()) => {
                self.mend_at = None;
                log::info!("the bans are kept again, all of them");
            }
            // To read and write all is dear, and a disk stays full for a while.
            Err(error) => {
                self.mend_at = Some(Mono::now() + SWEEP);
                log::warn!(error:% = error; "the bans are not kept still");
            }
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
            self.settle();
            if Mono::now().since(self.swept) >= SWEEP {
                self.swept = Mono::now();
                let over = self.parts.bans.sweep(Timestamp::now());
                self.keep(over).await;
            }
        }
    }
}
