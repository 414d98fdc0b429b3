//! P4, our fault is not the device's: a device that answered throughout is ended only by what may end it.
//!
//! Tried is each session whose device answered until it ended, by a deed of its own or without one; what a deed allows
//! as the reason is for P6. Of a device that did nothing the end has to be explained by a fault or an act (`explain`), and
//! of one that heard nothing more and gave up, the silence.
//! Sessions of devices that were killed, slow or silent prove nothing here.

use super::at::At;
use super::device::{Bearing, bearing};
use super::explain::Case;
use super::records::Records;
use super::verdict::{Findings, Promise, Violation};

pub fn judge(records: &Records, findings: &mut Findings) {
    for case in Case::all(records) {
        match bearing(&case) {
            Bearing::Otherwise => {}
            Bearing::AnsweredAndLeft => findings.tried(Promise::P4),
            Bearing::GaveUp(at) => {
                findings.tried(Promise::P4);
                // What it did after its end was told cannot have caused it.
                let ended_first = at > case.seen && !case.explained();
                if ended_first || !case.silence_explained(at) {
                    findings.broken(gave_up(&case, at));
                }
            }
            Bearing::Answered => {
                findings.tried(Promise::P4);
                if !case.explained() {
                    findings.broken(violation(&case));
                }
            }
        }
    }
}

fn violation(case: &Case<'_>) -> Violation {
    let open: Vec<String> = case
        .records
        .faults
        .open(case.from, case.to)
        .map(|f| format!("{} of {}", f.kind.word(), f.whom.join(", ")))
        .collect();
    let open = if open.is_empty() { "nothing".into() } else { open.join("; ") };
    let text =
        format!("its device answered, and it ended as {} of {}; open was {open}", case.reason, case.node);
    Violation {
        promise: Promise::P4,
        kind: kind(case.reason),
        session: Some(case.session.id),
        device: Some(case.records.names.text(case.end.device).to_owned()),
        seq: Some(case.event.seq),
        at: Some(case.to),
        text,
    }
}

fn gave_up(case: &Case<'_>, at: At) -> Violation {
    let text =
        format!("its device answered, and heard nothing more of {}; it ended as {}", case.node, case.reason);
    Violation { kind: "gave up", at: Some(at), text, ..violation(case) }
}

fn kind(reason: &str) -> &'static str {
    super::rules::of(reason).map_or("ended for no known reason", |rule| rule.reason)
}
