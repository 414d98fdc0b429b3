//! P6, honest reason: each end record against the contract's table (`rules`), its own times, and what its device did and saw.
//!
//! - Initiator, detection and close code are those that the reason allows.
//! - It is the same device and node as in the welcome and the start.
//! - Where the device did something, the reason is one that its deeds allow, or that a fault explains. Of a session that
//!   its device was never welcomed to only what the server or an operator did can be judged.
//! - A code that the device got in a close frame is the record's. Who decides from afar cannot know what the holder told the
//!   device meanwhile; then the code's own reason has to be explained.
//! - Who closed with 1000 is on record with 1000, and was answered with it.
//! - It was last heard between start and end; and in calm time, when the device spoke last.
//! - Pings sent are no fewer than the device saw, pongs no more than it sent.
//!
//! Times are judged only where no clock was set.

use super::at::SECOND;
use super::device::{self, Bearing, bearing};
use super::devices::{Conn, Deed};
use super::explain::{Case, NEAR};
use super::log::What;
use super::records::Records;
use super::rules::{self, from_afar};
use super::verdict::{Findings, Promise, Violation};

/// Between a device's pong and the node's own time for it, when nothing is broken.
const ON_THE_WAY: i64 = 2 * SECOND;

type Wrong = Option<(&'static str, String)>;

pub fn judge(records: &Records, findings: &mut Findings) {
    for case in Case::all(records) {
        findings.tried(Promise::P6);
        let checks = [in_itself, whose, reason, code, times, last_heard, counts];
        if let Some((kind, text)) = checks.iter().find_map(|check| check(&case)) {
            findings.broken(Violation {
                promise: Promise::P6,
                kind,
                session: Some(case.session.id),
                device: Some(records.names.text(case.end.device).to_owned()),
                seq: Some(case.event.seq),
                at: Some(case.to),
                text,
            });
        }
    }
}

fn in_itself(case: &Case<'_>) -> Wrong {
    let reason = case.reason;
    let Some(rule) = rules::of(reason) else {
        return Some(("reason", format!("{reason:?} is no reason")));
    };
    let initiator = case.records.names.text(case.end.initiator);
    if initiator != rule.initiator {
        return Some(("initiator", format!("{reason} by {initiator}, where it is by {}", rule.initiator)));
    }
    if !rule.detected_by.contains(&case.detected_by) {
        return Some(("detected_by", format!("{reason} cannot be detected by {}", case.detected_by)));
    }
    let code = case.end.close_code;
    (!rule.codes.allow(code)).then(|| ("close_code", format!("{reason} cannot have close code {code:?}")))
}

fn whose(case: &Case<'_>) -> Wrong {
    let names = &case.records.names;
    let place = *case.session.starts.first()?;
    let start = &case.records.log.events[place as usize];
    let What::Start { node, .. } = start.what else { return None };
    let welcome = case.conn.and_then(|c| c.welcome);
    let device = case.conn.map(|c| c.device);
    if node != case.end.node || welcome.is_some_and(|w| w.node != case.end.node) {
        let (of, start) = (names.text(case.end.node), names.text(node));
        return Some(("node", format!("the end says {of}, the start {start}, or the welcome another")));
    }
    let differs = start.subject != Some(case.end.device) || device.is_some_and(|d| d != case.end.device);
    differs.then(|| ("device", "the end, the start and the welcome are not of one device".into()))
}

fn reason(case: &Case<'_>) -> Wrong {
    if case.conn.is_none() {
        return unwelcomed(case);
    }
    // Of a device that answered and did nothing, P4 judges.
    if bearing(case) == Bearing::Answered || device::allows(case) || case.explained() {
        return None;
    }
    let deeds: Vec<String> = case.deeds().map(|(_, d)| format!("{d:?}").to_lowercase()).collect();
    let did = if deeds.is_empty() { "nothing".into() } else { deeds.join(", ") };
    Some(("reason", format!("its device did {did}, no fault explains it, and the reason is {}", case.reason)))
}

/// A device that gave up while it waited for its welcome may have done so in any way; what is said of the server and
/// the operator must be so all the same.
fn unwelcomed(case: &Case<'_>) -> Wrong {
    let known = case.records.dials.contains_key(&case.end.device);
    let allowed = match case.reason {
        "draining" | "kicked" | "replaced" | "node_lost" | "internal_error" => case.explained(),
        "client_closed" | "read_error" | "ping_failed" | "pong_timeout" => true,
        // A flood's connections keep no records and may send anything.
        _ => !known,
    };
    (!allowed).then(|| ("reason", format!("it was never welcomed, and nothing explains {}", case.reason)))
}

fn code(case: &Case<'_>) -> Wrong {
    let said = case.end.close_code;
    if let Some(told) = case.told_code() {
        // The holder may not have heard of the record's end yet, and have closed for what came after it; or its own word
        // may not have reached the record, and another's did, later.
        let closed_at = case.conn?.end?.at;
        let (from, to) = (case.from.min(closed_at.before(NEAR)), case.to.max(closed_at));
        let from_elsewhere = from_afar(case.detected_by) && crossed(&Case { from, to, ..*case }, told);
        let differs = said != Some(told) && !from_elsewhere;
        return differs.then(|| {
            (
                "code told",
                format!("its device was closed with {told}, the record says {} with {said:?}", case.reason),
            )
        });
    }
    if case.reason != "client_closed" {
        return None;
    }
    let did = |deed| case.deeds().any(|(_, d)| d == deed);
    if did(Deed::Close) && said != Some(1000) {
        return Some(("close_code", format!("its device closed with 1000, the record says {said:?}")));
    }
    let echo = case.conn?.end?.code?;
    (echo != 1000 && (did(Deed::Close) || did(Deed::Bye)))
        .then(|| ("code told", format!("its device closed, and was answered with {echo}")))
}

/// The device was closed for something that did happen as well: the first end to reach the record stands.
fn crossed(case: &Case<'_>, told: u16) -> bool {
    match told {
        1001 => case.explains("draining"),
        // The holder's word for what others had decided.
        4000 => case.reason == "node_lost" || case.explains("node_lost"),
        4011 => case.explains("kicked"),
        4509 => case.explains("replaced"),
        4012 => {
            case.explains("pong_timeout")
                || device::allows(&Case { reason: "pong_timeout", ..*case })
                || case.deeds().any(|(_, d)| matches!(d, Deed::Silent | Deed::Deaf | Deed::Lose))
        }
        _ => false,
    }
}

fn times(case: &Case<'_>) -> Wrong {
    let end = case.end;
    if !case.clocks {
        return None;
    }
    let lived = end.connected_at..=end.disconnected_at;
    if lived.is_empty() {
        return Some(("times", "it ended before it was connected".into()));
    }
    if !lived.contains(&end.last_active_at) {
        return Some(("times", "last_active_at is not between connected_at and disconnected_at".into()));
    }
    let pong = end.last_pong_at.filter(|at| !lived.contains(at));
    pong.map(|_| ("times", "last_pong_at is not between connected_at and disconnected_at".into()))
}

fn last_heard(case: &Case<'_>) -> Wrong {
    let conn_end = case.conn?.end?;
    let calm = case.records.faults.open(case.began.before(ON_THE_WAY), case.seen).next().is_none();
    if !case.clocks || !calm || from_afar(case.detected_by) {
        return None;
    }
    let (record, device) = (case.end.last_pong_at, conn_end.last_pong_at);
    let later = match (record, device) {
        (Some(record), Some(device)) => record > device.after(ON_THE_WAY),
        (Some(_), None) => true,
        (None, _) => false,
    };
    if later {
        return Some(("last_pong_at", "it was heard later than its device last spoke".into()));
    }
    // What came before a close was read before it; what was on its way when the server decided, or when a socket broke,
    // may never have been read.
    let decided = case.end.disconnected_at;
    let device = device.filter(|device| match case.reason {
        _ if case.detected_by == "socket" => false,
        "client_closed" => true,
        "pong_timeout" | "draining" | "kicked" | "replaced" => *device < decided.before(ON_THE_WAY),
        _ => false,
    })?;
    let spoke_before = device.min(decided).before(ON_THE_WAY);
    record
        .is_none_or(|record| record < spoke_before)
        .then(|| ("last_pong_at", "its device spoke later than the record says".into()))
}

fn counts(case: &Case<'_>) -> Wrong {
    let conn_end = case.conn.and_then(|conn: &Conn| conn.end)?;
    // From afar they are those that were last written down.
    if from_afar(case.detected_by) {
        return None;
    }
    let (sent, received) = (case.end.pings_sent, case.end.pongs_received);
    if sent.is_some_and(|sent| sent < conn_end.pings) {
        return Some(("counts", format!("{sent:?} pings sent, its device saw {}", conn_end.pings)));
    }
    received
        .filter(|received| *received > conn_end.pongs)
        .map(|n| ("counts", format!("{n} pongs received, its device sent {}", conn_end.pongs)))
}
