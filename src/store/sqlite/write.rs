//! What is written, inside the transaction that [`super::writer`] opens.
//!
//! There is one writer, so that a number read here is still the last one when the row that uses the next is written.
//! Every statement but the rare ones is prepared once and kept by Diesel.

use std::sync::Arc;

use diesel::SqliteConnection;
use diesel::prelude::*;
use diesel::upsert::excluded;

use super::read::newest;
use super::rows::{ACTIVE, CLOSED, LostRow};
use crate::event::{Connected, Disconnected, Event, EventKind, EventRow};
use crate::ids::{DeviceId, DeviceType, EventId, Incarnation, NodeId, SessionId};
use crate::reason::Reason;
use crate::store::schema::{devices, events, log_head, nodes, session_records};
use crate::store::{Committed, LastHeard, Outcome, StoreError, Write};
use crate::time::Timestamp;

pub(super) fn begin(
    conn: &mut SqliteConnection,
    node: &NodeId,
    incarnation: Incarnation,
    at: Timestamp,
) -> Result<(), StoreError> {
    diesel::insert_into(nodes::table)
        .values((
            nodes::node_id.eq(node.as_str()),
            nodes::incarnation.eq(incarnation.to_string()),
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

pub(super) fn commit(conn: &mut SqliteConnection, batch: &[Write]) -> Result<Committed, StoreError> {
    let mut log = Log::begin(conn)?;
    let mut outcomes = Vec::with_capacity(batch.len());
    for write in batch {
        outcomes.push(match write {
            Write::Start(s) => start(conn, &mut log, s.event_id, &s.data)?,
            Write::End(e) => end(conn, &mut log, e.event_id, &e.data.node_id, &e.data)?,
        });
    }
    Ok(Committed { outcomes, events: log.finish(conn)? })
}

pub(super) fn recover(
    conn: &mut SqliteConnection,
    node: &NodeId,
    incarnation: Incarnation,
    detected: Timestamp,
    batch: usize,
) -> Result<Vec<Arc<Event>>, StoreError> {
    // The file has one holder, so that a session of any other incarnation, of any node's name, has no process.
    let lost: Vec<LostRow> = session_records::table
        .filter(session_records::status.eq(ACTIVE))
        .filter(session_records::incarnation.ne(incarnation.to_string()))
        .order(session_records::start_time)
        .limit(super::read::row_limit(batch))
        .select(LostRow::as_select())
        .load(conn)?;
    let mut log = Log::begin(conn)?;
    for row in lost {
        end(conn, &mut log, EventId::new(), node, &row.into_end(detected)?)?;
    }
    log.finish(conn)
}

pub(super) fn touch(
    conn: &mut SqliteConnection,
    incarnation: Incarnation,
    heard: &[LastHeard],
) -> Result<(), StoreError> {
    let incarnation = incarnation.to_string();
    for sign in heard {
        let row = active(sign.session_id, &incarnation);
        let active_at = session_records::last_active_at.eq(sign.last_active_at.0);
        match sign.last_pong_at {
            Some(pong) => diesel::update(row)
                .set((session_records::last_pong_at.eq(pong.0), active_at))
                .execute(conn)?,
            None => diesel::update(row).set(active_at).execute(conn)?,
        };
    }
    Ok(())
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

/// The events of one transaction, numbered from where the log ends.
struct Log {
    newest: i64,
    events: Vec<Arc<Event>>,
}

impl Log {
    fn begin(conn: &mut SqliteConnection) -> Result<Self, StoreError> {
        Ok(Self { newest: newest(conn)?, events: Vec::new() })
    }

    fn append(&mut self, conn: &mut SqliteConnection, row: EventRow) -> Result<(), StoreError> {
        diesel::insert_into(events::table)
            .values((
                events::seq.eq(row.seq),
                events::device_seq.eq(row.device_seq),
                events::id.eq(row.id.to_string()),
                events::kind.eq(row.kind.as_str()),
                events::time.eq(row.time.0),
                events::node_id.eq(row.node_id.as_str()),
                events::device_id.eq(row.device_id.as_ref().map(DeviceId::as_str)),
                events::device_type.eq(row.device_type.as_ref().map(DeviceType::as_str)),
                events::session_id.eq(row.session_id.map(|id| id.to_string())),
                events::reason.eq(row.reason.map(Reason::as_str)),
                events::data.eq(&row.data),
            ))
            .execute(conn)?;
        self.newest = row.seq;
        self.events.push(Arc::new(row.into()));
        Ok(())
    }

    fn finish(self, conn: &mut SqliteConnection) -> Result<Vec<Arc<Event>>, StoreError> {
        if !self.events.is_empty() {
            diesel::update(log_head::table).set(log_head::newest.eq(self.newest)).execute(conn)?;
        }
        Ok(self.events)
    }
}

fn start(
    conn: &mut SqliteConnection,
    log: &mut Log,
    event_id: EventId,
    data: &Connected,
) -> Result<Outcome, StoreError> {
    let session_id = data.session_id.to_string();
    let known: Option<i64> = session_records::table
        .filter(session_records::session_id.eq(&session_id))
        .select(session_records::start_device_seq)
        .first(conn)
        .optional()?;
    if let Some(device_seq) = known {
        return Ok(Outcome::Recorded { device_seq });
    }
    let device_seq = next_device_seq(conn, &data.device_id, &data.device_type)?;
    diesel::insert_into(session_records::table)
        .values((
            session_records::session_id.eq(&session_id),
            session_records::device_id.eq(data.device_id.as_str()),
            session_records::device_type.eq(data.device_type.as_str()),
            session_records::node_id.eq(data.node_id.as_str()),
            session_records::incarnation.eq(data.incarnation.to_string()),
            session_records::status.eq(ACTIVE),
            session_records::start_time.eq(data.connected_at.0),
            session_records::start_device_seq.eq(device_seq),
            session_records::last_active_at.eq(data.connected_at.0),
            session_records::reconnect_count.eq(0_i64),
            session_records::remote_addr.eq(data.remote_addr.to_string()),
            session_records::meta.eq(to_json(&data.meta)?),
            session_records::trace_id.eq(data.trace_id.as_deref()),
        ))
        .execute(conn)?;
    let row = EventRow {
        seq: log.newest + 1,
        device_seq: Some(device_seq),
        id: event_id,
        kind: EventKind::SessionConnected,
        time: data.connected_at,
        node_id: data.node_id.clone(),
        device_id: Some(data.device_id.clone()),
        device_type: Some(data.device_type.clone()),
        session_id: Some(data.session_id),
        reason: None,
        data: to_json(data)?,
    };
    log.append(conn, row)?;
    Ok(Outcome::Recorded { device_seq })
}

/// `said_by` is the node that writes, which is another than the session's own where that has died.
fn end(
    conn: &mut SqliteConnection,
    log: &mut Log,
    event_id: EventId,
    said_by: &NodeId,
    data: &Disconnected,
) -> Result<Outcome, StoreError> {
    let seq = log.newest + 1;
    let ended = diesel::update(active(data.session_id, &data.incarnation.to_string()))
        .set((
            session_records::status.eq(CLOSED),
            session_records::end_time.eq(data.disconnected_at.0),
            session_records::reason.eq(data.reason.as_str()),
            session_records::end_seq.eq(seq),
            session_records::last_pong_at.eq(data.last_pong_at.map(|t| t.0)),
            session_records::last_active_at.eq(data.last_active_at.0),
            session_records::reconnect_count.eq(i64::from(data.reconnect_count)),
        ))
        .execute(conn)?;
    if ended == 0 {
        return Ok(Outcome::Superseded);
    }
    let device_seq = next_device_seq(conn, &data.device_id, &data.device_type)?;
    let row = EventRow {
        seq,
        device_seq: Some(device_seq),
        id: event_id,
        kind: EventKind::SessionDisconnected,
        time: data.disconnected_at,
        node_id: said_by.clone(),
        device_id: Some(data.device_id.clone()),
        device_type: Some(data.device_type.clone()),
        session_id: Some(data.session_id),
        reason: Some(data.reason),
        data: to_json(data)?,
    };
    log.append(conn, row)?;
    Ok(Outcome::Recorded { device_seq })
}

/// The row of a session while it is active under `incarnation`.
#[diesel::dsl::auto_type(no_type_alias)]
fn active<'a>(session_id: SessionId, incarnation: &'a str) -> _ {
    let id: String = session_id.to_string();
    let status: &'static str = ACTIVE;
    session_records::table
        .filter(session_records::session_id.eq(id))
        .filter(session_records::status.eq(status))
        .filter(session_records::incarnation.eq(incarnation))
}

fn next_device_seq(
    conn: &mut SqliteConnection,
    device_id: &DeviceId,
    device_type: &DeviceType,
) -> Result<i64, StoreError> {
    let first = (
        devices::device_id.eq(device_id.as_str()),
        devices::device_type.eq(device_type.as_str()),
        devices::device_seq.eq(1_i64),
    );
    Ok(diesel::insert_into(devices::table)
        .values(first)
        .on_conflict(devices::device_id)
        .do_update()
        .set((
            devices::device_seq.eq(devices::device_seq + 1),
            devices::device_type.eq(excluded(devices::device_type)),
        ))
        .returning(devices::device_seq)
        .get_result(conn)?)
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Broken(format!("a row cannot be written: {error}")))
}
