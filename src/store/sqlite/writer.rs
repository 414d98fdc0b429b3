//! The thread that writes: it owns the connection and does one job after the other, each in a transaction.
//!
//! - The queue is bounded; a full one refuses at once, so that whoever writes sees the overload.
//! - After a failure the connection is opened anew before the next job. What state SQLite and Diesel left it in
//!   need not be known then, and a repaired disk needs no restart.
//! - The thread ends at [`Writer::close`] or with the last clone of the store, and lets the file's lock go last.

use std::fs::File;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use diesel::SqliteConnection;
use diesel::result::Error;
use tokio::sync::oneshot;

use super::open::{self, Layout, Limits, Opened};
use crate::store::StoreError;

/// Jobs waiting for the thread. A job is a whole batch, so that few are ever needed.
const QUEUE: usize = 64;

type Work = Box<dyn FnOnce(Result<&mut SqliteConnection, StoreError>) -> Health + Send>;

enum Job {
    Run(Work),
    Close(oneshot::Sender<()>),
}

/// Whether a job leaves a connection that the next can use.
enum Health {
    Good,
    Unknown,
}

/// Sends jobs to the thread. Cheap to clone.
#[derive(Clone)]
pub(in crate::store) struct Writer {
    jobs: SyncSender<Job>,
}

impl Writer {
    pub(in crate::store) fn start(opened: Opened) -> Result<Self, StoreError> {
        let (jobs, queue) = sync_channel(QUEUE);
        let Opened { layout, conn, url, limits, lock } = opened;
        let name = layout.name;
        let state = State { conn: Some(conn), url, layout, limits, lock };
        std::thread::Builder::new()
            .name(format!("lastpong-{name}"))
            .spawn(move || state.serve(&queue))
            .map_err(|error| StoreError::Broken(format!("cannot start the {name}'s thread: {error}")))?;
        Ok(Self { jobs })
    }

    /// Runs `work` in a transaction of its own: when this returns its value, what it wrote is durable; when this
    /// returns an error, it wrote nothing. The work is done even if nobody waits for it any more.
    pub(in crate::store) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SqliteConnection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Run(Box::new(move |conn| {
            let result = conn.and_then(|conn| in_transaction(conn, work));
            let health = if result.is_ok() { Health::Good } else { Health::Unknown };
            // Whoever asked may have gone; that changes nothing of what was written.
            let _ = reply.send(result);
            health
        }));
        self.jobs.try_send(job).map_err(|refused| match refused {
            TrySendError::Full(_) => StoreError::Retry(format!("{QUEUE} batches wait for the disk already")),
            TrySendError::Disconnected(_) => closed(),
        })?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Lets the jobs before this one finish, then ends the thread. Returns when the file is let go.
    pub(in crate::store) async fn close(&self) {
        let (reply, done) = oneshot::channel();
        let jobs = self.jobs.clone();
        // The queue may be full; waiting for room must not hold up the caller's runtime. An error here or below
        // says that the thread has ended, which is what was asked for.
        let _ = tokio::task::spawn_blocking(move || jobs.send(Job::Close(reply))).await;
        let _ = done.await;
    }
}

struct State {
    conn: Option<SqliteConnection>,
    url: String,
    layout: &'static Layout,
    limits: Limits,
    /// The operating system lets it go with the process, however that ends.
    lock: Option<File>,
}

impl State {
    fn serve(mut self, queue: &Receiver<Job>) {
        let mut asked_by = None;
        while let Ok(job) = queue.recv() {
            match job {
                Job::Run(work) => {
                    if let Health::Unknown = work(self.connection()) {
                        self.conn = None;
                    }
                }
                Job::Close(reply) => {
                    asked_by = Some(reply);
                    break;
                }
            }
        }
        // Where another process holds the file, its log is for that one to move.
        if self.lock.is_some()
            && let Some(conn) = &mut self.conn
            && let Err(error) = open::checkpoint(conn)
        {
            log::warn!(error:% = error; "the write-ahead log was not emptied; it will be at the next start");
        }
        drop(self);
        if let Some(reply) = asked_by {
            let _ = reply.send(());
        }
    }

    fn connection(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        if self.conn.is_none() {
            self.conn = Some(open::connect_writer(&self.url, self.layout, self.limits)?);
        }
        self.conn.as_mut().ok_or_else(closed)
    }
}

/// `BEGIN IMMEDIATE` … `COMMIT` around `work`. The error is that of `work`, not that of a rollback after it: on a
/// full disk SQLite rolls back by itself, and Diesel would report only that there was nothing left to roll back.
fn in_transaction<T>(
    conn: &mut SqliteConnection,
    work: impl FnOnce(&mut SqliteConnection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut fault = None;
    let result = conn.immediate_transaction(|conn| {
        work(conn).map_err(|error| {
            fault = Some(error);
            Error::RollbackTransaction
        })
    });
    result.map_err(|error| fault.unwrap_or_else(|| error.into()))
}

fn closed() -> StoreError {
    StoreError::Broken("the store is closed".to_owned())
}
