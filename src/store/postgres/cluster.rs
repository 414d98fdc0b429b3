//! What nodes ask of the store about each other: signs of life, who is lost, who ends what a lost node left.
//!
//! The store says what is so; whether a peer that does not renew is lost, is for its peers to judge, by their own
//! clocks. Every decision is one statement under the log's lock and holds only while nothing changed meanwhile.

use std::sync::Arc;

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::FutureExt;

use super::calls::{lastpong_adopt, lastpong_declare_lost, lastpong_renew, sole};
use super::left::{self, Ending};
use super::listen::Listener;
use super::rows::{ACTIVE, word};
use super::schema::{nodes, session_records};
use super::{PostgresStore, batch};
use crate::event::Event;
use crate::ids::{EventId, Incarnation, NodeId, Run, SessionId};
use crate::reason::{DetectedBy, Reason};
use crate::store::StoreError;
use crate::time::Timestamp;

/// Another node, as it stands on the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub run: Run,
    /// Counts its signs of life: it lives as long as this changes.
    pub renewals: i64,
    pub state: PeerState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerState {
    Live,
    /// Declared so; `reaper` ends its sessions.
    Lost {
        reaper: NodeId,
    },
    /// Stopped in good order, or lost and nothing of it is active any more.
    Gone,
}

const LIVE: &str = "live";
const LOST: &str = "lost";
const REAPED: &str = "reaped";
const STOPPED: &str = "stopped";

impl PostgresStore {
    /// Gives a sign of life and learns of all other nodes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fenced`] where this run was declared lost, or another run of the node began.
    pub async fn renew(&self, run: &Run) -> Result<Vec<Peer>, StoreError> {
        let run = run.clone();
        self.lease.call(move |conn| async move { renew(conn, &run).await }.boxed()).await
    }

    /// How often a process of another data directory has renewed in this node's name, where one is live on the record.
    pub async fn rival(&self) -> Result<Option<i64>, StoreError> {
        let (node, home) = (self.node.clone(), self.home);
        self.lease
            .call(move |conn| {
                async move {
                    let other = nodes::table
                        .find(node.as_str())
                        .filter(nodes::state.eq(LIVE))
                        .filter(nodes::home.ne(home))
                        .select(nodes::renewals);
                    Ok(other.first(conn).await.optional()?)
                }
                .boxed()
            })
            .await
    }

    /// Declares `peer` lost, by this run, if it is still as it was seen. Returns the number of the event that says so.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fenced`] where this run is itself lost.
    pub async fn declare_lost(&self, run: &Run, peer: &Peer) -> Result<Option<i64>, StoreError> {
        let (run, peer) = (run.clone(), peer.clone());
        self.writing
            .call(move |conn| {
                async move {
                    let call = lastpong_declare_lost(
                        run.node_id.as_str(),
                        run.incarnation.0,
                        peer.run.node_id.as_str(),
                        peer.run.incarnation.0,
                        peer.renewals,
                        EventId::new().0,
                        Timestamp::now().0,
                    );
                    let (fenced, seq, _): (bool, Option<i64>, Option<String>) =
                        diesel::select(call).load(conn).await.and_then(sole)?;
                    if fenced { Err(StoreError::Fenced) } else { Ok(seq) }
                }
                .boxed()
            })
            .await
    }

    /// Ends up to `batch` sessions that a lost node left, the oldest first, and returns the ends. When it returns
    /// none, none are left, and the node is gone.
    pub async fn reap(
        &self,
        run: &Run,
        lost: &NodeId,
        detected: Timestamp,
        batch: usize,
    ) -> Result<Vec<Arc<Event>>, StoreError> {
        let (run, lost) = (run.clone(), lost.clone());
        self.writing
            .call(move |conn| async move { reap(conn, &run, &lost, detected, batch).await }.boxed())
            .await
    }

    /// Takes over the reaping of a lost node from a reaper that is itself not alive. Says whether this run is to reap.
    pub async fn adopt(&self, run: &Run, lost: &NodeId) -> Result<bool, StoreError> {
        let (run, lost) = (run.clone(), lost.clone());
        self.lease.call(move |conn| async move { adopt(conn, &run, &lost).await }.boxed()).await
    }

    /// Says that this run stops in good order, so that nobody takes it for lost. Not where sessions of it are still
    /// active: then its peers end those, a lease later.
    pub async fn retire(&self, run: &Run) -> Result<(), StoreError> {
        let run = run.clone();
        self.lease
            .call(move |conn| {
                async move {
                    let of_node = session_records::table
                        .filter(session_records::status.eq(ACTIVE))
                        .filter(session_records::node_id.eq(run.node_id.as_str()));
                    let mine = nodes::table
                        .find(run.node_id.as_str())
                        .filter(nodes::incarnation.eq(run.incarnation.0))
                        .filter(nodes::state.eq(LIVE))
                        .filter(diesel::dsl::not(diesel::dsl::exists(of_node)));
                    diesel::update(mine).set(nodes::state.eq(STOPPED)).execute(conn).await?;
                    Ok(())
                }
                .boxed()
            })
            .await
    }

    /// Ends an active session of whichever node, by this run's word. `None` where it is not active.
    pub async fn end_session(
        &self,
        run: &Run,
        id: SessionId,
        reason: Reason,
        detected_by: DetectedBy,
    ) -> Result<Option<Arc<Event>>, StoreError> {
        let run = run.clone();
        self.writing
            .call(move |conn| {
                async move {
                    let ending = Ending { reason, by: detected_by, detected: Timestamp::now() };
                    let ends: Vec<_> =
                        left::sessions(conn, &[id]).await?.iter().map(|left| ending.of(left)).collect();
                    Ok(batch::commit(conn, &run, None, &ends).await?.events.pop())
                }
                .boxed()
            })
            .await
    }

    /// Hears of every commit, of whichever node, on a connection of its own.
    pub async fn listen(&self) -> Result<Listener, StoreError> {
        Listener::open(&self.lease).await
    }
}

async fn renew(conn: &mut AsyncPgConnection, run: &Run) -> Result<Vec<Peer>, StoreError> {
    let said: String = diesel::select(lastpong_renew(run.node_id.as_str(), run.incarnation.0))
        .load(conn)
        .await
        .and_then(sole)?;
    match said.as_str() {
        LIVE => {}
        "fenced" => return Err(StoreError::Fenced),
        "taken" => return Err(StoreError::NameTaken),
        _ => return Err(StoreError::Retry("this run of the node is not on the record yet".into())),
    }
    others(conn, &run.node_id).await
}

/// Every node but this.
pub(super) async fn others(conn: &mut AsyncPgConnection, own: &NodeId) -> Result<Vec<Peer>, StoreError> {
    type Row = (String, uuid::Uuid, i64, String, Option<String>);
    let rows: Vec<Row> = nodes::table
        .filter(nodes::node_id.ne(own.as_str()))
        .order(nodes::node_id)
        .select((nodes::node_id, nodes::incarnation, nodes::renewals, nodes::state, nodes::reaper))
        .load(conn)
        .await?;
    rows.into_iter()
        .map(|(node_id, incarnation, renewals, state, reaper)| {
            let state = match (state.as_str(), reaper) {
                (LIVE, _) => PeerState::Live,
                (LOST, Some(reaper)) => PeerState::Lost { reaper: word("nodes", "reaper", &reaper)? },
                (STOPPED | REAPED, _) => PeerState::Gone,
                (other, _) => return Err(StoreError::bad_row("nodes", "state", other)),
            };
            let run =
                Run { node_id: word("nodes", "node_id", &node_id)?, incarnation: Incarnation(incarnation) };
            Ok(Peer { run, renewals, state })
        })
        .collect()
}

async fn reap(
    conn: &mut AsyncPgConnection,
    run: &Run,
    lost: &NodeId,
    detected: Timestamp,
    limit: usize,
) -> Result<Vec<Arc<Event>>, StoreError> {
    let ending = Ending { reason: Reason::NodeLost, by: DetectedBy::PeerNode, detected };
    loop {
        // The node may have come back: its new run's sessions are its own.
        let left = left::of_lost(conn, lost, limit).await?;
        if left.is_empty() {
            left::forget_lost(conn, lost).await?;
            let reaped = nodes::table.find(lost.as_str()).filter(nodes::state.eq(LOST));
            let mine = reaped.filter(nodes::reaper.eq(run.node_id.as_str()));
            diesel::update(mine).set(nodes::state.eq(REAPED)).execute(conn).await?;
            return Ok(Vec::new());
        }
        let ends: Vec<_> = left.iter().map(|left| ending.of(left)).collect();
        let events = batch::commit(conn, run, None, &ends).await?.events;
        // None where others ended all of them meanwhile: there may be more.
        if !events.is_empty() {
            return Ok(events);
        }
    }
}

async fn adopt(conn: &mut AsyncPgConnection, run: &Run, lost: &NodeId) -> Result<bool, StoreError> {
    let call = lastpong_adopt(run.node_id.as_str(), run.incarnation.0, lost.as_str());
    Ok(diesel::select(call).load(conn).await.and_then(sole)?)
}
