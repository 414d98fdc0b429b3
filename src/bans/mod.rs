//! Who may not come in: the bans as this node knows them, asked at every handshake and at every arrival.
//!
//! - A look-up is a hash of the device and a walk down a prefix tree of the networks: it costs the same with a hundred
//!   thousand devices banned as with one.
//! - A ban that is over refuses nobody, from the moment on that it said; what is over is swept out later.
//! - The list changes in whole steps ([`Bans::apply`], [`Bans::replace`]), and each says what is new in it: whoever is
//!   banned newly may be here, and is to be ended. [`Bans::done`] says up to where that was done.
//!
//! Left out on purpose: where the list comes from, and ending sessions. That is for `cluster`.

mod list;

use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::ids::DeviceId;
use crate::store::bans::{Ban, BanChange};
use crate::time::Timestamp;

pub use list::Changed;
use list::List;

/// How long the record keeps bans that are over: whoever follows the changes and was away for longer reads all.
pub const KEPT: Duration = Duration::from_secs(3_600);

/// Changes made while others wait: well under a millisecond.
const AT_ONCE: usize = 1_000;

/// Who is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Banned {
    #[error("this device is banned{}", ending(.until))]
    Device { until: Option<Timestamp> },
    #[error("this address is banned{}", ending(.until))]
    Address { until: Option<Timestamp> },
}

fn ending(until: &Option<Timestamp>) -> String {
    until.map_or_else(String::new, |until| format!(" until {until}"))
}

/// One for the whole node.
#[derive(Debug)]
pub struct Bans {
    list: RwLock<List>,
    /// The last change that holds on this node.
    done: watch::Sender<i64>,
    asked: Notify,
}

impl Default for Bans {
    fn default() -> Self {
        Self { list: RwLock::default(), done: watch::Sender::new(0), asked: Notify::new() }
    }
}

impl Bans {
    /// Whether this device may not come from this address.
    pub fn refuse(&self, device: &DeviceId, from: IpAddr, now: Timestamp) -> Option<Banned> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        list.device(device, now).or_else(|| list.address(from, now))
    }

    /// Whether one of the same target holds as long as this one would, or longer.
    pub fn outlast(&self, ban: &Ban) -> bool {
        self.list.read().unwrap_or_else(PoisonError::into_inner).outlasts(ban)
    }

    /// Whether nobody may come from this address.
    pub fn refuse_address(&self, from: IpAddr, now: Timestamp) -> Option<Banned> {
        self.list.read().unwrap_or_else(PoisonError::into_inner).address(from, now)
    }

    /// Makes these changes, in their order: of many, some at a time, so that no handshake waits for all of them.
    pub fn apply(&self, changes: Vec<BanChange>, now: Timestamp) -> Changed {
        let (mut all, mut changes) = (Changed::default(), changes.into_iter());
        loop {
            let part: Vec<BanChange> = changes.by_ref().take(AT_ONCE).collect();
            if part.is_empty() {
                return all;
            }
            let changed = self.list.write().unwrap_or_else(PoisonError::into_inner).apply(part, now);
            all.fresh.extend(changed.fresh);
            all.gone.extend(changed.gone);
        }
    }

    /// Puts these in the place of all that there are.
    pub fn replace(&self, bans: Vec<Ban>, now: Timestamp) -> Changed {
        let (list, changed) = {
            let old = self.list.read().unwrap_or_else(PoisonError::into_inner);
            old.replaced_by(bans, now)
        };
        let old = std::mem::replace(&mut *self.list.write().unwrap_or_else(PoisonError::into_inner), list);
        // To let go of many takes a while, in which nobody need wait.
        drop(old);
        changed
    }

    /// Takes out what is over.
    pub fn sweep(&self, now: Timestamp) -> Changed {
        let over = self.list.read().unwrap_or_else(PoisonError::into_inner).over(now);
        if !over.is_empty() {
            self.list.write().unwrap_or_else(PoisonError::into_inner).remove(&over);
        }
        Changed { fresh: Vec::new(), gone: over }
    }

    /// The changes up to this one hold: no newcomer passes, and who was here has been told.
    pub fn done(&self, rev: i64) {
        self.done.send_replace(rev);
    }

    /// Has whoever follows the changes look at once, and waits until those up to `rev` hold here; not longer than
    /// `patience`. Says whether they do.
    pub async fn until_done(&self, rev: i64, patience: Duration) -> bool {
        let mut done = self.done.subscribe();
        self.asked.notify_one();
        matches!(tokio::time::timeout(patience, done.wait_for(|done| *done >= rev)).await, Ok(Ok(_)))
    }

    /// Returns when somebody has asked to look.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }
}
