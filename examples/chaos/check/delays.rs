//! P5, on time: from what ended a session to the first subscriber's receipt of its end record, as distributions.
//!
//! | kind | from | bound at p99 |
//! | --- | --- | --- |
//! | close, bye, reset, vanish | the device's deed | 100 ms |
//! | silent | the deadline that the first unanswered ping began | 1 s |
//! | node killed | the kill (where Postgres was not hit as well) | lease + 5 s |
//! | leaving, swarm killed | all devices at once: the close, the kill | none is promised |
//!
//! Calm are those during which no fault was open, from two seconds before (but the kill itself). Only sessions count that
//! ended for the reason that belongs to the deed. That a silent device is found at all is for `overdue`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::at::{At, MS, SECOND};
use super::devices::Deed;
use super::explain::Case;
use super::faults::{Fault, Kind};
use super::records::{Records, Run};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Close,
    Bye,
    Reset,
    Vanish,
    Silent,
    NodeKilled,
    Leaving,
    SwarmKilled,
}

impl What {
    const ALL: [What; 8] = [
        What::Close,
        What::Bye,
        What::Reset,
        What::Vanish,
        What::Silent,
        What::NodeKilled,
        What::Leaving,
        What::SwarmKilled,
    ];

    fn name(self) -> &'static str {
        match self {
            What::Close => "close",
            What::Bye => "bye",
            What::Reset => "reset",
            What::Vanish => "vanish",
            What::Silent => "silent",
            What::NodeKilled => "node killed",
            What::Leaving => "leaving",
            What::SwarmKilled => "swarm killed",
        }
    }

    fn bound(self, run: &Run) -> Option<i64> {
        match self {
            What::Close | What::Bye | What::Reset | What::Vanish => Some(100 * MS),
            What::Silent => Some(SECOND),
            What::NodeKilled => Some(run.lease().saturating_add(5 * SECOND)),
            What::Leaving | What::SwarmKilled => None,
        }
    }
}

/// Percentiles of one kind, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    pub n: usize,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

#[derive(Debug, Serialize)]
pub struct Delay {
    pub kind: &'static str,
    pub bound_ms: Option<f64>,
    pub calm: Option<Percentiles>,
    pub all: Option<Percentiles>,
}

impl Delay {
    /// In calm time its p99 is over its bound.
    pub fn over(&self) -> bool {
        matches!((self.calm, self.bound_ms), (Some(calm), Some(bound)) if calm.p99 > bound)
    }
}

struct Sample {
    what: What,
    micros: i64,
    calm: bool,
}

pub fn measure(records: &Records) -> Vec<Delay> {
    let mut kinds: BTreeMap<What, (Vec<i64>, Vec<i64>)> =
        What::ALL.into_iter().map(|what| (what, Default::default())).collect();
    for sample in Case::all(records).filter_map(|case| sample(&case)) {
        let (calm, all) = kinds.entry(sample.what).or_default();
        all.push(sample.micros);
        if sample.calm {
            calm.push(sample.micros);
        }
    }
    let delay = |(what, (calm, all)): (What, (Vec<i64>, Vec<i64>))| Delay {
        kind: what.name(),
        bound_ms: what.bound(&records.run).map(|bound| bound as f64 / 1_000.0),
        calm: percentiles(calm),
        all: percentiles(all),
    };
    kinds.into_iter().map(delay).collect()
}

/// By nearest rank.
pub fn percentiles(mut micros: Vec<i64>) -> Option<Percentiles> {
    micros.sort_unstable();
    let n = micros.len();
    let millis = |micros: i64| micros as f64 / 1_000.0;
    let at = |percent: usize| micros.get((n * percent).div_ceil(100).max(1) - 1).copied().map(millis);
    Some(Percentiles { n, p50: at(50)?, p90: at(90)?, p99: at(99)?, max: at(100)? })
}

fn sample(case: &Case<'_>) -> Option<Sample> {
    // A record that no subscriber got has no delay; P3 tells of it.
    let seen = case.event.seen_at?;
    // The silence that came before is not known to the microsecond.
    if case.conn.is_some_and(|c| c.did(Deed::GaveUp).is_some()) {
        return None;
    }
    let (what, from, besides) = match case.reason {
        "node_lost" => {
            let kill = kill_of_node(case, seen)?;
            (What::NodeKilled, kill.begin, Some(kill.number))
        }
        "pong_timeout" => (What::Silent, silent_until(case)?, None),
        "client_closed" | "read_error" | "ping_failed" => match deed(case) {
            Some((what, at)) => (what, at, None),
            None => {
                let kill = kill_of_swarm(case, seen)?;
                (What::SwarmKilled, kill.begin, Some(kill.number))
            }
        },
        _ => return None,
    };
    let calm = case.records.faults.open(from.before(2 * SECOND), seen).all(|f| Some(f.number) == besides);
    Some(Sample { what, micros: seen.since(from), calm })
}

/// The deed that ended it, if the reason is that deed's.
fn deed(case: &Case<'_>) -> Option<(What, At)> {
    let leaving = case.swarm().and_then(|s| s.leaving);
    case.deeds().find_map(|(at, deed)| {
        let closed = case.reason == "client_closed";
        let what = match deed {
            Deed::Close if closed && leaving.is_some_and(|leaving| leaving <= at) => What::Leaving,
            Deed::Close if closed => What::Close,
            Deed::Bye if closed => What::Bye,
            Deed::Reset if !closed => What::Reset,
            Deed::Vanish if !closed => What::Vanish,
            _ => return None,
        };
        Some((what, at))
    })
}

/// When the deadline of one that fell silent was over.
fn silent_until(case: &Case<'_>) -> Option<At> {
    let conn = case.conn?;
    conn.did(Deed::Silent)?;
    Some(conn.end?.owed_since?.after(case.records.run.deadline()))
}

fn kill_of_node<'a>(case: &Case<'a>, seen: At) -> Option<&'a Fault> {
    let faults = &case.records.faults;
    let kill = faults
        .of(Kind::Kill, case.node)
        .filter(|f| f.begin <= seen && f.begin >= case.began)
        .max_by_key(|f| f.begin)?;
    (!faults.postgres_was_away_for(case.node, kill.begin, seen)).then_some(kill)
}

fn kill_of_swarm<'a>(case: &Case<'a>, seen: At) -> Option<&'a Fault> {
    let swarm = case.swarm()?;
    case.conn.filter(|c| c.end.is_none())?;
    let gone = swarm.gone_at?;
    case.records
        .faults
        .all()
        .iter()
        .find(|f| f.begin == gone && gone <= seen && matches!(f.kind, Kind::Drop | Kind::Kill))
}
