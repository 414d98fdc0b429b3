//! What had to come and did not: the end of a device that fell silent (P5), and of a session that was kicked (P6).
//!
//! Each has its time and much to spare. While a fault that concerns it is open or settling, and so long after that as it
//! would have had, it may still come; then no more. Nothing is said where the device left, or the records end, before.

use uuid::Uuid;

use super::at::At;
use super::devices::{Conn, Deed, Swarm};
use super::log::Session;
use super::records::Records;
use super::verdict::{Findings, Promise, Violation};

pub fn judge(records: &Records, findings: &mut Findings) {
    for conn in &records.conns {
        silent(records, conn, findings);
    }
    kicked(records, findings);
}

fn silent(records: &Records, conn: &Conn, findings: &mut Findings) {
    let Some((at, deed)) = conn.deeds.iter().find(|(_, d)| matches!(d, Deed::Silent | Deed::Deaf)).copied()
    else {
        return;
    };
    let Some(welcome) = conn.welcome else { return };
    let session = records.sessions.get(welcome.session);
    let seen = told(records, session);
    if seen.is_some_and(|seen| seen < at) {
        return;
    }
    let swarm = &records.swarms[conn.swarm as usize];
    let due =
        due(records, at, records.run.longest_silence(), &[records.names.text(welcome.node)], Some(swarm));
    if seen.is_some_and(|seen| seen <= due) {
        return findings.tried(Promise::P5);
    }
    let left =
        conn.deeds.iter().filter(|(_, d)| matches!(d, Deed::Close | Deed::Bye | Deed::Reset | Deed::Vanish));
    let over =
        left.map(|(at, _)| *at).chain(swarm.leaving).chain(swarm.gone_at).chain([records.finish()]).min();
    if over.is_some_and(|over| over < due) {
        return;
    }
    findings.tried(Promise::P5);
    let what = if deed == Deed::Deaf { "deaf" } else { "silent" };
    let text = match seen {
        Some(seen) => format!("it fell {what}, and its end was told {} s later", seen.since(at) / 1_000_000),
        None => format!("it fell {what}, and its end was never told"),
    };
    let device = Some(records.names.text(conn.device).to_owned());
    findings.broken(violation(records, Promise::P5, "not found", session.id, device, at, text));
}

fn kicked(records: &Records, findings: &mut Findings) {
    let nodes: Vec<&str> = records.run.nodes.iter().map(String::as_str).collect();
    for kick in &records.kicks {
        let Some((at, 200..300)) = kick.answer else { continue };
        let session = records.sessions.find(kick.session);
        let conn = session.and_then(|s| s.conn).map(|conn| &records.conns[conn]);
        let swarm = conn.map(|c| &records.swarms[c.swarm as usize]);
        let due = due(records, at, records.run.settling(), &nodes, swarm);
        let seen = session.and_then(|session| told(records, session));
        if seen.is_none_or(|seen| seen > due) && records.finish() < due {
            continue;
        }
        findings.tried(Promise::P6);
        if seen.is_none_or(|seen| seen > due) {
            let device = conn.map(|c| records.names.text(c.device).to_owned());
            let text = "the operator was told that it is kicked, and it did not end in time".into();
            let kind = "kicked, and not ended";
            findings.broken(violation(records, Promise::P6, kind, kick.session, device, at, text));
        }
    }
}

fn due(records: &Records, from: At, within: i64, nodes: &[&str], swarm: Option<&Swarm>) -> At {
    let concerns = |fault: &super::faults::Fault| records.concerns(fault, nodes, swarm);
    records.faults.due(from, within, records.run.settling(), concerns)
}

/// When the first subscriber had its end.
fn told(records: &Records, session: &Session) -> Option<At> {
    session.ends.iter().filter_map(|place| records.log.events[*place as usize].seen_at).min()
}

fn violation(
    records: &Records,
    promise: Promise,
    kind: &'static str,
    session: Uuid,
    device: Option<String>,
    at: At,
    text: String,
) -> Violation {
    let known = records.sessions.find(session);
    let place = known.and_then(|s| s.ends.first().or(s.starts.first()));
    let seq = place.map(|place| records.log.events[*place as usize].seq);
    Violation { promise, kind, session: Some(session), device, seq, at: Some(at), text }
}
