//! Connections for one kind of work, and the thread that drives them.
//!
//! - Every call has a deadline, the wait for a connection within it; a server that hangs is like one that is gone.
//! - A connection whose call failed, or was cut short, is closed: nobody need know what state it was left in. Those
//!   that lie idle beside it go too, for they likely lead to the same dead server.
//! - As many calls wait as there is room; one more is refused at once.
//! - A connection is driven by the lane's own thread, so that calls may be awaited on any runtime, and a call goes on
//!   to its end, or its deadline, when nobody waits for it any more.

use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{self, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult};
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::PoolableConnection;
use futures_util::future::BoxFuture;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, oneshot};

use super::connect::Connector;
use crate::store::StoreError;

/// Calls that wait or are under way. A call is a whole batch, so that few are ever needed.
const ROOM: u32 = 64;

/// What a lane is for, and what that allows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Purpose {
    pub name: &'static str,
    pub connections: usize,
    pub deadline: Duration,
}

/// Cheap to clone; its thread ends with the last clone.
#[derive(Clone)]
pub(super) struct Lane {
    pool: Pool<Connections>,
    room: Arc<Semaphore>,
    deadline: Duration,
    thread: Arc<Thread>,
}

struct Thread {
    handle: Handle,
    /// Dropped, it ends the thread.
    _stop: oneshot::Sender<()>,
}

impl Lane {
    /// Makes the lane; connections come when they are needed.
    pub(super) fn new(connector: &Connector, purpose: Purpose) -> Result<Self, StoreError> {
        let broken = |error: &dyn std::fmt::Display| {
            StoreError::Broken(format!("cannot start the store's thread: {error}"))
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| broken(&error))?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        std::thread::Builder::new()
            .name(format!("lastpong-{}", purpose.name))
            .spawn(move || {
                // An error says that the last clone is gone, which is what is waited for.
                let _ = runtime.block_on(stopped);
                // A call that hangs must not hold up the end.
                runtime.shutdown_background();
            })
            .map_err(|error| broken(&error))?;
        let manager = Connections { connector: connector.with_timeout(purpose.deadline) };
        let pool = Pool::builder(manager).max_size(purpose.connections).build();
        Ok(Self {
            pool: pool.map_err(|error| broken(&error))?,
            room: Arc::new(Semaphore::new(ROOM as usize)),
            deadline: purpose.deadline,
            thread: Arc::new(Thread { handle, _stop: stop }),
        })
    }

    /// Does `work` on a connection. An error of the connection or of the deadline leaves open whether it was done.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl for<'c> FnOnce(&'c mut AsyncPgConnection) -> BoxFuture<'c, Result<T, StoreError>>
        + Send
        + 'static,
    ) -> Result<T, StoreError> {
        let room = self.room.clone().try_acquire_owned().map_err(|_| {
            if self.room.is_closed() {
                return StoreError::Broken("the store is closed".into());
            }
            StoreError::Retry(format!("{ROOM} calls wait for the database already, or it is being closed"))
        })?;
        let (pool, deadline) = (self.pool.clone(), self.deadline);
        let call = self.spawn(async move {
            let _room = room;
            let done = tokio::time::timeout(deadline, on_connection(&pool, work)).await;
            let done = done.unwrap_or_else(|_| {
                Err(StoreError::Retry(format!("the database did not answer in {} s", deadline.as_secs())))
            });
            if let Err(StoreError::Retry(_)) = &done {
                pool.retain(|_, _| false);
            }
            done
        });
        call.await.unwrap_or_else(|error| Err(StoreError::Retry(format!("the call was cut short: {error}"))))
    }

    /// Runs `work` on the lane's thread.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.thread.handle.spawn(work)
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.pool.manager().connector
    }

    /// Waits for the calls that are under way, takes none after them, and closes the connections.
    pub(super) async fn close(&self) {
        // An error says that it was closed before.
        if let Ok(all) = self.room.acquire_many(ROOM).await {
            self.room.close();
            drop(all);
        }
        self.pool.close();
    }
}

async fn on_connection<T>(
    pool: &Pool<Connections>,
    work: impl for<'c> FnOnce(&'c mut AsyncPgConnection) -> BoxFuture<'c, Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let mut lent = Lent(Some(pool.get().await.map_err(no_connection)?));
    let Some(conn) = &mut lent.0 else { return Err(StoreError::Retry("no connection".into())) };
    let done = work(conn).await;
    if done.is_ok() {
        // Back to the pool.
        drop(lent.0.take());
    }
    done
}

/// A connection in use. Dropped before its work is well done, it does not go back to the pool.
struct Lent(Option<Object<Connections>>);

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

fn no_connection(error: PoolError<StoreError>) -> StoreError {
    match error {
        // What is wrong for good at a start, as a password, may pass while lastpong runs.
        PoolError::Backend(error) => StoreError::Retry(match error {
            StoreError::Retry(text) | StoreError::Broken(text) => text,
            StoreError::Fenced | StoreError::NameTaken => error.to_string(),
        }),
        PoolError::Closed => StoreError::Broken("the store is closed".into()),
        other => StoreError::Retry(format!("no connection to the database: {other}")),
    }
}

/// Opens connections for the pool, and keeps from it those that closed while they lay idle.
struct Connections {
    connector: Connector,
}

impl managed::Manager for Connections {
    type Type = AsyncPgConnection;
    type Error = StoreError;

    async fn create(&self) -> Result<AsyncPgConnection, StoreError> {
        self.connector.connect().await
    }

    async fn recycle(&self, conn: &mut AsyncPgConnection, _: &Metrics) -> RecycleResult<StoreError> {
        if conn.is_broken() { Err(RecycleError::message("it was closed")) } else { Ok(()) }
    }
}
