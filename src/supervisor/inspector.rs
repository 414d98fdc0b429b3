//! Looking at the sessions without slowing them: readers share the snapshot that each worker publishes.

use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use tokio::sync::watch;

use crate::ids::SessionId;
use crate::time::Mono;

use super::messages::TakeSnapshot;
use super::snapshot::{SessionView, WorkerSnapshot};

/// A snapshot so fresh is not taken again.
const FRESH: Duration = Duration::from_millis(100);
/// A worker that does not publish in this time is shown as it last was.
const PATIENCE: Duration = Duration::from_secs(1);

/// One worker's window.
#[derive(Clone)]
pub struct Window {
    pub worker: Recipient<TakeSnapshot>,
    pub published: watch::Receiver<Arc<WorkerSnapshot>>,
}

/// Sees all sessions of this node. Cheap to clone.
#[derive(Clone, Default)]
pub struct Inspector {
    windows: Arc<std::sync::RwLock<Vec<Window>>>,
}

impl Inspector {
    pub fn add(&self, window: Window) {
        self.windows.write().unwrap_or_else(std::sync::PoisonError::into_inner).push(window);
    }

    /// Whether every worker's supervisor is alive.
    pub fn all_connected(&self) -> bool {
        let windows = self.windows.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        windows.iter().all(|window| window.worker.connected())
    }

    /// What each worker holds: fresh, or as it last was where a worker does not answer.
    pub async fn look(&self) -> Vec<Arc<WorkerSnapshot>> {
        self.look_at(FRESH).await
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

    async fn look_at(&self, fresh: Duration) -> Vec<Arc<WorkerSnapshot>> {
        let windows = self.windows.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        futures_util::future::join_all(windows.into_iter().map(|window| window.look(fresh))).await
    }
}

impl Window {
    async fn look(mut self, fresh: Duration) -> Arc<WorkerSnapshot> {
        let last = self.published.borrow_and_update().clone();
        if Mono::now().since(last.taken) < fresh && last.taken != Mono(0) {
            return last;
        }
        // A full mailbox: someone else's request is about to be answered.
        let _ = self.worker.try_send(TakeSnapshot);
        let _ = tokio::time::timeout(PATIENCE, self.published.changed()).await;
        self.published.borrow().clone()
    }
}
