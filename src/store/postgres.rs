//! Postgres: one database for all nodes of an installation.
//!
//! - Every writing is one statement: a function in the database that takes the log's lock, decides, writes and lets go
//!   (see the migrations). So a node that stops in the middle of anything holds up nobody, and a call that was cut
//!   short has been done wholly or not at all; asked again, it does no harm.
//! - A run whose node has begun anew, or that was declared lost, writes nothing more ([`StoreError::Fenced`]).
//! - Every call has a deadline. A server that was away or hung is used again as soon as it answers; nothing need be
//!   opened anew.
//! - Commits, reads and signs of life have connections and threads of their own, so that none waits for the others.
//!
//! Left out on purpose: replicas for reading. What they do not have yet would look like what is not there.

mod actions;
mod batch;
mod calls;
mod cluster;
mod columns;
mod connect;
mod held;
mod lane;
mod left;
mod listen;
mod migrate;
mod read;
mod revocations;
mod rows;
mod schema;
mod users;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use futures_util::FutureExt;
use uuid::Uuid;

use super::flapping::Flapping;
use super::{
    Committed, EventFilter, EventPage, HeardPage, HistoryFilter, LogBounds, SessionRecord, StoreError, Write,
};
use crate::event::Event;
use crate::ids::{DeviceId, Incarnation, NodeId, Run, SessionId};
use crate::reason::{DetectedBy, Reason};
use crate::secret::Secret;
use crate::time::Timestamp;
use lane::{Lane, Purpose};
use left::Ending;

pub use cluster::{Peer, PeerState};
pub use held::HeldSession;
pub use listen::Listener;

/// Commits come one after the other anyhow; the second connection is for the call after one that hangs.
const WRITING: Purpose = Purpose { name: "writing", connections: 2, deadline: Duration::from_secs(2) };
const READING: Purpose = Purpose { name: "reading", connections: 4, deadline: Duration::from_secs(5) };
const LEASE: Purpose = Purpose { name: "lease", connections: 2, deadline: Duration::from_secs(2) };
/// Following the log goes on whoever else reads, and what fails there costs nobody a connection.
const FOLLOWING: Purpose = Purpose { name: "following", connections: 1, deadline: Duration::from_secs(5) };

/// See [`super::Store::migrate_postgres`].
pub fn migrate(url: &Secret) -> Result<Vec<String>, StoreError> {
    migrate::migrate(&connect::Connector::new(url, "migrate")?)
}

#[derive(Clone)]
pub struct PostgresStore {
    node: NodeId,
    home: Option<Uuid>,
    /// The tables were brought up to date by this process.
    migrated: Arc<AtomicBool>,
    writing: Lane,
    reading: Lane,
    lease: Lane,
    following: Lane,
    flapping: Option<Flapping>,
}

impl PostgresStore {
    /// Makes a store for a node, without looking whether the database is there. `home` names its data directory.
    ///
    /// # Errors
    ///
    /// One line on what is wrong with the URL, without what is secret of it.
    pub fn new(url: &Secret, node: &NodeId, home: Option<Uuid>) -> Result<Self, StoreError> {
        let connector = connect::Connector::new(url, node.as_str())?;
        Ok(Self {
            node: node.clone(),
            home,
            migrated: Arc::default(),
            writing: Lane::new(&connector, WRITING)?,
            reading: Lane::new(&connector, READING)?,
            lease: Lane::new(&connector, LEASE)?,
            following: Lane::new(&connector, FOLLOWING)?,
            flapping: None,
        })
    }

    /// See [`super::Store::with_flapping`].
    pub fn with_flapping(self, rule: Flapping) -> Self {
        Self { flapping: Some(rule), ..self }
    }

    /// Brings the tables up to date, made where there are none, and names the migrations that this took.
    ///
    /// # Errors
    ///
    /// [`StoreError::Retry`] where the database is away; else one line on what is wrong with it and what to do.
    pub async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        let connector = self.writing.connector().clone();
        let (done, answer) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("lastpong-migrate".into()).spawn(move || {
            // Whoever asked may have gone.
            let _ = done.send(migrate::migrate(&connector));
        });
        thread.map_err(|error| StoreError::Broken(format!("cannot start a thread to migrate: {error}")))?;
        let cut_short = || Err(StoreError::Retry("the migration was cut short".into()));
        match tokio::time::timeout(migrate::IN_ALL, answer).await {
            Ok(answered) => answered.unwrap_or_else(|_| cut_short()),
            Err(_) => cut_short(),
        }
    }

    /// Whether the tables are of this version, so that there is nothing to take turns for.
    async fn is_current(&self) -> Result<bool, StoreError> {
        self.reading.call(|conn| migrate::is_current(conn).boxed()).await
    }

    /// With the tables brought up to date before the first, which may take long.
    pub async fn begin(&self, run: &Run, at: Timestamp) -> Result<(), StoreError> {
        if !AtomicBool::load(&self.migrated, Relaxed) && !self.is_current().await? {
            for name in self.migrate().await? {
                log::info!(migration = name.as_str(); "the database was brought up to date");
            }
        }
        self.migrated.store(true, Relaxed);
        let (run, home) = (run.clone(), self.home);
        self.writing
            .call(move |conn| {
                async move {
                    let call = calls::lastpong_begin(run.node_id.as_str(), run.incarnation.0, at.0, home);
                    let _known: bool = diesel::select(call).load(conn).await.and_then(calls::sole)?;
                    Ok(())
                }
                .boxed()
            })
            .await
    }

    pub async fn commit(&self, run: &Run, batch: Arc<Vec<Write>>) -> Result<Committed, StoreError> {
        let (run, flapping) = (run.clone(), self.flapping);
        self.writing
            .call(move |conn| async move { batch::commit(conn, &run, flapping, &batch).await }.boxed())
            .await
    }

    pub async fn recover(
        &self,
        run: &Run,
        detected: Timestamp,
        batch: usize,
    ) -> Result<Vec<Arc<Event>>, StoreError> {
        let run = run.clone();
        let ending = Ending { reason: Reason::NodeLost, by: DetectedBy::Recovery, detected };
        self.writing
            .call(move |conn| {
                async move {
                    loop {
                        let left = left::of_lost(conn, &run.node_id, batch).await?;
                        if left.is_empty() {
                            left::forget_lost(conn, &run.node_id).await?;
                            return Ok(Vec::new());
                        }
                        let ends: Vec<_> = left.iter().map(|left| ending.of(left)).collect();
                        let events = batch::commit(conn, &run, None, &ends).await?.events;
                        // None where a peer ended all of them meanwhile: there may be more.
                        if !events.is_empty() {
                            return Ok(events);
                        }
                    }
                }
                .boxed()
            })
            .await
    }

    pub async fn touch(&self, incarnation: Incarnation, pages: Vec<HeardPage>) -> Result<(), StoreError> {
        let node = self.node.clone();
        self.writing
            .call(move |conn| async move { left::touch(conn, &node, incarnation, &pages).await }.boxed())
            .await
    }

    pub async fn expire_events(&self, older_than: Timestamp, batch: usize) -> Result<usize, StoreError> {
        self.writing
            .call(move |conn| {
                async move {
                    let call = calls::lastpong_expire(older_than.0, read::row_limit(batch));
                    let gone: i64 = diesel::select(call).load(conn).await.and_then(calls::sole)?;
                    Ok(usize::try_from(gone).unwrap_or(0))
                }
                .boxed()
            })
            .await
    }

    pub async fn ping(&self) -> Result<(), StoreError> {
        use schema::log_head::dsl::{checked_at, id, log_head};
        self.writing
            .call(move |conn| {
                async move {
                    let head = log_head.filter(id.eq(1));
                    let tried = diesel::update(head).set(checked_at.eq(Timestamp::now().0)).execute(conn);
                    match tried.await? {
                        1 => Ok(()),
                        _ => Err(StoreError::Broken("the database has lost the head of the log".into())),
                    }
                }
                .boxed()
            })
            .await
    }

    pub async fn bounds(&self) -> Result<LogBounds, StoreError> {
        self.reading.call(move |conn| read::bounds(conn).boxed()).await
    }

    pub async fn events(
        &self,
        after: i64,
        filter: &EventFilter,
        limit: usize,
    ) -> Result<EventPage, StoreError> {
        let filter = filter.clone();
        self.reading
            .call(move |conn| async move { read::events(conn, after, &filter, limit).await }.boxed())
            .await
    }

    /// The log as it grows, whoever else is reading.
    pub async fn follow(&self, after: i64, limit: usize) -> Result<EventPage, StoreError> {
        let filter = EventFilter::default();
        self.following
            .call(move |conn| async move { read::events(conn, after, &filter, limit).await }.boxed())
            .await
    }

    pub async fn history(
        &self,
        filter: &HistoryFilter,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let filter = filter.clone();
        self.reading.call(move |conn| async move { read::history(conn, &filter, limit).await }.boxed()).await
    }

    pub async fn history_total(&self, filter: &HistoryFilter) -> Result<u64, StoreError> {
        let filter = filter.clone();
        self.reading.call(move |conn| async move { read::history_total(conn, &filter).await }.boxed()).await
    }

    pub async fn session(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        self.reading.call(move |conn| read::session(conn, id).boxed()).await
    }

    pub async fn sessions(&self, ids: &[SessionId]) -> Result<Vec<SessionRecord>, StoreError> {
        let ids = ids.to_vec();
        self.reading.call(move |conn| async move { read::sessions(conn, &ids).await }.boxed()).await
    }

    pub async fn active_of(&self, devices: &[DeviceId]) -> Result<Vec<SessionRecord>, StoreError> {
        let devices = devices.to_vec();
        self.reading.call(move |conn| async move { read::active_of(conn, &devices).await }.boxed()).await
    }

    pub async fn active_page(
        &self,
        run: &Run,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let run = run.clone();
        self.reading
            .call(move |conn| async move { read::active_page(conn, &run, after, limit).await }.boxed())
            .await
    }

    pub async fn close(&self) {
        for lane in [&self.writing, &self.lease, &self.following, &self.reading] {
            lane.close().await;
        }
    }
}
