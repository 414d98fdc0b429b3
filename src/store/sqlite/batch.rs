//! One batch of writes: the record comes out as if they had been done one after the other.
//!
//! What the batch must know is read first; then everything is decided in memory, in the order given; then it is
//! written table by table in the order of the keys. So a page of the file is looked for, and changed, once where
//! several writes meet on it, however scattered the sessions of a batch are.

use std::collections::BTreeMap;
use std::sync::Arc;

use diesel::SqliteConnection;
use diesel::prelude::*;

use super::read::newest;
use super::rows::{ACTIVE, word};
use super::statements::{EndSession, NumberDevice, StartsOf};
use crate::event::{Connected, Disconnected, Event, EventKind, EventRow};
use crate::ids::{DeviceId, DeviceType, EventId, Incarnation, NodeId, Run, SessionId};
use crate::reason::Reason;
use crate::store::flapping::Flapping;
use crate::store::schema::{devices, events, log_head, session_records};
use crate::store::{Committed, Outcome, StoreError, Write};

pub(super) fn commit(
    conn: &mut SqliteConnection,
    run: &Run,
    flapping: Option<Flapping>,
    batch: &[Write],
) -> Result<Committed, StoreError> {
    let mut record = Record::read(conn, batch)?;
    let mut outcomes = Vec::with_capacity(batch.len());
    for write in batch {
        outcomes.push(match write {
            Write::Start(start) => {
                let before = record.log.len();
                let outcome = record.start(start.event_id, &run.node_id, &start.data)?;
                let is_new = record.log.len() > before;
                if let (Some(rule), Outcome::Recorded { device_seq }, true) = (flapping, outcome, is_new) {
                    record.look_for_flapping(conn, rule, &run.node_id, &start.data, device_seq)?;
                }
                outcome
            }
            Write::End(end) => record.end(end.event_id, &run.node_id, &end.data)?,
        });
    }
    Ok(Committed { outcomes, events: record.write(conn)? })
}

/// As much of the record as one batch is about: as it was, then as it is to be.
struct Record<'a> {
    sessions: BTreeMap<SessionId, Option<Session>>,
    devices: BTreeMap<&'a str, Device<'a>>,
    newest: i64,
    starts: BTreeMap<SessionId, (&'a Connected, i64)>,
    ends: BTreeMap<SessionId, (&'a Disconnected, i64)>,
    log: Vec<EventRow>,
}

struct Session {
    start_device_seq: i64,
    /// While it is active.
    incarnation: Option<Incarnation>,
}

#[derive(Default)]
struct Device<'a> {
    last_seq: i64,
    /// Where this batch uses numbers of it: what it says that it is.
    device_type: Option<&'a DeviceType>,
    /// Its starts in this batch.
    started: Vec<i64>,
}

impl<'a> Record<'a> {
    fn read(conn: &mut SqliteConnection, batch: &'a [Write]) -> Result<Self, StoreError> {
        let mut record = Record {
            sessions: BTreeMap::new(),
            devices: BTreeMap::new(),
            newest: newest(conn)?,
            starts: BTreeMap::new(),
            ends: BTreeMap::new(),
            log: Vec::with_capacity(batch.len()),
        };
        for write in batch {
            let (session_id, device_id) = match write {
                Write::Start(start) => (start.data.session_id, &start.data.device_id),
                Write::End(end) => (end.data.session_id, &end.data.device_id),
            };
            record.sessions.insert(session_id, None);
            record.devices.insert(device_id.as_str(), Device::default());
        }
        for (id, session) in &mut record.sessions {
            *session = read_session(conn, *id)?;
        }
        for (id, device) in &mut record.devices {
            let last = devices::table.find(*id).select(devices::device_seq).get_result(conn).optional()?;
            device.last_seq = last.unwrap_or(0);
        }
        Ok(record)
    }

    fn start(
        &mut self,
        event_id: EventId,
        said_by: &NodeId,
        data: &'a Connected,
    ) -> Result<Outcome, StoreError> {
        if let Some(Some(known)) = self.sessions.get(&data.session_id) {
            return Ok(Outcome::Recorded { device_seq: known.start_device_seq });
        }
        let (seq, device_seq) = self.next_numbers(&data.device_id, &data.device_type);
        let session = Session { start_device_seq: device_seq, incarnation: Some(data.incarnation) };
        self.sessions.insert(data.session_id, Some(session));
        self.starts.insert(data.session_id, (data, device_seq));
        self.log.push(EventRow {
            seq,
            device_seq: Some(device_seq),
            id: event_id,
            kind: EventKind::SessionConnected,
            time: data.connected_at,
            node_id: said_by.clone(),
            device_id: Some(data.device_id.clone()),
            device_type: Some(data.device_type.clone()),
            session_id: Some(data.session_id),
            reason: None,
            data: to_json(data)?,
        });
        Ok(Outcome::Recorded { device_seq })
    }

    fn end(
        &mut self,
        event_id: EventId,
        said_by: &NodeId,
        data: &'a Disconnected,
    ) -> Result<Outcome, StoreError> {
        match self.sessions.get_mut(&data.session_id) {
            Some(Some(session)) if session.incarnation == Some(data.incarnation) => {
                session.incarnation = None;
            }
            _ => return Ok(Outcome::Superseded),
        }
        let (seq, device_seq) = self.next_numbers(&data.device_id, &data.device_type);
        self.ends.insert(data.session_id, (data, seq));
        self.log.push(EventRow {
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
        });
        Ok(Outcome::Recorded { device_seq })
    }

    /// Tells of the device where its start that was just written, with this number, begins an episode of flapping.
    fn look_for_flapping(
        &mut self,
        conn: &mut SqliteConnection,
        rule: Flapping,
        said_by: &NodeId,
        data: &'a Connected,
        device_seq: i64,
    ) -> Result<(), StoreError> {
        let id = data.device_id.as_str();
        let device = self.devices.entry(id).or_default();
        let earlier = device.started.len();
        device.started.push(data.connected_at.0);
        let last = rule.count - 1;
        if device_seq <= 2 * last as i64 {
            return Ok(());
        }
        // In most cases one row is looked for, and it is older than the window.
        let oldest = match earlier.checked_sub(last) {
            Some(at) => device.started.get(at).copied(),
            None => StartsOf::device(id, last - earlier - 1, 1).load(conn)?.pop(),
        };
        if oldest.is_none_or(|oldest| data.connected_at.0 - oldest > rule.window_us()) {
            return Ok(());
        }
        let mut starts: Vec<i64> = device.started.iter().rev().copied().collect();
        if let Some(more) = rule.looks_back().checked_sub(earlier) {
            starts.extend(StartsOf::device(id, 0, more).load::<i64>(conn)?);
        }
        if !rule.begins_with(&starts) {
            return Ok(());
        }
        let told = to_json(&rule.told(data, &starts))?;
        let (seq, device_seq) = self.next_numbers(&data.device_id, &data.device_type);
        self.log.push(EventRow {
            seq,
            device_seq: Some(device_seq),
            id: EventId::new(),
            kind: EventKind::DeviceFlapping,
            time: data.connected_at,
            node_id: said_by.clone(),
            device_id: Some(data.device_id.clone()),
            device_type: Some(data.device_type.clone()),
            session_id: Some(data.session_id),
            reason: None,
            data: told,
        });
        Ok(())
    }

    /// The `seq` and `device_seq` of the next event.
    fn next_numbers(&mut self, id: &'a DeviceId, device_type: &'a DeviceType) -> (i64, i64) {
        let device = self.devices.entry(id.as_str()).or_default();
        device.last_seq += 1;
        device.device_type = Some(device_type);
        self.newest += 1;
        (self.newest, device.last_seq)
    }

    fn write(self, conn: &mut SqliteConnection) -> Result<Vec<Arc<Event>>, StoreError> {
        if self.log.is_empty() {
            return Ok(Vec::new());
        }
        for (device_id, device) in &self.devices {
            if let Some(device_type) = device.device_type {
                let device_type = device_type.as_str();
                NumberDevice { device_id, device_type, device_seq: device.last_seq }.execute(conn)?;
            }
        }
        for (data, device_seq) in self.starts.values() {
            insert_session(conn, data, *device_seq)?;
        }
        for (data, seq) in self.ends.values() {
            end_session(conn, data, *seq)?;
        }
        for row in &self.log {
            insert_event(conn, row)?;
        }
        diesel::update(log_head::table).set(log_head::newest.eq(self.newest)).execute(conn)?;
        Ok(self.log.into_iter().map(|row| Arc::new(row.into())).collect())
    }
}

fn read_session(conn: &mut SqliteConnection, id: SessionId) -> Result<Option<Session>, StoreError> {
    let row: Option<(i64, String, String)> = session_records::table
        .find(id.to_string())
        .select((session_records::start_device_seq, session_records::status, session_records::incarnation))
        .get_result(conn)
        .optional()?;
    let Some((start_device_seq, status, incarnation)) = row else { return Ok(None) };
    let active = status == ACTIVE;
    let incarnation = if active { Some(word("session_records", "incarnation", &incarnation)?) } else { None };
    Ok(Some(Session { start_device_seq, incarnation }))
}

fn insert_session(conn: &mut SqliteConnection, data: &Connected, device_seq: i64) -> Result<(), StoreError> {
    diesel::insert_into(session_records::table)
        .values((
            session_records::session_id.eq(data.session_id.to_string()),
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
    Ok(())
}

fn end_session(conn: &mut SqliteConnection, data: &Disconnected, end_seq: i64) -> Result<(), StoreError> {
    let end = EndSession {
        session_id: data.session_id.to_string(),
        end_time: data.disconnected_at.0,
        reason: data.reason.as_str(),
        end_seq,
        last_pong_at: data.last_pong_at.map(|t| t.0),
        last_active_at: data.last_active_at.0,
        reconnect_count: i64::from(data.reconnect_count),
    };
    end.execute(conn)?;
    Ok(())
}

fn insert_event(conn: &mut SqliteConnection, row: &EventRow) -> Result<(), StoreError> {
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
    Ok(())
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Broken(format!("a row cannot be written: {error}")))
}
