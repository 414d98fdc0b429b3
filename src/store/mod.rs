//! What a store promises: the record of sessions and the event log.
//!
//! - [`Store::commit`] writes a batch in one transaction, in the order given; when it returns, the batch is
//!   durable (fsynced) with every event it made, and each event has its `seq` and `device_seq`.
//! - `seq` rises by one from event to event of the installation, `device_seq` within a device; neither is used twice.
//! - A start is written once however often it is asked for; an end only while the session is active under the
//!   incarnation that says so. So a retry after an unclear failure is safe.
//! - Reading never waits for writing.
//!
//! All SQL of lastpong is in this folder.

pub mod audit;
pub mod bans;
mod error;
mod filter;
pub mod flapping;
pub(crate) mod heard;
pub mod journal;
pub mod live;
pub mod postgres;
pub mod revocations;
mod schema;
pub mod sqlite;
pub mod users;
mod write;

#[cfg(test)]
mod contract;

pub use postgres::{HeldSession, Peer, PeerState};
pub use write::{Committed, End, Outcome, Start, Told, Write};

use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use crate::chaos::{Safety, lacks};
use crate::event::Event;
use crate::ids::{DeviceId, DeviceType, Incarnation, NodeId, Run, SessionId};
use crate::reason::Reason;
use crate::secret::Secret;
use crate::time::Timestamp;

/// When some of a run's sessions were last heard, written now and then so that a session lost with its node still
/// says it. A page takes the place of the page of its number.
#[derive(Debug, Clone)]
pub struct HeardPage {
    pub number: i64,
    pub heard: Vec<LastHeard>,
}

/// When one session was last heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastHeard {
    pub session_id: SessionId,
    pub last_pong_at: Option<Timestamp>,
    pub last_active_at: Timestamp,
}

/// Which events a reader wants. An empty list wants all. Who knows the device of a session names it too: the log is
/// indexed by device, and without one is read through for the session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub types: Vec<Match>,
    pub device_ids: Vec<Match>,
    pub device_types: Vec<Match>,
    pub reasons: Vec<Match>,
    pub session_id: Option<SessionId>,
}

/// A word, or the beginning of one (written with `*` at its end).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    Is(String),
    StartsWith(String),
}

/// A stretch of the log.
#[derive(Debug, Default)]
pub struct EventPage {
    pub events: Vec<Arc<Event>>,
    /// The log was read up to and with this `seq`: the `after` of the next page.
    pub scanned_to: i64,
}

/// The log's ends: `oldest..=newest` is kept. `oldest` is `newest + 1` where nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    pub oldest: i64,
    pub newest: i64,
}

/// A session as its row says.
#[derive(Debug, Clone)]
pub struct SessionRecord {
    pub session_id: SessionId,
    pub device_id: DeviceId,
    pub device_type: DeviceType,
    pub node_id: NodeId,
    pub incarnation: Incarnation,
    pub status: Status,
    pub start_time: Timestamp,
    pub end_time: Option<Timestamp>,
    /// The `seq` of its end; absent while active.
    pub end_seq: Option<i64>,
    pub reason: Option<Reason>,
    /// `data` of its end, as JSON and without the order; absent while active.
    pub end: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Active,
    Closed,
}

/// Which closed sessions a reader wants, the end that came last on the record first.
#[derive(Debug, Clone, Default)]
pub struct HistoryFilter {
    pub device_id: Option<Match>,
    pub device_type: Option<String>,
    pub node_id: Option<String>,
    pub reason: Option<Reason>,
    /// The `end_seq` of the last row of the page before.
    pub before: Option<i64>,
}

/// Why a store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// May pass: locked, full disk, I/O. The batch was not written; it may be sent again as it is.
    #[error("the store did not take it: {0}")]
    Retry(String),
    /// Will not pass by itself: no database, a damaged one, one of a later version.
    #[error("{0}")]
    Broken(String),
    /// The run that asks was declared lost by another node: its sessions have been ended for it.
    #[error("this run of the node was declared lost by another")]
    Fenced,
    /// Another process goes by this node's name.
    #[error(
        "another process runs as this node, with a data folder of its own: give each its own LASTPONG_NODE_ID"
    )]
    NameTaken,
}

/// The SQL store. Cheap to clone; its calls may be awaited on any Tokio runtime.
#[derive(Clone)]
pub enum Store {
    Sqlite(sqlite::SqliteStore),
    Postgres(postgres::PostgresStore),
}

impl Store {
    /// Opens the SQLite file at `path`, made where there is none, and brings its tables up to date. Blocks: for a
    /// plain thread. The file is this process's alone until the store is closed or the process dies.
    ///
    /// # Errors
    ///
    /// One line that names the path, what is wrong with it and what to do.
    pub fn open_sqlite(path: &Path) -> Result<Store, StoreError> {
        sqlite::SqliteStore::open(path).map(Store::Sqlite)
    }

    /// Brings the tables at `path` up to date without serving, and names the migrations that this took.
    ///
    /// # Errors
    ///
    /// As [`Store::open_sqlite`].
    pub fn migrate_sqlite(path: &Path) -> Result<Vec<String>, StoreError> {
        sqlite::migrate(path)
    }

    /// The Postgres store of a node, without looking whether the database is there; `home` names the node's data
    /// directory. Its tables must be brought up to date ([`postgres::PostgresStore::migrate`]) before it serves.
    ///
    /// # Errors
    ///
    /// One line on what is wrong with the URL, without what is secret of it.
    pub fn open_postgres(url: &Secret, node: &NodeId, home: Option<Uuid>) -> Result<Store, StoreError> {
        postgres::PostgresStore::new(url, node, home).map(Store::Postgres)
    }

    /// Brings the tables of the Postgres database up to date without serving, and names the migrations that this took.
    /// Blocks: for a plain thread.
    ///
    /// # Errors
    ///
    /// One line on what is wrong with the URL or the database, without what is secret of it.
    pub fn migrate_postgres(url: &Secret) -> Result<Vec<String>, StoreError> {
        postgres::migrate(url)
    }

    /// What many nodes share, where this is a store that many can.
    pub fn cluster(&self) -> Option<&postgres::PostgresStore> {
        match self {
            Store::Sqlite(_) => None,
            Store::Postgres(s) => Some(s),
        }
    }

    /// Makes this run of the node known.
    pub async fn begin(&self, run: &Run, at: Timestamp) -> Result<(), StoreError> {
        match self {
            Store::Sqlite(s) => s.begin(run, at).await,
            Store::Postgres(s) => s.begin(run, at).await,
        }
    }

    /// Writes the batch in one transaction, in its order: all of it or, with an error, nothing. `run` says it, whichever
    /// run the sessions are of.
    pub async fn commit(&self, run: &Run, batch: Arc<Vec<Write>>) -> Result<Committed, StoreError> {
        match self {
            Store::Sqlite(s) => s.commit(run, batch).await,
            Store::Postgres(s) => s.commit(run, batch).await,
        }
    }

    /// Ends up to `batch` sessions that are still active under another incarnation, as lost with their node, and
    /// returns the ends. None are left when it returns none. For the start of a run, before it has sessions of its own:
    /// then it looks at none but those it ends.
    pub async fn recover(
        &self,
        run: &Run,
        detected: Timestamp,
        batch: usize,
    ) -> Result<Vec<Arc<Event>>, StoreError> {
        if lacks(Safety::Recovery) {
            return Ok(Vec::new());
        }
        match self {
            Store::Sqlite(s) => s.recover(run, detected, batch).await,
            Store::Postgres(s) => s.recover(run, detected, batch).await,
        }
    }

    /// Notes when sessions of this run were last heard.
    pub async fn touch(&self, incarnation: Incarnation, pages: Vec<HeardPage>) -> Result<(), StoreError> {
        match self {
            Store::Sqlite(s) => s.touch(incarnation, pages).await,
            Store::Postgres(s) => s.touch(incarnation, pages).await,
        }
    }

    pub async fn bounds(&self) -> Result<LogBounds, StoreError> {
        match self {
            Store::Sqlite(s) => s.bounds().await,
            Store::Postgres(s) => s.bounds().await,
        }
    }

    /// Up to `limit` events after `after` that the filter wants, in `seq` order. One call reads a bounded stretch of
    /// the log: a page may be short, or empty, and still not be the last. The reader is at the log's end when
    /// `scanned_to` no longer rises.
    pub async fn events(
        &self,
        after: i64,
        filter: &EventFilter,
        limit: usize,
    ) -> Result<EventPage, StoreError> {
        match self {
            Store::Sqlite(s) => s.events(after, filter, limit).await,
            Store::Postgres(s) => s.events(after, filter, limit).await,
        }
    }

    /// Deletes up to `batch` events from the log's old end, as long as they are older than `older_than`, and with
    /// the event of its end each session's row. Devices stay, so that their numbers go on. Says how many events.
    pub async fn expire_events(&self, older_than: Timestamp, batch: usize) -> Result<usize, StoreError> {
        match self {
            Store::Sqlite(s) => s.expire_events(older_than, batch).await,
            Store::Postgres(s) => s.expire_events(older_than, batch).await,
        }
    }

    /// Up to `limit` closed sessions, the end that came last on the record first.
    pub async fn history(
        &self,
        filter: &HistoryFilter,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        match self {
            Store::Sqlite(s) => s.history(filter, limit).await,
            Store::Postgres(s) => s.history(filter, limit).await,
        }
    }

    /// How many closed sessions the filter leaves, whichever page `before` asks for.
    pub async fn history_total(&self, filter: &HistoryFilter) -> Result<u64, StoreError> {
        match self {
            Store::Sqlite(s) => s.history_total(filter).await,
            Store::Postgres(s) => s.history_total(filter).await,
        }
    }

    pub async fn session(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        match self {
            Store::Sqlite(s) => s.session(id).await,
            Store::Postgres(s) => s.session(id).await,
        }
    }

    /// Those of these sessions that are on the record, in no order.
    pub async fn sessions(&self, ids: &[SessionId]) -> Result<Vec<SessionRecord>, StoreError> {
        match self {
            Store::Sqlite(s) => s.sessions(ids).await,
            Store::Postgres(s) => s.sessions(ids).await,
        }
    }

    /// The active sessions of these devices, of whichever node.
    pub async fn active_of(&self, devices: &[DeviceId]) -> Result<Vec<SessionRecord>, StoreError> {
        match self {
            Store::Sqlite(s) => s.active_of(devices).await,
            Store::Postgres(s) => s.active_of(devices).await,
        }
    }

    /// Up to `limit` active sessions of a run after `after`, in the order of their ids.
    pub async fn active_page(
        &self,
        run: &Run,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        match self {
            Store::Sqlite(s) => s.active_page(run, after, limit).await,
            Store::Postgres(s) => s.active_page(run, after, limit).await,
        }
    }

    /// Whether a batch would be taken now: a small write, made durable as any other.
    pub async fn ping(&self) -> Result<(), StoreError> {
        match self {
            Store::Sqlite(s) => s.ping().await,
            Store::Postgres(s) => s.ping().await,
        }
    }

    /// Finishes what was asked for and lets go of the database. Whatever is asked of the store later fails.
    pub async fn close(&self) {
        match self {
            Store::Sqlite(s) => s.close().await,
            Store::Postgres(s) => s.close().await,
        }
    }
}
