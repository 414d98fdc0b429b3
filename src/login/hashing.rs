//! Where passwords are checked: on the blocking pool, few at a time.
//!
//! A check holds a core for tens of milliseconds and 19 MiB. Of all that may be asked at once only [`at_once`] are under
//! way, [`WAITING`] wait, and the rest is told to come back: a flood of logins costs the workers no more than that.

use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Refused;
use super::password;
use crate::metrics::Metrics;
use crate::secret::Secret;

/// Checks that may wait for their turn.
const WAITING: usize = 32;

/// The queue's name in the metrics.
const QUEUE: &str = "logins";

/// Checks at once: a quarter of the cores, so that devices' pings have the rest.
fn at_once() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 4).max(1))
}

pub(super) struct Hashing {
    turns: Arc<Semaphore>,
    room: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    nobody: Arc<OnceLock<Secret>>,
}

/// A place in the queue, given up when it is dropped.
pub(super) struct Place(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl Hashing {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        metrics.queue_refused.with_label_values(&[QUEUE]);
        let turns = at_once();
        Self {
            turns: Arc::new(Semaphore::new(turns)),
            room: Arc::new(Semaphore::new(turns + WAITING)),
            metrics,
            nobody: Arc::default(),
        }
    }

    /// A place in the queue, to be taken before anything is done for an attempt: so the look-ups of names are as few.
    pub(super) fn place(&self) -> Result<Place, Refused> {
        self.room.clone().try_acquire_owned().map(Place).map_err(|_| {
            self.metrics.queue_refused.with_label_values(&[QUEUE]).inc();
            Refused::Busy
        })
    }

    /// Whether it is the password of which `kept` was made; of `None`, nobody's, never. Takes the same time either way.
    pub(super) async fn matches(
        &self,
        place: Place,
        given: Secret,
        kept: Option<Secret>,
    ) -> Result<bool, Refused> {
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| Refused::Busy)?;
        let nobody = self.nobody.clone();
        let checked = tokio::task::spawn_blocking(move || {
            // Held by the work, not by who waits for it: he may go.
            let _held = (place, turn);
            // Made for the first who asks, known or not, so that it tells nothing.
            let nobody = nobody.get_or_init(|| password::of_nobody().unwrap_or_else(|_| Secret::new("")));
            let known = kept.is_some();
            password::matches(&given, kept.as_ref().unwrap_or(nobody)) & known
        });
        checked.await.map_err(|_| Refused::Busy)
    }
}
