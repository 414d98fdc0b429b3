//! Which tokens have opened a session, where each may open one only: as this process knows it.
//!
//! Each is remembered until its end. There is room for so many, and further ones are refused rather than one forgotten
//! that could still be used. Left out on purpose: what other nodes know, see `session/once.rs`.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::Claims;

/// Why a token may not open a session, where each may open one only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotClaimed {
    #[error("the token was already used")]
    AlreadyUsed,
    #[error("too many tokens are in use, try again later")]
    Full,
    #[error("the token has no jti, and each token may be used only once")]
    NoJti,
    #[error("which tokens were used cannot be asked now, try again later")]
    Away,
}

/// Which tokens have opened a session, each remembered until its end: for `LASTPONG_TOKEN_REPLAY=once`.
pub struct UsedTokens {
    capacity: usize,
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    ids: HashSet<Arc<str>>,
    by_end: BTreeSet<(i64, Arc<str>)>,
}

impl UsedTokens {
    pub fn new(capacity: usize) -> Self {
        Self { capacity, used: Mutex::default() }
    }

    /// Takes the token for one session. `now` is in seconds since the Unix epoch.
    ///
    /// # Errors
    /// A token that was taken before, or has no `jti`; or no place to remember it.
    pub fn claim(&self, claims: &Claims, now: i64) -> Result<(), NotClaimed> {
        let jti: Arc<str> = claims.jti.as_deref().ok_or(NotClaimed::NoJti)?.into();
        // A panic cannot leave it half changed in a way that matters: at worst one id is remembered for good.
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.forget_ended(now);
        if used.ids.contains(&jti) {
            return Err(NotClaimed::AlreadyUsed);
        }
        if used.ids.len() >= self.capacity {
            return Err(NotClaimed::Full);
        }
        used.by_end.insert((claims.expires_at, jti.clone()));
        used.ids.insert(jti);
        Ok(())
    }
}

impl Used {
    fn forget_ended(&mut self, now: i64) {
        while let Some((end, _)) = self.by_end.first()
            && *end <= now
            && let Some((_, jti)) = self.by_end.pop_first()
        {
            self.ids.remove(&jti);
        }
    }
}
