//! The schedule of faults: which, on whom, when and for how long. Pure: the same seed and scene give the same schedule.
//!
//! - Faults come in bursts with calm between them, so that delays can also be measured while nothing is wrong.
//! - Never more than [`AT_ONCE`] at a time; no two on one part that would undo each other; and of several nodes one is
//!   always left whole. Every fault ends.
//! - What matters most comes first (`moves::owed`): ten minutes have all of it, whatever the seed. The rest is dealt
//!   like cards (`cards`).
//! - About half of the kills and stops of nodes, and of the cuts, are longer than a node's lease.
//!
//! Left out on purpose: how a fault is brought about (`faults`), and how long the parts take to be well again.

mod cards;
mod moves;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use self::cards::Cards;
use super::part::Part;

/// The most faults at one moment.
pub const AT_ONCE: usize = 3;

/// How long a part is counted as hit after its fault ended: it has to start, or to find back.
const RECOVERY: Duration = Duration::from_secs(6);

/// Between the end of one burst and the begin of the next.
const CALM_S: std::ops::RangeInclusive<u64> = 12..=18;

/// What kinds of faults there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[value(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// SIGKILL, and a start later on.
    Kill,
    /// SIGSTOP until SIGCONT.
    Stop,
    /// SIGTERM to a node, and a start after it ended.
    Drain,
    /// No packets one way or both.
    Cut,
    /// Few packets one way or both.
    Slow,
    /// A share of the packets one way or both is lost.
    Lossy,
    /// A store that takes no writes.
    ReadOnly,
    /// A Redis that lost everything.
    Emptied,
    /// A disk, or Redis's memory, without room.
    Full,
    /// A wall clock that jumps, that of a node also past retention, and jumps back.
    Clock,
    /// Too many handshakes, half-open connections, bad tokens.
    Flood,
    /// A swarm that ends all at once.
    Drop,
    /// All cores busy.
    Load,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Planned {
    /// Counted from 1, in the order of their begins.
    pub number: u32,
    /// From the begin of the schedule.
    #[serde(rename = "at_s", serialize_with = "seconds")]
    pub at: Duration,
    #[serde(rename = "lasts_s", serialize_with = "seconds")]
    pub lasts: Duration,
    #[serde(flatten)]
    pub fault: Fault,
}

/// What is done to whom.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fault {
    pub kind: Kind,
    pub whom: Vec<Part>,
    /// From whom to whom, where it is packets that suffer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ways: Vec<(Part, Part)>,
    #[serde(skip_serializing_if = "Detail::is_none")]
    pub detail: Detail,
}

/// What else there is to say.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", untagged)]
pub enum Detail {
    None,
    Share {
        share: f64,
    },
    Rate {
        kbit: u32,
    },
    /// By how much the clock jumps.
    Jump {
        by_s: i64,
    },
    Flood {
        what: FloodOf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FloodOf {
    Handshakes,
    HalfOpen,
    BadTokens,
}

/// What there is to hurt.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    pub nodes: u8,
    /// Postgres and Redis, or one node by itself.
    pub has_stores: bool,
    pub lease: Duration,
}

impl Detail {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

impl Planned {
    pub fn end(&self) -> Duration {
        self.at + self.lasts
    }

    fn meets(&self, other: &Self) -> bool {
        self.at < other.end() && other.at < self.end()
    }

    fn meets_recovery_of(&self, other: &Self) -> bool {
        self.at < other.end() + RECOVERY && other.at < self.end() + RECOVERY
    }
}

impl Kind {
    /// As records and the command line say it.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind.name())?;
        match self.ways.is_empty() {
            true => self.whom.iter().try_for_each(|part| write!(f, " {part}"))?,
            false => self.ways.iter().try_for_each(|(from, to)| write!(f, " {from}>{to}"))?,
        }
        match self.detail {
            Detail::None => Ok(()),
            Detail::Share { share } => write!(f, " {share}"),
            Detail::Rate { kbit } => write!(f, " {kbit} kbit/s"),
            Detail::Jump { by_s } => write!(f, " {by_s:+} s"),
            Detail::Flood { what } => write!(f, " {what:?}"),
        }
    }
}

impl Fault {
    /// Parts that must not be hit by two such faults at a time.
    pub fn claims(&self) -> BTreeSet<Part> {
        match self.kind {
            Kind::Cut | Kind::Slow | Kind::Lossy | Kind::Flood | Kind::Load => BTreeSet::new(),
            _ => self.whom.iter().copied().collect(),
        }
    }

    /// Nodes at which no device is served as it should be meanwhile.
    fn disables(&self) -> BTreeSet<Part> {
        match self.kind {
            Kind::Kill | Kind::Stop | Kind::Drain | Kind::Full => {
                self.whom.iter().copied().filter(|part| part.is_node()).collect()
            }
            Kind::Cut => {
                let of_devices =
                    self.ways.iter().filter(|way| way.0 == Part::Devices || way.1 == Part::Devices);
                of_devices.flat_map(|way| [way.0, way.1]).filter(|part| part.is_node()).collect()
            }
            _ => BTreeSet::new(),
        }
    }
}

/// The schedule for so long a time.
pub fn plan(seed: u64, scene: Scene, kinds: &[Kind], over: Duration) -> Vec<Planned> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cards = Cards::new(&mut rng, scene, kinds);
    let mut all: Vec<Planned> = Vec::new();
    let mut at = Duration::ZERO;
    while let Some(burst) = burst(&mut rng, &mut cards, scene, at, over) {
        at = burst.iter().map(Planned::end).max().unwrap_or(at) + secs(rng.random_range(CALM_S));
        all.extend(burst);
    }
    all.sort_by_key(|planned| planned.at);
    (1..).zip(&mut all).for_each(|(number, planned)| planned.number = number);
    all
}

/// Some faults that begin near each other; `None` where the time is up, or there is nothing to do.
fn burst(
    rng: &mut StdRng,
    cards: &mut Cards,
    scene: Scene,
    from: Duration,
    over: Duration,
) -> Option<Vec<Planned>> {
    let mut burst: Vec<Planned> = Vec::new();
    let mut begin = from;
    for _ in 0..rng.random_range(2..=5) {
        for mut row in cards.deal(rng)? {
            row.iter_mut().for_each(|planned| planned.at += begin);
            // Where it would not fit it comes later, when others have ended.
            while !all_fit(&row, &burst, scene) {
                row.iter_mut().for_each(|planned| planned.at += secs(1));
            }
            if row.iter().all(|planned| planned.end() <= over) {
                burst.extend(row);
            }
            begin += Duration::from_millis(rng.random_range(0..6_000));
        }
    }
    (!burst.is_empty()).then_some(burst)
}

fn all_fit(row: &[Planned], burst: &[Planned], scene: Scene) -> bool {
    (0..row.len()).all(|n| {
        let others: Vec<_> = burst.iter().chain(&row[..n]).collect();
        fits(&row[n], &others, scene)
    })
}

fn fits(new: &Planned, others: &[&Planned], scene: Scene) -> bool {
    let near = || others.iter().filter(|other| new.meets_recovery_of(other));
    let (claims, mut disabled) = (new.fault.claims(), new.fault.disables());
    if near().any(|other| !other.fault.claims().is_disjoint(&claims)) {
        return false;
    }
    if !disabled.is_empty() {
        near().for_each(|other| disabled.extend(other.fault.disables()));
        // Where there is one node alone it is its turn too.
        if disabled.len() > usize::from(scene.nodes).saturating_sub(1).max(1) {
            return false;
        }
    }
    // As many as meet the new one at the begin of any that does, or at its own.
    let meeting: Vec<_> = others.iter().filter(|other| new.meets(other)).collect();
    let begins = meeting.iter().map(|other| other.at.max(new.at)).chain([new.at]);
    begins.into_iter().all(|at| meeting.iter().filter(|o| o.at <= at && at < o.end()).count() < AT_ONCE)
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
