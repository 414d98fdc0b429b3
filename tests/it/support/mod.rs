//! What the stories are told with: the program, its devices, its readers, and the network between them.

pub mod acts;
pub mod chromium;
pub mod churn;
pub mod cluster;
pub mod device;
pub mod disk;
pub mod events;
pub mod expect;
pub mod fleet;
pub mod growth;
pub mod ledger;
pub mod live;
pub mod login;
#[path = "../../support/minter.rs"]
pub mod minter;
pub mod net;
pub mod otlp;
#[path = "../../support/postgres.rs"]
pub mod postgres;
pub mod proxy;
pub mod python;
pub mod raw;
#[path = "../../support/redis.rs"]
pub mod redis;
pub mod scrape;
pub mod server;
pub mod size;
pub mod sse;
pub mod stores;
pub mod tls;
pub mod token;
pub mod watch;

pub use churn::Churn;
pub use cluster::Cluster;
pub use device::Device;
pub use disk::Disk;
pub use events::Events;
pub use expect::End;
pub use fleet::Fleet;
pub use raw::Ask;
pub use scrape::Scraper;
pub use server::Server;
pub use sse::Sse;
pub use stores::Stores;
pub use token::{Token, token};

use std::fs::File;
use std::time::{Duration, Instant};

/// How long a condition may take before its test gives up: far longer than it should take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `condition` again and again until it has an answer.
///
/// # Panics
/// Once [`PATIENCE`] is over, saying what was waited for.
pub async fn eventually<T, F>(what: &str, mut condition: F) -> T
where
    F: AsyncFnMut() -> Option<T>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `future`, or a failure that says what did not come.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain: {what}"),
    }
}

/// Held by a test with thousands of sockets, so that two such tests do not run at once, nor in two processes.
pub async fn heavy() -> File {
    let waiting = tokio::task::spawn_blocking(|| {
        let path = std::env::temp_dir().join("lastpong-heavy-tests.lock");
        let turn = File::create(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        turn.lock().map(|()| turn)
    });
    waiting.await.expect("no panic").expect("the lock is granted")
}
