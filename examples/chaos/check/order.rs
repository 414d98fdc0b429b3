//! P2, in order.
//!
//! - The log is given by `seq`, from 1, without gap or repeat.
//! - The events of a device that have a `device_seq` carry 1, 2, 3, …; those of a session always have one; and the welcome
//!   said the one that the start has; it may say none only where the node was kept from the store.
//! - A session's start precedes its end, and a device's session ends before its next starts.
//!
//! What a node could not write to the store is told late, when its journal is moved. A session of that kind may overlap
//! another of its device in the log: each node told what it had, and both could not know of each other. Which
//! sessions these are their devices know: the welcome had no `device_seq`. Where no device was welcomed it may be
//! so where Postgres was away, for all or for that node, or slow, between the start and its telling.

use std::collections::HashMap;

use super::at::{At, SECOND};
use super::devices::Swarm;
use super::faults::{Fault, Kind};
use super::log::{LogEvent, What};
use super::names::Name;
use super::records::{Records, Setup};
use super::told::session_of;
use super::verdict::{Findings, Promise, Violation};

#[derive(Default)]
struct DeviceOrder {
    last: i64,
    /// Its sessions that started and did not end yet.
    open: Vec<u32>,
}

pub fn judge(records: &Records, findings: &mut Findings) {
    let mut broken = |event: &LogEvent, kind, text| {
        findings.broken(Violation {
            promise: Promise::P2,
            kind,
            session: session_of(event).map(|session| records.sessions.get(session).id),
            device: event.subject.map(|s| records.names.text(s).to_owned()),
            seq: Some(event.seq),
            at: event.seen_at,
            text,
        });
    };
    let mut devices: HashMap<Name, DeviceOrder> = HashMap::new();
    let mut last = 0_i64;
    for event in &records.log.events {
        if event.seq != last.saturating_add(1) {
            broken(event, "seq", format!("the log has seq {} after {last}", event.seq));
        }
        last = event.seq;
        let Some(device) = event.subject else { continue };
        let order = devices.entry(device).or_default();
        match event.device_seq {
            Some(n) => {
                if n != order.last.saturating_add(1) {
                    broken(event, "device_seq", format!("it has device_seq {n} after {}", order.last));
                }
                order.last = n;
            }
            None if session_of(event).is_some() => {
                broken(event, "device_seq", "it has no device_seq".into());
            }
            None => {}
        }
        if let Some((kind, text)) = out_of_turn(records, order, event) {
            broken(event, kind, text);
        }
    }
    for _ in &records.log.events {
        findings.tried(Promise::P2);
    }
    judge_welcomes(records, findings);
}

/// A welcome without a number switches a part of the order off, so it has to have its reason.
fn judge_welcomes(records: &Records, findings: &mut Findings) {
    for conn in &records.conns {
        let Some(welcome) = conn.welcome.filter(|w| w.device_seq.is_none()) else { continue };
        let session = records.sessions.get(welcome.session);
        // That the log has no start is for P1.
        let Some(place) = session.starts.first() else { continue };
        findings.tried(Promise::P2);
        let node = records.names.text(welcome.node);
        let settling = records.run.settling();
        let mut felt = records.faults.all().iter().filter(|f| f.is_felt(welcome.at, welcome.at, settling));
        let came = |s: &Swarm| (s.began..=s.began.after(settling)).contains(&welcome.at);
        if felt.any(|f| keeps_from_store(records, f, node))
            || records.swarms.iter().any(came)
            || records.was_slow(welcome.at.before(settling), welcome.at)
        {
            continue;
        }
        findings.broken(Violation {
            promise: Promise::P2,
            kind: "welcomed without a number",
            session: Some(session.id),
            device: Some(records.names.text(conn.device).to_owned()),
            seq: Some(records.log.events[*place as usize].seq),
            at: Some(welcome.at),
            text: format!("{node} had no device_seq for it, and nothing kept it from Postgres"),
        });
    }
}

/// Its node could not reach the store, or had no time to; or many devices came to all nodes at once, more than the store
/// could take in; or its clock jumped, which makes it give up what it is at.
fn keeps_from_store(records: &Records, fault: &Fault, node: &str) -> bool {
    fault.takes_postgres()
        || fault.cuts_off(node)
        || match fault.kind {
            Kind::Load | Kind::Kill | Kind::Drain | Kind::Drop | Kind::Flood => true,
            Kind::Clock => fault.hits("postgres"),
            Kind::Full => fault.hits(node) && records.run.setup == Setup::Embedded,
            _ => false,
        }
}

fn out_of_turn(
    records: &Records,
    order: &mut DeviceOrder,
    event: &LogEvent,
) -> Option<(&'static str, String)> {
    match event.what {
        What::Start { session, .. } => {
            let prompt = |other: &&u32| !told_late(records, session) && !told_late(records, **other);
            let other = order.open.iter().filter(|open| **open != session).find(prompt);
            let other = other.map(|open| records.sessions.get(*open).id);
            if !order.open.contains(&session) {
                order.open.push(session);
            }
            if let Some(other) = other {
                return Some(("start before the last one's end", format!("session {other} had not ended")));
            }
            let conn = records.sessions.get(session).conn?;
            let told = records.conns[conn].welcome?.device_seq?;
            let differs = Some(told) != event.device_seq;
            differs.then(|| ("welcome's device_seq", format!("its device was welcomed as {told}")))
        }
        What::End { session, .. } => {
            if order.open.contains(&session) {
                order.open.retain(|open| *open != session);
                return None;
            }
            // An end without a start before it; where it has none at all, or a second end, P1 says so.
            let starts = &records.sessions.get(session).starts;
            let later = starts.iter().all(|place| records.log.events[*place as usize].seq > event.seq);
            (!starts.is_empty() && later).then(|| ("end before its start", "its start comes later".into()))
        }
        What::Other => None,
    }
}

/// Its node wrote it to a journal, as far as anybody outside can know.
pub fn told_late(records: &Records, session: u32) -> bool {
    let session = records.sessions.get(session);
    if let Some(welcome) = session.conn.and_then(|conn| records.conns[conn].welcome) {
        return welcome.device_seq.is_none();
    }
    session.starts.iter().any(|place| {
        let event = &records.log.events[*place as usize];
        let What::Start { node, connected_at, .. } = event.what else { return false };
        let node = records.names.text(node);
        let told = event.seen_at.unwrap_or(At::NEVER);
        let from = connected_at.min(told).before(5 * SECOND);
        let clock_was_set = records.faults.clock_was_set(&[node], from, told);
        let from = if clock_was_set { At(i64::MIN) } else { from };
        records.faults.postgres_was_away_for(node, from, told) || records.was_slow(from, told)
    })
}
