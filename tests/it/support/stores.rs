//! The stores of an installation: a Postgres and a Redis of a test's own, which it may break as it likes.

use super::postgres::Postgres;
use super::redis::Redis;

/// Both; they go with this value, and have to outlive the programs on them only as far as a test wants it.
pub struct Stores {
    pub postgres: Postgres,
    pub redis: Redis,
}

impl Stores {
    /// Starts both, empty.
    pub async fn start() -> Self {
        let starting =
            tokio::task::spawn_blocking(|| Self { postgres: Postgres::start(), redis: Redis::start() });
        starting.await.expect("both stores start")
    }

    /// Does to them what takes a while, without holding up the devices that live in this process. It needs a runtime
    /// of several threads.
    pub fn suffer<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
        tokio::task::block_in_place(|| what(self))
    }
}
