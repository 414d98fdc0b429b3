//! Which tokens operators have revoked, on whichever node: followed on the record, held on this node, and carried out on
//! the sessions that it has. It is to tokens what [`super::bans`] is to devices and networks.
//!
//! - The record is asked twice a second where others write to it too, and at once when this node has. What it says is in
//!   the list before anyone who is here is told: a newcomer is refused by the list, or else is here to be told.
//! - While the record cannot be read, what was known last holds. It is kept in the node's journal, for a start without
//!   the record.
//! - A list that is newer than the record (one that was put back from a backup) is read anew as a whole.

use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;

use crate::metrics::Metrics;
use crate::revoked::{Changed, Revoked};
use crate::store::journal::Journal;
use crate::store::revocations::Revocation;
use crate::store::{Store, StoreError};
use crate::supervisor::messages::EndTokens;
use crate::time::{Mono, Timestamp};

/// How often the record is asked that others write to. With the call itself a token is refused everywhere, and its
/// session ended, within a second.
const POLL: Duration = Duration::from_millis(500);
/// How often what is over is taken out.
const SWEEP: Duration = Duration::from_secs(60);
/// Changes read in one go.
const PAGE: usize = 2_000;
/// Revocations in one message: the sessions of the node are looked through once for each message.
const BATCH: usize = 10_000;

pub struct Parts {
    pub store: Store,
    /// Where what is known is kept, where the store may be away.
    pub journal: Option<Journal>,
    pub revoked: Arc<Revoked>,
    pub sessions: Recipient<EndTokens>,
    pub metrics: Arc<Metrics>,
}

pub struct RevocationWatch {
    parts: Parts,
    /// The last change that was read.
    read: Option<i64>,
    swept: Mono,
    readable: bool,
}

impl RevocationWatch {
    pub fn new(parts: Parts) -> Self {
        Self { parts, read: None, swept: Mono::now(), readable: true }
    }

    /// Takes up what this node knew before it was stopped.
    pub async fn remember(&self) {
        let Some(journal) = &self.parts.journal else { return };
        match journal.known_revocations().await {
            Ok(mut known) => {
                // Of two of one device the later holds.
                known.sort_by_key(|revocation| revocation.at);
                let now = Timestamp::now();
                let over = known.iter().filter(|known| !known.holds(now)).map(|known| known.id).collect();
                self.parts.revoked.replace(known, now);
                self.keep(Changed { gone: over, ..Changed::default() }).await;
            }
            Err(error) => {
                log::error!(error:% = error;
                    "the revocations that this node knew cannot be read: none holds until the store tells them");
            }
        }
    }

    /// Reads what changed, and sees to it that it holds here.
    ///
    /// # Errors
    /// The record cannot be read: what was known holds.
    pub async fn catch_up(&mut self) -> Result<(), StoreError> {
        let mut whole = self.read.is_none();
        let (mut changes, mut rev) = self.read_from(self.read.unwrap_or(0)).await?;
        if self.read.is_some_and(|known| rev < known) {
            whole = true;
            (changes, rev) = self.read_from(0).await?;
        }
        let now = Timestamp::now();
        let mut changed = match whole {
            true => self.parts.revoked.replace(changes, now),
            false => self.parts.revoked.apply(changes, now),
        };
        self.read = Some(rev);
        let whom = std::mem::take(&mut changed.whom);
        for some in whom.chunks(BATCH) {
            // The root is gone only when the node is.
            let _ = self.parts.sessions.send(EndTokens(some.to_vec())).await;
        }
        self.keep(changed).await;
        self.parts.revoked.done(rev);
        Ok(())
    }

    /// The changes after `rev`, and up to where they go. Less than `rev` is the end of a record that goes less far.
    async fn read_from(&self, rev: i64) -> Result<(Vec<Revocation>, i64), StoreError> {
        let (mut all, mut last) = (Vec::new(), rev);
        loop {
            let asked = self.parts.store.revocations(last, PAGE);
            let page = self.parts.metrics.timed("sql", "revocations", asked).await?;
            if page.newest < last {
                return Ok((Vec::new(), page.newest));
            }
            let is_last = page.changes.len() < PAGE;
            last = page.changes.last().map_or(last, |(rev, _)| *rev);
            all.extend(page.changes.into_iter().map(|(_, revocation)| revocation));
            if is_last {
                return Ok((all, last.max(page.newest)));
            }
        }
    }

    async fn keep(&self, Changed { fresh, gone, .. }: Changed) {
        let Some(journal) = &self.parts.journal else { return };
        if fresh.is_empty() && gone.is_empty() {
            return;
        }
        if let Err(error) = journal.keep_revocations(fresh, gone).await {
            log::warn!(error:% = error;
                "the revocations are not kept: a restart without the store would not know the last of them");
        }
    }

    /// Follows the record for as long as the node runs.
    pub async fn run(mut self) {
        let shared = self.parts.store.cluster().is_some();
        loop {
            let pause = if shared || !self.readable { POLL } else { SWEEP };
            tokio::select! {
                () = self.parts.revoked.asked() => {}
                () = tokio::time::sleep(pause) => {}
            }
            let read = self.catch_up().await;
            match &read {
                Err(error) if self.readable => {
                    log::warn!(error:% = error; "the revocations cannot be read: those that are known hold");
                }
                Ok(()) if !self.readable => log::info!("the revocations are read again"),
                _ => {}
            }
            self.readable = read.is_ok();
            if Mono::now().since(self.swept) >= SWEEP {
                self.swept = Mono::now();
                self.keep(self.parts.revoked.sweep(Timestamp::now())).await;
            }
        }
    }
}
