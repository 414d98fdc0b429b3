//! How the subscribers did beside each other: how much later each got what the first had, and what pub/sub, which owes
//! nothing to those that were not there, did not say though all was well.

use std::collections::BTreeMap;

use serde::Serialize;

use super::at::{At, SECOND};
use super::delays::{Percentiles, percentiles};
use super::explain::NEAR;
use super::log::LogEvent;
use super::records::Records;
use super::told::session_of;
use super::verdict::{Findings, Promise, Violation};

/// What one subscriber got: of each event the first time.
#[derive(Debug)]
pub struct Receipts {
    pub file: String,
    pub owes: bool,
    /// By the events' places in the log.
    pub first: Vec<Option<At>>,
    /// Since when it was connected, and until when.
    pub opens: Vec<(At, At)>,
}

/// Of one kind of subscriber.
#[derive(Debug, Serialize)]
pub struct Lag {
    pub kind: String,
    pub calm: Option<Percentiles>,
}

/// The subscriber's name without the number at its end.
pub fn kind_of(file: &str) -> &str {
    match file.rsplit_once('-') {
        Some((kind, number)) if number.bytes().all(|b| b.is_ascii_digit()) => kind,
        _ => file,
    }
}

pub fn measure(records: &Records, all: &[Receipts]) -> Vec<Lag> {
    let mut kinds: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for receipts in all {
        let micros = kinds.entry(kind_of(&receipts.file)).or_default();
        for (event, got) in records.log.events.iter().zip(&receipts.first) {
            let (Some(seen), Some(got)) = (event.seen_at, *got) else { continue };
            if records.faults.open(seen.before(2 * SECOND), got).next().is_none() {
                micros.push(got.since(seen));
            }
        }
    }
    kinds.into_iter().map(|(kind, micros)| Lag { kind: kind.to_owned(), calm: percentiles(micros) }).collect()
}

/// Of what was told to others while it was connected and nothing of those that tell was hurt, it got nearly all: between
/// two connections' ends and begins a few may be lost.
pub fn judge(records: &Records, all: &[Receipts], findings: &mut Findings) {
    for receipts in all.iter().filter(|r| !r.owes) {
        let owed = records
            .log
            .events
            .iter()
            .zip(&receipts.first)
            .filter(|(event, _)| owed(records, receipts, event));
        let (got, missing): (Vec<_>, Vec<_>) = owed.partition(|(_, got)| got.is_some());
        let (n, of) = (missing.len(), missing.len() + got.len());
        if of == 0 {
            continue;
        }
        findings.tried(Promise::P3);
        let Some((event, _)) = missing.first().filter(|_| n * 100 > of) else { continue };
        findings.broken(Violation {
            promise: Promise::P3,
            kind: "pub/sub: missing",
            session: session_of(event).map(|session| records.sessions.get(session).id),
            device: event.subject.map(|s| records.names.text(s).to_owned()),
            seq: Some(event.seq),
            at: event.seen_at,
            text: format!("{} did not get {n} of {of} that others got in calm time", receipts.file),
        });
    }
}

fn owed(records: &Records, receipts: &Receipts, event: &LogEvent) -> bool {
    let Some(seen) = event.seen_at else { return false };
    let there = receipts.opens.iter().any(|(from, to)| *from <= seen.before(NEAR) && *to >= seen.after(NEAR));
    let tells = |name: &str| {
        matches!(name, "redis" | "postgres" | "runner") || records.run.nodes.iter().any(|n| n == name)
    };
    let hurt = |f: &&super::faults::Fault| {
        f.is_felt(seen.before(NEAR), seen.after(NEAR), records.run.settling()) && f.concerns(tells)
    };
    there && !records.faults.all().iter().any(|f| hurt(&f))
}
