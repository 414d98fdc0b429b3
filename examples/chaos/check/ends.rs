//! P1, one end.
//!
//! - Every session that a device was welcomed with, or that has a start in the log, has one start and one end there,
//!   and was welcomed on one connection.
//! - Nothing ends that never started, and nobody is welcomed whose start is not in the log.
//! - At the quiet time the nodes list as live whom the devices hold for live. A listing may be some seconds old, and
//!   a session needs its deadline to be found dead, so nothing is said of those that changed so shortly before.
//!
//! Before the devices were told to leave, a run that broke off has sessions that are live and owe no end.

use std::collections::HashMap;

use uuid::Uuid;

use super::at::{At, SECOND};
use super::devices::Conn;
use super::log::Session;
use super::records::{Live, Records};
use super::verdict::{Findings, Promise, Violation};

/// How old a listing may be.
const LISTING: i64 = 10 * SECOND;

pub fn judge(records: &Records, findings: &mut Findings) {
    for session in records.sessions.all() {
        findings.tried(Promise::P1);
        if let Some((kind, text)) = wrong(records, session) {
            findings.broken(violation(records, session, kind, text));
        }
    }
    judge_live(records, findings);
}

fn wrong(records: &Records, session: &Session) -> Option<(&'static str, String)> {
    if session.welcomes > 1 {
        let text = format!("{} connections were welcomed with it", session.welcomes);
        return Some(("welcomed twice", text));
    }
    let conn = session.conn.map(|conn| &records.conns[conn]);
    match (session.starts.len(), session.ends.len()) {
        (1, 1) => None,
        (0, 0) => Some(("welcomed, not on record", "a device was welcomed, and the log has no start".into())),
        (0, _) if conn.is_some() => Some((
            "welcomed, not on record",
            "a device was welcomed, and the log has an end but no start".into(),
        )),
        (0, n) => Some(("end without a start", format!("the log has {n} of its ends and no start"))),
        (1, 0) if records.run.left_at.is_none() && conn.is_some_and(|c| c.end.is_none()) => None,
        (1, 0) => Some(("no end", "the log has its start and no end".into())),
        (1, n) => Some(("more than one end", format!("the log has {n} of its ends"))),
        (n, _) => Some(("more than one start", format!("the log has {n} of its starts"))),
    }
}

fn violation(records: &Records, session: &Session, kind: &'static str, text: String) -> Violation {
    let conn = session.conn.map(|conn| &records.conns[conn]);
    let event =
        session.starts.iter().chain(&session.ends).map(|place| &records.log.events[*place as usize]).next();
    let device = conn.map(|c| c.device).or_else(|| event?.subject);
    Violation {
        promise: Promise::P1,
        kind,
        session: Some(session.id),
        device: device.map(|d| records.names.text(d).to_owned()),
        seq: event.map(|e| e.seq),
        at: conn.and_then(|c| c.welcome).map(|w| w.at).or_else(|| event?.seen_at),
        text,
    }
}

fn judge_live(records: &Records, findings: &mut Findings) {
    let mut listed: HashMap<Uuid, &Live> = HashMap::new();
    for live in &records.live {
        listed.entry(live.session).or_insert(live);
        if let Some(text) = not_live(records, live) {
            findings.broken(Violation {
                promise: Promise::P1,
                kind: "listed, not live",
                session: Some(live.session),
                device: Some(live.device.clone()),
                seq: None,
                at: Some(live.at),
                text,
            });
        }
    }
    // Where nothing was listed, it was asked for between the quiet time and the leaving.
    let (Some(quiet), Some(left)) = (records.run.quiet_at, records.run.left_at) else { return };
    let begun = records.live.iter().map(|l| l.at).min().unwrap_or(quiet);
    let over = records.live.iter().map(|l| l.at).max().unwrap_or(left);
    for conn in &records.conns {
        let Some(welcome) = conn.welcome else { continue };
        let session = records.sessions.get(welcome.session);
        if listed.contains_key(&session.id) || !was_live(records, conn, welcome.at, begun, over) {
            continue;
        }
        let text = "its device held it at the quiet time, and no node listed it".into();
        findings.broken(violation(records, session, "live, not listed", text));
    }
}

/// Its device held it, with no deed and no end, all the while that was listed.
fn was_live(records: &Records, conn: &Conn, welcomed: At, begun: At, over: At) -> bool {
    let swarm = &records.swarms[conn.swarm as usize];
    let until = over.after(LISTING);
    let over_by = |at: At| at <= until;
    welcomed <= begun.before(LISTING)
        && !conn.deeds.iter().any(|(at, _)| over_by(*at))
        && !conn.end.is_some_and(|end| over_by(end.at))
        && !swarm.gone_at.is_some_and(over_by)
        && !swarm.leaving.is_some_and(over_by)
        // A session that ended although its device held it is for P4 and P6 to judge.
        && !ended_before(records, records.sessions.get(conn.welcome.map_or(0, |w| w.session)), until)
}

fn ended_before(records: &Records, session: &Session, at: At) -> bool {
    let seen = session.ends.iter().filter_map(|place| records.log.events[*place as usize].seen_at).min();
    seen.is_some_and(|seen| seen <= at)
}

fn not_live(records: &Records, live: &Live) -> Option<String> {
    let Some(session) = records.sessions.find(live.session) else {
        return Some("a node listed it, and neither the log nor a device knows it".into());
    };
    let before = live.at.before(LISTING.saturating_add(records.run.patience()));
    if ended_before(records, session, before) {
        return Some("a node listed it long after its end was told".into());
    }
    let conn = &records.conns[session.conn?];
    if records.names.text(conn.device) != live.device {
        return Some("a node listed it as another device's".into());
    }
    let swarm = &records.swarms[conn.swarm as usize];
    let gone = conn.end.map(|end| end.at).into_iter().chain(swarm.gone_at).min();
    gone.filter(|at| *at < before).map(|_| "a node listed it long after its device had lost it".into())
}
