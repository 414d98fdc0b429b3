//! Sessions that end without their node: read from their rows, with the pages of when they were last heard.

use std::collections::{HashMap, HashSet};

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Binary, Bool};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::rows::{ACTIVE, Left, LeftRow};
use super::schema::{last_heard, nodes, session_records};
use crate::ids::{EventId, Incarnation, NodeId, SessionId};
use crate::reason::{DetectedBy, Reason};
use crate::store::heard::{decode, encode};
use crate::store::{End, HeardPage, StoreError, Write};
use crate::time::Timestamp;

/// How a session is ended for another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    pub reason: Reason,
    pub by: DetectedBy,
    pub detected: Timestamp,
}

impl Ending {
    pub(super) fn of(self, left: &Left) -> Write {
        let data = left.ended(self.reason, self.by, self.detected).into();
        Write::End(End { event_id: EventId::new(), data })
    }
}

/// Those of these sessions that are active.
pub(super) async fn sessions(
    conn: &mut AsyncPgConnection,
    ids: &[SessionId],
) -> Result<Vec<Left>, StoreError> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    let rows: Vec<LeftRow> = session_records::table
        .filter(session_records::session_id.eq_any(ids))
        .filter(session_records::status.eq(ACTIVE))
        .select(LeftRow::as_select())
        .load(conn)
        .await?;
    remembered(conn, rows).await
}

/// The oldest active sessions of a node that are not those of its live run, where it has come back: both read of one
/// state of the record.
pub(super) async fn of_lost(
    conn: &mut AsyncPgConnection,
    node: &NodeId,
    limit: usize,
) -> Result<Vec<Left>, StoreError> {
    let rows: Vec<LeftRow> = session_records::table
        .filter(session_records::status.eq(ACTIVE))
        .filter(session_records::node_id.eq(node.as_str()))
        .filter(session_records::incarnation.ne_all(live_run(node)))
        .order(session_records::session_id)
        .limit(super::read::row_limit(limit))
        .select(LeftRow::as_select())
        .load(conn)
        .await?;
    remembered(conn, rows).await
}

/// The runs of the nodes that live.
pub(super) async fn live_runs(conn: &mut AsyncPgConnection) -> Result<HashSet<Incarnation>, StoreError> {
    let live = nodes::table.filter(nodes::state.eq("live")).select(nodes::incarnation);
    let runs: Vec<Uuid> = live.load(conn).await?;
    Ok(runs.into_iter().map(Incarnation).collect())
}

/// Forgets the pages of a node's runs, but those of its live one.
pub(super) async fn forget_lost(conn: &mut AsyncPgConnection, node: &NodeId) -> Result<(), StoreError> {
    let pages = last_heard::table
        .filter(last_heard::node_id.eq(node.as_str()))
        .filter(last_heard::incarnation.ne_all(live_run(node)));
    diesel::delete(pages).execute(conn).await?;
    Ok(())
}

#[diesel::dsl::auto_type(no_type_alias)]
fn live_run<'a>(node: &'a NodeId) -> _ {
    let name: &'a str = node.as_str();
    nodes::table.filter(nodes::node_id.eq(name)).filter(nodes::state.eq("live")).select(nodes::incarnation)
}

/// Sessions whose pages are looked for one by one.
const FEW: usize = 8;

/// With what the pages of their runs say later than the rows do.
async fn remembered(conn: &mut AsyncPgConnection, rows: Vec<LeftRow>) -> Result<Vec<Left>, StoreError> {
    let mut left = rows.into_iter().map(Left::try_from).collect::<Result<Vec<_>, _>>()?;
    let mut by_run: HashMap<Incarnation, HashMap<SessionId, &mut Left>> = HashMap::new();
    for session in &mut left {
        by_run.entry(session.incarnation).or_default().insert(session.session_id, session);
    }
    for (run, sessions) in &mut by_run {
        let all = last_heard::table.filter(last_heard::incarnation.eq(run.0)).select(last_heard::heard);
        let mut pages: Vec<Vec<u8>> = Vec::new();
        if sessions.len() > FEW {
            pages = all.load(conn).await?;
        } else {
            for id in sessions.keys() {
                // Looked for where the pages are: a run may have megabytes of them.
                let holds = sql::<Bool>("position(")
                    .bind::<Binary, _>(id.0.as_bytes().to_vec())
                    .sql(" in heard) > 0");
                let found: Vec<Vec<u8>> = all.filter(holds).load(conn).await?;
                pages.extend(found);
            }
        }
        for sign in pages.iter().flat_map(|page| decode(page)) {
            let session = sessions.get_mut(&sign.session_id);
            if let Some(session) = session.filter(|s| s.last_active_at < sign.last_active_at) {
                session.last_pong_at = sign.last_pong_at;
                session.last_active_at = sign.last_active_at;
            }
        }
    }
    Ok(left)
}

/// Writes pages. A run that may write no more leaves none behind for nobody to clear away: its node's row says so.
pub(super) async fn touch(
    conn: &mut AsyncPgConnection,
    node: &NodeId,
    run: Incarnation,
    pages: &[HeardPage],
) -> Result<(), StoreError> {
    use super::calls::lastpong_fenced;
    use diesel::upsert::excluded;
    let fenced: bool = diesel::select(lastpong_fenced(node.as_str(), run.0)).get_result(conn).await?;
    if fenced {
        return Err(StoreError::Fenced);
    }
    let rows: Vec<_> = pages
        .iter()
        .map(|page| {
            (
                last_heard::incarnation.eq(run.0),
                last_heard::page.eq(page.number),
                last_heard::node_id.eq(node.as_str()),
                last_heard::heard.eq(encode(&page.heard)),
            )
        })
        .collect();
    diesel::insert_into(last_heard::table)
        .values(rows)
        .on_conflict((last_heard::incarnation, last_heard::page))
        .do_update()
        .set(last_heard::heard.eq(excluded(last_heard::heard)))
        .execute(conn)
        .await?;
    Ok(())
}
