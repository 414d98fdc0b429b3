//! What was found: a tally for each promise, every violation counted, the first of each kind kept to be told.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use uuid::Uuid;

use super::at::At;
use super::delays::Delay;
use super::faults::Kind;
use super::lags::{Lag, kind_of};
use super::records::{Records, Setup};
use super::story::Story;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Promise {
    P1,
    P2,
    P3,
    P4,
    P5,
    P6,
}

impl Promise {
    pub const ALL: [Promise; 6] =
        [Promise::P1, Promise::P2, Promise::P3, Promise::P4, Promise::P5, Promise::P6];

    /// What one that was tried is.
    pub fn checked(self) -> &'static str {
        match self {
            Promise::P1 => "sessions: one start, one end; live where their device says so",
            Promise::P2 => "events: seq and device_seq without gap, ends before the next start",
            Promise::P3 => "events as each subscriber got them: in the log, in order, none skipped",
            Promise::P4 => "sessions of devices that answered: not ended for another's fault",
            Promise::P5 => "sessions of devices that fell silent or deaf: found, sooner or later",
            Promise::P6 => "ends: reason, initiator, detection, code, last signs of life",
        }
    }
}

/// One that was tried and did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    pub promise: Promise,
    /// The kind of violation, in a few words.
    pub kind: &'static str,
    pub session: Option<Uuid>,
    pub device: Option<String>,
    pub seq: Option<i64>,
    pub at: Option<At>,
    /// What was found.
    pub text: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub tried: u64,
    pub broken: u64,
}

impl Tally {
    pub fn held(self) -> u64 {
        self.tried.saturating_sub(self.broken)
    }
}

#[derive(Debug)]
pub struct Findings {
    keep: usize,
    tallies: BTreeMap<Promise, Tally>,
    pub kinds: BTreeMap<(Promise, &'static str), u64>,
    pub kept: Vec<Violation>,
}

impl Findings {
    pub fn new(keep: usize) -> Self {
        let tallies = Promise::ALL.into_iter().map(|p| (p, Tally::default())).collect();
        Self { keep, tallies, kinds: BTreeMap::new(), kept: Vec::new() }
    }

    pub fn tried(&mut self, promise: Promise) {
        self.tallies.entry(promise).or_default().tried += 1;
    }

    pub fn broken(&mut self, violation: Violation) {
        self.tallies.entry(violation.promise).or_default().broken += 1;
        let count = self.kinds.entry((violation.promise, violation.kind)).or_default();
        *count += 1;
        if *count <= self.keep as u64 {
            self.kept.push(violation);
        }
    }
}

/// How many sessions ended for a reason.
pub type Reasons = BTreeMap<String, u64>;

/// The outcome of a run.
#[derive(Debug, Serialize)]
pub struct Verdict {
    pub seed: serde_json::Value,
    pub tallies: BTreeMap<Promise, Tally>,
    /// How often each kind of violation was found.
    pub kinds: Vec<(Promise, &'static str, u64)>,
    pub delays: Vec<Delay>,
    pub lags: Vec<Lag>,
    pub reasons: Reasons,
    pub faults: BTreeMap<Kind, u64>,
    /// What keeps the run from being a whole one.
    pub lacks: Vec<String>,
    pub stories: Vec<Story>,
    /// A delay over its bound in calm time counts as broken.
    #[serde(skip)]
    pub strict: bool,
}

impl Verdict {
    pub(super) fn new(
        records: &Records,
        findings: Findings,
        delays: Vec<Delay>,
        lags: Vec<Lag>,
        stories: Vec<Story>,
    ) -> Self {
        let mut reasons = Reasons::new();
        for end in &records.log.ends {
            *reasons.entry(records.names.text(end.reason).to_owned()).or_default() += 1;
        }
        Self {
            seed: records.run.seed.clone(),
            tallies: findings.tallies,
            kinds: findings.kinds.into_iter().map(|((promise, kind), n)| (promise, kind, n)).collect(),
            delays,
            lags,
            reasons,
            faults: records.faults.by_kind(),
            lacks: lacks(records),
            stories,
            strict: false,
        }
    }

    /// Every promise was tried and none broken, and the run came to its end.
    pub fn held(&self) -> bool {
        let late = self.strict && self.delays.iter().any(Delay::over);
        let sound = self.tallies.values().all(|t| t.tried > 0 && t.broken == 0);
        sound && self.lacks.is_empty() && !late
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({ "held": self.held(), "verdict": self })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::table::show(self, f)
    }
}

/// A run that broke off proves nothing of what was to come, and a swarm that died by itself tried nothing more.
fn lacks(records: &Records) -> Vec<String> {
    let run = &records.run;
    let mut lacks = Vec::new();
    for (what, at) in [
        ("began_at", run.began_at),
        ("quiet_at", run.quiet_at),
        ("left_at", run.left_at),
        ("ended_at", run.ended_at),
    ] {
        if at.is_none() {
            lacks.push(format!("run.json has no {what}: the run did not come to its end"));
        }
    }
    let there = |name: &str| records.subscribers.iter().any(|(file, _)| file == name);
    for name in run.subscribers.iter().filter(|name| !there(name)) {
        lacks.push(format!("subscribers/{name}.jsonl is missing"));
    }
    let kinds: &[&str] = match run.setup {
        Setup::Cluster => &["page", "pubsub", "sse", "stream", "ws"],
        Setup::Embedded => &["page", "sse", "ws"],
    };
    for kind in kinds {
        if !records.subscribers.iter().any(|(file, _)| kind_of(file) == *kind) {
            lacks.push(format!("there is no subscriber of the kind {kind}"));
        }
    }
    for (file, _) in records.subscribers.iter().filter(|(_, events)| *events == 0) {
        lacks.push(format!("subscribers/{file}.jsonl has no event"));
    }
    for swarm in records.swarms.iter().filter(|s| !s.done && !s.was_killed) {
        lacks.push(format!("devices/{}.jsonl stops, and no fault stopped it", swarm.file));
    }
    for fault in records.faults.all().iter().filter(|f| f.end == At::NEVER) {
        lacks.push(format!("fault {} did not end", fault.number));
    }
    lacks
}
