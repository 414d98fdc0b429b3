//! What other nodes hold, for whoever looks at the whole installation: the nodes, their active sessions, and when each was
//! last heard.
//!
//! Read where reading is done, in pages along the index of what a node holds; nothing here writes or locks.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use futures_util::FutureExt;

use super::PostgresStore;
use super::cluster::others;
use super::read::row_limit;
use super::rows::{ACTIVE, HeldRow};
use super::schema::{last_heard, session_records};
use crate::event::Connected;
use crate::ids::{NodeId, SessionId};
use crate::store::heard::decode;
use crate::store::{LastHeard, Peer, StoreError};
use crate::time::Timestamp;

/// An active session as its row says, for whoever looks at it from another node than its own.
#[derive(Debug, Clone)]
pub struct HeldSession {
    pub start: Connected,
    pub device_seq: i64,
    /// As the row was first written; see [`LastHeard`] for what came later.
    pub last_pong_at: Option<Timestamp>,
    pub last_active_at: Timestamp,
    pub reconnect_count: u32,
}

impl PostgresStore {
    /// All other nodes as they stand on the record.
    pub async fn peers(&self) -> Result<Vec<Peer>, StoreError> {
        let node = self.node.clone();
        self.reading.call(move |conn| async move { others(conn, &node).await }.boxed()).await
    }

    /// Up to `limit` active sessions of a node after `after`, in the order of their ids.
    pub async fn held(
        &self,
        node: &NodeId,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<HeldSession>, StoreError> {
        let node = node.clone();
        let after = after.map_or(uuid::Uuid::nil(), |id| id.0);
        self.reading
            .call(move |conn| {
                async move {
                    let rows: Vec<HeldRow> = session_records::table
                        .filter(session_records::status.eq(ACTIVE))
                        .filter(session_records::node_id.eq(node.as_str()))
                        .filter(session_records::session_id.gt(after))
                        .order(session_records::session_id)
                        .limit(row_limit(limit))
                        .select(HeldRow::as_select())
                        .load(conn)
                        .await?;
                    rows.into_iter().map(HeldSession::try_from).collect()
                }
                .boxed()
            })
            .await
    }

    /// How many active sessions a node has.
    pub async fn held_count(&self, node: &NodeId) -> Result<usize, StoreError> {
        let node = node.clone();
        self.reading
            .call(move |conn| {
                async move {
                    let active = session_records::table
                        .filter(session_records::status.eq(ACTIVE))
                        .filter(session_records::node_id.eq(node.as_str()));
                    let count: i64 = active.count().get_result(conn).await?;
                    Ok(usize::try_from(count).unwrap_or(0))
                }
                .boxed()
            })
            .await
    }

    /// When the sessions of a node were last heard, of those that were heard since their start.
    pub async fn heard(&self, node: &NodeId) -> Result<Vec<LastHeard>, StoreError> {
        let node = node.clone();
        self.reading
            .call(move |conn| {
                async move {
                    let pages: Vec<Vec<u8>> = last_heard::table
                        .filter(last_heard::node_id.eq(node.as_str()))
                        .select(last_heard::heard)
                        .load(conn)
                        .await?;
                    Ok(pages.iter().flat_map(|page| decode(page)).collect())
                }
                .boxed()
            })
            .await
    }
}
