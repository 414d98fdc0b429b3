//! What is written, inside the transaction that [`super::writer`] opens; starts and ends are in [`super::batch`].
//!
//! There is one writer, so that a number read here is still the last one when the row that uses the next is written.

use std::sync::Arc;

use diesel::SqliteConnection;
use diesel::prelude::*;
use diesel::upsert::excluded;

use super::heard;
use super::rows::{ACTIVE, LostRow};
use crate::event::Event;
use crate::ids::{EventId, Run};
use crate::store::schema::{events, log_head, nodes, session_records};
use crate::store::{End, StoreError, Write};
use crate::time::Timestamp;

pub(super) fn begin(conn: &mut SqliteConnection, run: &Run, at: Timestamp) -> Result<(), StoreError> {
    diesel::insert_into(nodes::table)
        .values((
            nodes::node_id.eq(run.node_id.as_str()),
            nodes::incarnation.eq(run.incarnation.to_string()),
            nodes::started_at.eq(at.0),
        ))
        .on_conflict(nodes::node_id)
        .do_update()
        .set((
            nodes::incarnation.eq(excluded(nodes::incarnation)),
            nodes::started_at.eq(excluded(nodes::started_at)),
        ))
        .execute(conn)?;
    Ok(())
}

pub(super) fn recover(
    conn: &mut SqliteConnection,
    run: &Run,
    detected: Timestamp,
    batch: usize,
) -> Result<Vec<Arc<Event>>, StoreError> {
    // The file has one holder, so that a session of any other incarnation, of any node's name, has no process.
    let mut lost: Vec<LostRow> = session_records::table
        .filter(session_records::status.eq(ACTIVE))
        .filter(session_records::incarnation.ne(run.incarnation.to_string()))
        .order(session_records::start_time)
        .limit(super::read::row_limit(batch))
        .select(LostRow::as_select())
        .load(conn)?;
    if lost.is_empty() {
        heard::forget_all_but(conn, run.incarnation)?;
    }
    heard::remember(conn, &mut lost)?;
    let ends = lost
        .into_iter()
        .map(|row| {
            let data = Arc::new(row.into_end(detected)?);
            Ok(Write::End(End { event_id: EventId::new(), data }))
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    Ok(super::batch::commit(conn, run, None, &ends)?.events)
}

/// Deletes from the old end as far as every event is older: where a clock once ran ahead, its events are kept until
/// their time comes, and those after them too, rather than leave a hole.
pub(super) fn expire(
    conn: &mut SqliteConnection,
    older_than: Timestamp,
    batch: usize,
) -> Result<usize, StoreError> {
    let oldest: Vec<(i64, i64)> = events::table
        .select((events::seq, events::time))
        .order(events::seq)
        .limit(super::read::row_limit(batch))
        .load(conn)?;
    let Some((last, _)) = oldest.into_iter().take_while(|(_, time)| *time < older_than.0).last() else {
        return Ok(0);
    };
    let gone = diesel::delete(events::table.filter(events::seq.le(last))).execute(conn)?;
    // The end is the last event of its session, so that none of those is left.
    diesel::delete(session_records::table.filter(session_records::end_seq.le(last))).execute(conn)?;
    Ok(gone)
}

pub(super) fn probe(conn: &mut SqliteConnection, at: Timestamp) -> Result<(), StoreError> {
    diesel::update(log_head::table).set(log_head::checked_at.eq(at.0)).execute(conn)?;
    Ok(())
}
