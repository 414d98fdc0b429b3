//! What the driver sees of lastpong from outside: its answers, its events, its stream, its record.

pub mod http;
pub mod record;
pub mod sse;
pub mod stream;

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lastpong::ids::SessionId;

use crate::clock::now_us;
use crate::load::Left;

/// The moments at which ends were seen, by session. Shared by whoever sees them and whoever waits for them.
#[derive(Clone, Default)]
pub struct Seen(Arc<(Mutex<HashMap<SessionId, u64>>, Condvar)>);

impl Seen {
    pub fn saw(&self, session: SessionId) {
        let (seen, changed) = &*self.0;
        seen.lock().unwrap_or_else(PoisonError::into_inner).entry(session).or_insert_with(now_us);
        changed.notify_all();
    }

    /// Waits until so many ends were seen.
    ///
    /// # Errors
    /// Where they were not in time.
    pub fn until(&self, count: usize, within: Duration) -> anyhow::Result<()> {
        let (seen, changed) = &*self.0;
        let deadline = Instant::now() + within;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        while seen.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            anyhow::ensure!(!left.is_zero(), "{} of {count} ends were seen in {within:?}", seen.len());
            seen = changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Milliseconds from the moment each left to the one at which its end was seen.
    ///
    /// # Errors
    /// Where one was not seen.
    pub fn delays_ms(&self, left: &[Left]) -> anyhow::Result<Vec<f64>> {
        let seen = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let delay = |left: &Left| Some((*seen.get(&left.session?)? as f64 - left.at_us as f64) / 1_000.0);
        let delays: Vec<f64> = left.iter().filter_map(delay).collect();
        anyhow::ensure!(delays.len() == left.len(), "{} of {} ends were seen", delays.len(), left.len());
        Ok(delays)
    }

    /// The moment of the last.
    pub fn last_us(&self) -> Option<u64> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).values().max().copied()
    }
}

/// The session that an event is of, without reading all of its JSON.
fn session_of(event: &[u8]) -> Option<SessionId> {
    const KEY: &[u8] = b"\"session_id\":\"";
    let at = event.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let id = event.get(at..at + 36)?;
    Some(SessionId(uuid::Uuid::try_parse_ascii(id).ok()?))
}
