//! Which tokens are good no more, as this node knows it: asked at every handshake and at every arrival.
//!
//! - A look-up is two look-ups of a hash table, however many are revoked. Of a token no more is known than its [`Proof`]:
//!   a hash of its `jti`, keyed by this process, and when it was issued.
//! - A device's revocation holds for what was issued up to its second, and for what does not say when it was. What was
//!   shown here was issued by then, whatever it says: a session is ended whose token is dated ahead.
//! - The list changes in whole steps ([`Revoked::apply`], [`Revoked::replace`]), and each says what is new in it: whoever
//!   is here by such a token is to be ended. [`Revoked::done`] says up to where that was done.
//!
//! Left out on purpose: where the list comes from, and ending sessions. That is for `cluster`.

mod list;

use std::hash::{BuildHasher, RandomState};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::ids::DeviceId;
use crate::store::revocations::Revocation;
use crate::time::Timestamp;
use crate::token::{Claims, Proof};

use list::List;
pub use list::{Changed, Fresh};

/// One for the whole node.
#[derive(Debug)]
pub struct Revoked {
    list: RwLock<List>,
    hasher: RandomState,
    /// The last change that holds on this node.
    done: watch::Sender<i64>,
    asked: Notify,
}

impl Default for Revoked {
    fn default() -> Self {
        Self {
            list: RwLock::default(),
            hasher: RandomState::new(),
            done: watch::Sender::new(0),
            asked: Notify::new(),
        }
    }
}

impl Revoked {
    /// What is to be remembered of a session's token, which was shown at `now`.
    pub fn proof(&self, claims: &Claims, now: Timestamp) -> Proof {
        let jti = claims.jti.as_deref().map_or(0, |jti| hash(&self.hasher, jti));
        let issued = claims.issued_at.map_or(0, |at| at.min(now.0 / 1_000_000));
        let issued = issued.clamp(0, u32::MAX.into()) as u32;
        Proof { jti, issued }
    }

    /// Whether this device's token is good no more.
    pub fn refuses(&self, device: &DeviceId, proof: Proof, now: Timestamp) -> bool {
        self.list.read().unwrap_or_else(PoisonError::into_inner).refuses(device, proof, now)
    }

    /// Makes these changes.
    pub fn apply(&self, changes: Vec<Revocation>, now: Timestamp) -> Changed {
        let hash = |jti: &str| hash(&self.hasher, jti);
        self.list.write().unwrap_or_else(PoisonError::into_inner).apply(changes, hash, now)
    }

    /// Puts these in the place of all that there are.
    pub fn replace(&self, all: Vec<Revocation>, now: Timestamp) -> Changed {
        let hash = |jti: &str| hash(&self.hasher, jti);
        let (list, changed) = {
            let old = self.list.read().unwrap_or_else(PoisonError::into_inner);
            old.replaced_by(all, hash, now)
        };
        let old = std::mem::replace(&mut *self.list.write().unwrap_or_else(PoisonError::into_inner), list);
        // To let go of many takes a while, in which nobody need wait.
        drop(old);
        changed
    }

    /// Takes out what is over.
    pub fn sweep(&self, now: Timestamp) -> Changed {
        self.list.write().unwrap_or_else(PoisonError::into_inner).sweep(now)
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

/// Never 0, which is that of no `jti`.
fn hash(hasher: &RandomState, jti: &str) -> u64 {
    hasher.hash_one(jti).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_was_issued_whatever_it_says() {
        let revoked = Revoked::default();
        let issued = |issued_at| {
            let device_id = "d".parse().unwrap();
            let claims = Claims { device_id, device_type: None, expires_at: 0, issued_at, jti: None };
            revoked.proof(&claims, Timestamp(100_999_999)).issued
        };
        assert_eq!([Some(7), Some(100), Some(104), Some(-1), None].map(issued), [7, 100, 100, 0, 0]);
    }
}
