//! Looking at the sessions without slowing them: readers share the snapshot that each worker publishes.

use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use tokio::sync::watch;

use crate::ids::SessionId;
use crate::time::Mono;

use super::closeup::{CloseUp, Heartbeats, Past};
use super::messages::{LookAt, TakeSnapshot};
use super::snapshot::{SessionView, WorkerSnapshot};

/// A snapshot so fresh is not taken again.
const FRESH: Duration = Duration::from_millis(100);
/// Nor, for who is in a hurry, one that is no older than so many times what it took, and no older than this.
const WORTH: u32 = 20;
const OLD: Duration = Duration::from_secs(1);
/// A worker that does not publish in this time is shown as it last was.
const PATIENCE: Duration = Duration::from_secs(1);

/// One worker's window.
#[derive(Clone)]
pub struct Window {
    pub worker: Recipient<TakeSnapshot>,
    pub look: Recipient<LookAt>,
    pub published: watch::Receiver<Arc<WorkerSnapshot>>,
}

/// Sees all sessions of this node. Cheap to clone.
#[derive(Clone, Default)]
pub struct Inspector {
    windows: Arc<std::sync::RwLock<Vec<Window>>>,
    past: Past,
}

impl Inspector {
    pub fn add(&self, window: Window) {
        self.windows.write().unwrap_or_else(std::sync::PoisonError::into_inner).push(window);
    }

    /// Where workers leave what was noted of sessions that end.
    pub fn past(&self) -> Past {
        self.past.clone()
    }

    /// What was noted of a session of this node that has ended.
    pub fn beats_of_the_past(&self, id: SessionId) -> Option<Heartbeats> {
        self.past.of(id, Mono::now())
    }

    /// Whether every worker's supervisor is alive.
    pub fn all_connected(&self) -> bool {
        self.windows().iter().all(|window| window.worker.connected())
    }

    /// What each worker holds: fresh, or as it last was where a worker does not answer.
    pub async fn look(&self) -> Vec<Arc<WorkerSnapshot>> {
        self.look_at(FRESH).await
    }

    /// What each worker holds now: no snapshot that was begun before this was asked, but where a worker does not answer.
    pub async fn look_now(&self) -> Vec<Arc<WorkerSnapshot>> {
        self.look_at(Duration::ZERO).await
    }

    /// The same for who looks again and again, and rather at once: where many sessions make a snapshot take long, the last
    /// one, up to two seconds after it was taken, while the next is.
    pub async fn glance(&self) -> Vec<Arc<WorkerSnapshot>> {
        let glances = self.windows().into_iter().map(Window::glance);
        futures_util::future::join_all(glances).await
    }

    /// One live session, also one that has just begun.
    pub async fn find(&self, id: SessionId) -> Option<SessionView> {
        for fresh in [FRESH, Duration::ZERO] {
            let snapshots = self.look_at(fresh).await;
            let found = snapshots.iter().flat_map(|s| &s.sessions).find(|view| view.session_id == id);
            if found.is_some() {
                return found.cloned();
            }
        }
        None
    }

    /// A session that the last snapshot shows, closely; none where it ended meanwhile, too.
    pub async fn close_up(&self, id: SessionId) -> Option<CloseUp> {
        self.close_up_in(self.glance().await, id).await
    }

    /// The same of one that may have begun since, which costs a snapshot of everybody: for who has a reason to think so.
    pub async fn close_up_now(&self, id: SessionId) -> Option<CloseUp> {
        self.close_up_in(self.look_now().await, id).await
    }

    async fn close_up_in(&self, snapshots: Vec<Arc<WorkerSnapshot>>, id: SessionId) -> Option<CloseUp> {
        // A hundred thousand sessions are more than the loop of whoever asks has the time for.
        let walk = tokio::task::spawn_blocking(move || {
            snapshots.iter().enumerate().find_map(|(window, snapshot)| {
                let view = snapshot.sessions.iter().find(|view| view.session_id == id)?;
                Some((window, view.key))
            })
        });
        let (window, key) = walk.await.ok()??;
        let look = self.windows().get(window)?.look.clone();
        let asked = look.send(LookAt { key, session_id: id });
        tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()?
    }

    async fn look_at(&self, fresh: Duration) -> Vec<Arc<WorkerSnapshot>> {
        let looks = self.windows().into_iter().map(|window| window.look(fresh));
        futures_util::future::join_all(looks).await
    }

    fn windows(&self) -> Vec<Window> {
        self.windows.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Window {
    async fn look(mut self, fresh: Duration) -> Arc<WorkerSnapshot> {
        let asked = Mono::now();
        let next = async {
            // One that was under way already may lack who has just begun.
            while self.published.borrow_and_update().is_older(asked, fresh) {
                // A full mailbox: someone else's request is about to be answered.
                let _ = self.worker.try_send(TakeSnapshot);
                if self.published.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(PATIENCE, next).await;
        self.published.borrow().clone()
    }

    async fn glance(self) -> Arc<WorkerSnapshot> {
        let last = self.published.borrow().clone();
        let age = (last.taken != Mono(0)).then(|| Mono::now().since(last.taken + last.took));
        match Glance::at(age, last.took) {
            Glance::Last => last,
            Glance::LastWhileNext => {
                let _ = self.worker.try_send(TakeSnapshot);
                last
            }
            Glance::Next => self.look(FRESH).await,
        }
    }
}

/// Which snapshot one who is in a hurry is shown.
#[derive(Debug, PartialEq)]
enum Glance {
    Last,
    /// The last, and the next is taken meanwhile.
    LastWhileNext,
    Next,
}

impl Glance {
    fn at(age: Option<Duration>, took: Duration) -> Self {
        let fresh = (took * WORTH).clamp(FRESH, OLD);
        match age {
            Some(age) if age < fresh => Self::Last,
            Some(age) if age < 2 * fresh && fresh > FRESH => Self::LastWhileNext,
            _ => Self::Next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_took_long_is_shown_for_longer() {
        let ms = Duration::from_millis;
        let at = |age, took| Glance::at(Some(ms(age)), ms(took));
        assert_eq!(
            [at(0, 0), at(99, 0), at(100, 0), at(150, 4)],
            [Glance::Last, Glance::Last, Glance::Next, Glance::Next]
        );
        assert_eq!(
            [at(499, 25), at(500, 25), at(999, 25), at(1_000, 25)],
            [Glance::Last, Glance::LastWhileNext, Glance::LastWhileNext, Glance::Next]
        );
        assert_eq!([at(1_000, 3_000), at(2_000, 3_000)], [Glance::LastWhileNext, Glance::Next]);
        assert_eq!(Glance::at(None, Duration::ZERO), Glance::Next);
    }
}
