//! SQLite: one writer, many readers, WAL.
//!
//! One thread owns the one connection that writes (`writer`); readers have connections of their own, which see
//! the last commit and wait for nobody. The file is held by a lock beside it from `open` until the writer ends.
//!
//! Left out on purpose: giving space back to the disk. Retention frees pages, new events fill them.

mod actions;
mod batch;
mod heard;
pub(in crate::store) mod open;
mod read;
mod revocations;
mod rows;
mod statements;
mod users;
mod write;
pub(in crate::store) mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use diesel::SqliteConnection;
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Pool};

use super::flapping::Flapping;
use super::{
    Committed, EventFilter, EventPage, HeardPage, HistoryFilter, LogBounds, SessionRecord, StoreError, Write,
};
use crate::event::Event;
use crate::ids::{DeviceId, Incarnation, Run, SessionId};
use crate::time::Timestamp;

pub use open::migrate;

/// Connections for reading, opened as they are needed.
const READERS: u32 = 4;

/// How long a reader waits for its answer. A disk that hangs keeps its connection, and the others fail in their turn.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// How long a read waits for one of them.
const READER_WAIT: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct SqliteStore {
    writer: writer::Writer,
    readers: Pool<ConnectionManager<SqliteConnection>>,
    flapping: Option<Flapping>,
}

impl SqliteStore {
    /// See [`super::Store::open_sqlite`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, open::Limits::default())
    }

    fn open_with(path: &Path, limits: open::Limits) -> Result<Self, StoreError> {
        Self::of(open::open(path, limits)?)
    }

    /// See [`super::Store::open_sqlite_beside`].
    pub fn open_beside(path: &Path) -> Result<Self, StoreError> {
        Self::of(open::open_beside(path)?)
    }

    fn of(opened: open::Opened) -> Result<Self, StoreError> {
        let readers = Pool::builder()
            .max_size(READERS)
            .min_idle(Some(0))
            .connection_timeout(READER_WAIT)
            .test_on_check_out(false)
            .max_lifetime(None)
            .connection_customizer(Box::new(ReadOnly))
            .build_unchecked(ConnectionManager::new(opened.url.clone()));
        let writer = writer::Writer::start(opened)?;
        Ok(Self { writer, readers, flapping: None })
    }

    /// See [`super::Store::with_flapping`].
    pub fn with_flapping(self, rule: Flapping) -> Self {
        Self { flapping: Some(rule), ..self }
    }

    pub async fn begin(&self, run: &Run, at: Timestamp) -> Result<(), StoreError> {
        let run = run.clone();
        self.writer.run(move |conn| write::begin(conn, &run, at)).await
    }

    pub async fn commit(&self, run: &Run, batch: Arc<Vec<Write>>) -> Result<Committed, StoreError> {
        let (run, flapping) = (run.clone(), self.flapping);
        self.writer.run(move |conn| batch::commit(conn, &run, flapping, &batch)).await
    }

    pub async fn recover(
        &self,
        run: &Run,
        detected: Timestamp,
        batch: usize,
    ) -> Result<Vec<Arc<Event>>, StoreError> {
        let run = run.clone();
        self.writer.run(move |conn| write::recover(conn, &run, detected, batch)).await
    }

    pub async fn touch(&self, incarnation: Incarnation, pages: Vec<HeardPage>) -> Result<(), StoreError> {
        self.writer.run(move |conn| heard::touch(conn, incarnation, &pages)).await
    }

    pub async fn expire_events(&self, older_than: Timestamp, batch: usize) -> Result<usize, StoreError> {
        self.writer.run(move |conn| write::expire(conn, older_than, batch)).await
    }

    pub async fn ping(&self) -> Result<(), StoreError> {
        self.writer.run(|conn| write::probe(conn, Timestamp::now())).await
    }

    pub async fn bounds(&self) -> Result<LogBounds, StoreError> {
        self.read(read::bounds).await
    }

    pub async fn events(
        &self,
        after: i64,
        filter: &EventFilter,
        limit: usize,
    ) -> Result<EventPage, StoreError> {
        let filter = filter.clone();
        self.read(move |conn| read::events(conn, after, &filter, limit)).await
    }

    pub async fn history(
        &self,
        filter: &HistoryFilter,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let filter = filter.clone();
        self.read(move |conn| read::history(conn, &filter, limit)).await
    }

    pub async fn history_total(&self, filter: &HistoryFilter) -> Result<u64, StoreError> {
        let filter = filter.clone();
        self.read(move |conn| read::history_total(conn, &filter)).await
    }

    pub async fn session(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        self.read(move |conn| read::session(conn, id)).await
    }

    pub async fn sessions(&self, ids: &[SessionId]) -> Result<Vec<SessionRecord>, StoreError> {
        let ids = ids.to_vec();
        self.read(move |conn| read::sessions(conn, &ids)).await
    }

    pub async fn active_of(&self, devices: &[DeviceId]) -> Result<Vec<SessionRecord>, StoreError> {
        let devices = devices.to_vec();
        self.read(move |conn| read::active_of(conn, &devices)).await
    }

    pub async fn active_page(
        &self,
        run: &Run,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let run = run.clone();
        self.read(move |conn| read::active_page(conn, &run, after, limit)).await
    }

    pub async fn close(&self) {
        self.writer.close().await;
    }

    /// Runs `work` on a reader's connection, on a thread that may block. It sees one state of the database.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SqliteConnection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = self.readers.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let mut conn = readers
                .get()
                .map_err(|error| StoreError::Retry(format!("no connection to read with: {error}")))?;
            diesel::Connection::transaction(&mut *conn, work)
        });
        match tokio::time::timeout(READ_DEADLINE, reading).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => Err(StoreError::Retry(format!("the read was cut short: {error}"))),
            Err(_) => {
                Err(StoreError::Retry(format!("the disk did not answer in {} s", READ_DEADLINE.as_secs())))
            }
        }
    }
}

/// Makes of a new connection one that cannot write.
#[derive(Debug)]
struct ReadOnly;

impl CustomizeConnection<SqliteConnection, diesel::r2d2::Error> for ReadOnly {
    fn on_acquire(&self, conn: &mut SqliteConnection) -> Result<(), diesel::r2d2::Error> {
        open::configure_reader(conn).map_err(diesel::r2d2::Error::QueryError)
    }
}
