//! One token, one session: a token's `jti` is claimed before its session begins (`LASTPONG_TOKEN_REPLAY=once`).
//!
//! - With Redis the claim is one command there (`SET … NX` on `lastpong:nonce:{jti}`): of all who come with a token at
//!   once, to whichever nodes, one has it. It is kept for as long as any node could take the token for good.
//! - Each node remembers besides what was claimed at it, so that a Redis that lost its keys opens nothing there again.
//! - While Redis is away, `LASTPONG_TOKEN_REPLAY_AWAY` decides: nobody with a token comes in (`refuse`); or a token opens
//!   one session at each node at most (`local`), and Redis is told once it is back.
//! - Without Redis all of it is this process's alone, and gone with it.
//!
//! What is claimed stays claimed, also where the session does not begin after all, or where Redis took the claim and its
//! answer was lost: whoever mints tokens for one use mints another one.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::config::ReplayAway;
use crate::store::live::link::RedisLink;
use crate::store::live::{LiveError, nonces};
use crate::time::Timestamp;
use crate::token::{Claims, NotClaimed, UsedTokens};

/// Tokens that one node remembers as used, at most.
const USED: usize = 1_000_000;
/// Claims that wait for Redis, at most; of further ones it is not told.
const UNTOLD: usize = 100_000;
/// Claims told to Redis in one go.
const BATCH: usize = 1_000;
const RETELL: Duration = Duration::from_millis(500);
/// How much longer than a token holds by the clock of one node it may hold by that of another.
const SKEW: Duration = Duration::from_secs(300);

/// One for the whole node.
pub struct Once {
    used: UsedTokens,
    redis: Option<RedisLink>,
    away: ReplayAway,
    aside: Handle,
    untold: Mutex<VecDeque<(String, i64)>>,
}

impl Once {
    /// Redis is asked on `aside`, which a worker that stands still does not hold up.
    pub fn new(redis: Option<RedisLink>, away: ReplayAway, aside: Handle) -> Self {
        Self { used: UsedTokens::new(USED), redis, away, aside, untold: Mutex::default() }
    }

    /// Takes the token for one session.
    ///
    /// # Errors
    /// A token that was taken before, or has no `jti`; or nobody can say now.
    pub async fn claim(&self, claims: &Claims) -> Result<(), NotClaimed> {
        let now = Timestamp::now().0 / 1_000_000;
        let jti = claims.jti.as_deref().ok_or(NotClaimed::NoJti)?;
        let Some(redis) = &self.redis else { return self.used.claim(claims, now) };
        let (redis, name, kept) = (redis.clone(), jti.to_owned(), kept_for(claims.expires_at, now));
        let asked = self.aside.spawn(async move { nonces::claim(&redis, &name, kept).await });
        match asked.await.unwrap_or_else(|gone| Err(LiveError(gone.to_string()))) {
            Ok(true) => match self.used.claim(claims, now) {
                // Redis remembers it.
                Err(NotClaimed::Full) => Ok(()),
                claimed => claimed,
            },
            Ok(false) => Err(NotClaimed::AlreadyUsed),
            Err(_) if self.away == ReplayAway::Refuse => Err(NotClaimed::Away),
            Err(_) => {
                self.used.claim(claims, now)?;
                let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
                if untold.len() < UNTOLD {
                    untold.push_back((jti.to_owned(), claims.expires_at));
                }
                Ok(())
            }
        }
    }

    /// Tells Redis what was claimed while it was away, for as long as the node runs.
    pub async fn keep_telling(&self) {
        let Some(redis) = &self.redis else { return };
        loop {
            tokio::time::sleep(RETELL).await;
            let some: Vec<(String, i64)> = {
                let untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
                untold.iter().take(BATCH).cloned().collect()
            };
            let now = Timestamp::now().0 / 1_000_000;
            let kept = some.iter().map(|(jti, end)| (jti.as_str(), kept_for(*end, now)));
            if !some.is_empty() && nonces::tell(redis, kept).await.is_ok() {
                // Others were put behind them meanwhile, and none was taken out.
                self.untold.lock().unwrap_or_else(PoisonError::into_inner).drain(..some.len());
            }
        }
    }
}

fn kept_for(expires_at: i64, now: i64) -> Duration {
    Duration::from_secs(expires_at.saturating_sub(now).max(0).unsigned_abs()) + SKEW
}
