//! The live sessions of the other nodes, for whoever looks at the whole installation from this one.
//!
//! - Nodes do not speak to each other. A peer's sessions are read where it writes them: in live state (Redis), which has
//!   all that is known of them as of its last round; where that is away or has nothing of the node, on the record, which
//!   says that they are there and when they were last heard. Each part says where it is from and how old it is.
//! - What was read is kept as a mirror for all who look, and only while somebody does: nothing is read for nobody, and an
//!   unwatched mirror is let go. Reading takes at most a twentieth of the time, on the thread aside.
//! - At most a quarter of a million sessions are mirrored; what lacks some says so.
//!
//! Left out: this node's own sessions, which its workers show exactly.

mod read;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::ids::{NodeId, SessionId};
use crate::store::live::Live;
use crate::store::postgres::PostgresStore;
use crate::supervisor::snapshot::{SessionView, Source};
use crate::time::{Mono, Timestamp};

/// Sessions of other nodes that are mirrored: some hundreds of bytes each.
const MOST: usize = 250_000;
/// How long a mirror that nobody looks at is kept.
const LINGER: Duration = Duration::from_secs(60);
/// How long who looks waits for a mirror; then he is shown the last.
const PATIENCE: Duration = Duration::from_secs(3);
/// So many times as long as reading took, nothing is read.
const REST: u32 = 20;

/// One node's part of what is seen.
#[derive(Debug, Clone)]
pub struct Part {
    pub node_id: NodeId,
    /// Where it is read.
    pub source: Source,
    /// As of when. What began, ended or was heard since may be missing.
    pub as_of: Timestamp,
    pub sessions: usize,
    /// It was declared lost, and its sessions are being ended.
    pub lost: bool,
    /// All of its sessions are there.
    pub whole: bool,
}

/// The other nodes, as they were read last.
#[derive(Debug, Clone, Default)]
pub struct Mirror {
    pub parts: Vec<Part>,
    pub sessions: Arc<Vec<SessionView>>,
    /// The nodes could be asked for: there are no others than those told.
    pub whole: bool,
    began: Mono,
    took: Duration,
}

/// Sees the other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Peers(Option<Arc<Shared>>);

struct Shared {
    store: PostgresStore,
    live: Option<Live>,
    /// The least time between two readings.
    every: Duration,
    wanted: Notify,
    mirror: watch::Sender<Option<Arc<Mirror>>>,
}

impl Peers {
    /// Of a node that has none.
    pub fn none() -> Self {
        Self(None)
    }

    /// Reads on `aside`, at most once in `every`.
    pub fn new(store: PostgresStore, live: Option<Live>, every: Duration, aside: &Handle) -> Self {
        let (wanted, mirror) = (Notify::new(), watch::Sender::new(None));
        let shared = Arc::new(Shared { store, live, every, wanted, mirror });
        aside.spawn(shared.clone().keep());
        Self(Some(shared))
    }

    /// The other nodes: as they were last read, if that is not long ago, else as they are read now.
    pub async fn look(&self) -> Arc<Mirror> {
        let Some(shared) = &self.0 else { return Arc::new(Mirror { whole: true, ..Mirror::default() }) };
        let mut mirror = shared.mirror.subscribe();
        let asked = Mono::now();
        shared.wanted.notify_one();
        let good = |mirror: &Option<Arc<Mirror>>| {
            mirror
                .as_ref()
                .is_some_and(|mirror| asked.since(mirror.began) <= 2 * shared.pause(mirror) + mirror.took)
        };
        // Where the wait is in vain, the last that there is.
        let _ = timeout(PATIENCE, mirror.wait_for(good)).await;
        let last = mirror.borrow().clone();
        last.unwrap_or_default()
    }

    /// The other nodes and how much each holds, without their sessions; none where they cannot be asked for now.
    pub async fn standing(&self) -> Vec<Part> {
        let Some(shared) = &self.0 else { return Vec::new() };
        read::standing(&shared.store, shared.live.as_ref()).await.unwrap_or_default()
    }

    /// One session of another node as it is in live state; none where that does not have it.
    pub async fn session(&self, id: SessionId) -> Option<SessionView> {
        let live = self.0.as_ref()?.live.as_ref()?;
        let session = live.session(id).await.ok()??;
        Some(read::shown(session, Timestamp::now()))
    }
}

impl Shared {
    fn pause(&self, mirror: &Mirror) -> Duration {
        self.every.max(mirror.took * REST)
    }

    async fn keep(self: Arc<Self>) {
        loop {
            if timeout(LINGER, self.wanted.notified()).await.is_err() {
                self.mirror.send_if_modified(|mirror| mirror.take().is_some());
                continue;
            }
            let mirror = match read::mirror(&self.store, self.live.as_ref()).await {
                Ok(mirror) => mirror,
                Err(error) => {
                    log::debug!(error:% = error; "the other nodes cannot be looked at");
                    let last = self.mirror.borrow().clone().unwrap_or_default();
                    // As old as it is, it is the last for who asks now.
                    Mirror { whole: false, began: Mono::now(), ..(*last).clone() }
                }
            };
            let pause = self.pause(&mirror);
            self.mirror.send_replace(Some(Arc::new(mirror)));
            tokio::time::sleep(pause).await;
        }
    }
}
