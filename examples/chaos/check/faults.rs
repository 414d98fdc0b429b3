//! What was broken when, and whom it could touch.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Deserialize;

use super::at::{At, SECOND};
use super::records::{BadLine, Unreadable, each_line};

/// Outages with less than this between them are one to a node: it may not have come through in the pause.
const CONTIGUOUS: i64 = 3 * SECOND;
/// A connection whose packets were lost tries again after pauses that double: it may stay mute after the cut for about
/// as long as the cut was, and no longer than this.
const LONGEST_BACKOFF: i64 = 60 * SECOND;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Kill,
    Stop,
    Drain,
    Cut,
    Slow,
    Lossy,
    ReadOnly,
    Emptied,
    Full,
    Clock,
    Flood,
    Drop,
    Load,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::Stop => "stop",
            Kind::Drain => "drain",
            Kind::Cut => "cut",
            Kind::Slow => "slow",
            Kind::Lossy => "lossy",
            Kind::ReadOnly => "read_only",
            Kind::Emptied => "emptied",
            Kind::Full => "full",
            Kind::Clock => "clock",
            Kind::Flood => "flood",
            Kind::Drop => "drop",
            Kind::Load => "load",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Fault {
    pub number: u64,
    pub kind: Kind,
    pub whom: Vec<String>,
    /// Of a cut, slow or lossy network: from whom to whom.
    pub ways: Vec<(String, String)>,
    pub begin: At,
    /// When its cause was gone: by this its length is counted. Where the record does not say, the end.
    pub healed: At,
    /// When whom it hit was ready again as well: from then on things settle.
    pub end: At,
}

impl Fault {
    pub fn hits(&self, name: &str) -> bool {
        self.whom.iter().any(|w| w == name)
    }

    pub fn overlaps(&self, from: At, to: At) -> bool {
        self.begin <= to && self.end >= from
    }

    /// It hits one of these parts, or the packets between two of them. Load hits all.
    pub fn concerns(&self, is: impl Fn(&str) -> bool) -> bool {
        match self.ways.is_empty() {
            true => self.kind == Kind::Load || self.whom.iter().any(|w| is(w)),
            false => self.ways.iter().any(|(a, b)| is(a) && is(b)),
        }
    }

    /// It is open or settling at some time between these.
    pub fn is_felt(&self, from: At, to: At, settling: i64) -> bool {
        self.begin <= to && self.end.after(settling) >= from
    }

    /// Packets between the two, either way, are dropped, delayed or lost.
    fn breaks_way(&self, a: &str, b: &str) -> bool {
        matches!(self.kind, Kind::Cut | Kind::Slow | Kind::Lossy)
            && self.ways.iter().any(|(from, to)| (from == a && to == b) || (from == b && to == a))
    }

    /// Postgres is away for everyone.
    pub fn takes_postgres(&self) -> bool {
        matches!(self.kind, Kind::Kill | Kind::Stop | Kind::ReadOnly | Kind::Full) && self.hits("postgres")
    }

    /// This node alone cannot renew its lease: it stands still, or is cut off from Postgres.
    pub fn cuts_off(&self, node: &str) -> bool {
        (self.kind == Kind::Stop && self.hits(node)) || self.breaks_way(node, "postgres")
    }
}

#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

/// A time in which a node could not reach Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    pub from: At,
    /// When its cause was gone.
    pub to: At,
    /// When it was ready again.
    pub ready: At,
}

impl Faults {
    pub fn all(&self) -> &[Fault] {
        &self.0
    }

    pub fn by_kind(&self) -> BTreeMap<Kind, u64> {
        let mut counts = BTreeMap::new();
        for fault in &self.0 {
            *counts.entry(fault.kind).or_default() += 1;
        }
        counts
    }

    pub fn open(&self, from: At, to: At) -> impl Iterator<Item = &Fault> {
        self.0.iter().filter(move |f| f.overlaps(from, to))
    }

    pub fn of(&self, kind: Kind, whom: &str) -> impl Iterator<Item = &Fault> {
        self.0.iter().filter(move |f| f.kind == kind && f.hits(whom))
    }

    /// The network between the two was hurt, or had been so lately that connections may not have recovered.
    pub fn way_was_hurt(&self, a: &str, b: &str, from: At, to: At) -> bool {
        self.0.iter().filter(|f| f.breaks_way(a, b)).any(|f| {
            let backoff = f.healed.since(f.begin).min(LONGEST_BACKOFF);
            f.begin <= to && f.healed.after(backoff) >= from
        })
    }

    /// A clock fault was open on one of these nodes (on any node, where none is named).
    pub fn clock_was_set(&self, nodes: &[&str], from: At, to: At) -> bool {
        self.open(from, to)
            .filter(|f| f.kind == Kind::Clock)
            .any(|f| nodes.is_empty() || nodes.iter().any(|n| f.hits(n)))
    }

    /// When something that was due is overdue: later where a fault that counts was open or settling meanwhile.
    pub fn due(&self, from: At, within: i64, settling: i64, counts: impl Fn(&Fault) -> bool) -> At {
        let mut due = from.after(within);
        loop {
            let felt = self.0.iter().filter(|f| f.is_felt(from, due, settling) && counts(f));
            match felt.map(|f| f.end.after(settling).after(within)).max().filter(|later| *later > due) {
                Some(later) => due = later,
                None => return due,
            }
        }
    }

    /// Postgres was away for everyone or for this node.
    pub fn postgres_was_away_for(&self, node: &str, from: At, to: At) -> bool {
        self.open(from, to).any(|f| f.takes_postgres() || f.cuts_off(node))
    }

    /// When what a fault left to do was done that ended at `from`: `settling` later, or later still where Postgres was
    /// away meanwhile.
    pub fn settled(&self, node: &str, from: At, settling: i64) -> At {
        let mut from = from;
        loop {
            let to = from.after(settling);
            let away =
                |f: &&Fault| f.takes_postgres() || f.cuts_off(node) || (f.kind == Kind::Kill && f.hits(node));
            match self.open(from, to).filter(away).map(|f| f.end).filter(|end| *end > from).max() {
                Some(end) => from = end,
                None => return to,
            }
        }
    }

    /// The outages in which this node, and not all of its peers, was without Postgres for some of the time; outages
    /// for everyone that adjoin are part of them, for the node's lease goes on through both.
    pub fn own_outages(&self, node: &str, peers: &[String]) -> Vec<Outage> {
        let own: Vec<&Fault> = self.0.iter().filter(|f| f.cuts_off(node)).collect();
        if !own.iter().any(|f| peers.iter().any(|p| p != node && self.held_out(p, f.begin, f.healed))) {
            return Vec::new();
        }
        let mut away: Vec<&Fault> =
            self.0.iter().filter(|f| f.takes_postgres() || f.cuts_off(node)).collect();
        away.sort_by_key(|f| f.begin);
        let mut blocks: Vec<(Outage, bool)> = Vec::new();
        for fault in away {
            let alone = fault.cuts_off(node)
                && peers.iter().any(|p| p != node && self.held_out(p, fault.begin, fault.healed));
            match blocks.last_mut() {
                Some((last, was_alone)) if fault.begin <= last.to.after(CONTIGUOUS) => {
                    last.to = last.to.max(fault.healed);
                    last.ready = last.ready.max(fault.end);
                    *was_alone |= alone;
                }
                _ => blocks.push((Outage { from: fault.begin, to: fault.healed, ready: fault.end }, alone)),
            }
        }
        blocks.into_iter().filter(|(_, alone)| *alone).map(|(outage, _)| outage).collect()
    }

    /// This peer ran and could reach Postgres for some of that time; over a slow or lossy network by chance.
    fn held_out(&self, peer: &str, from: At, to: At) -> bool {
        let down = |f: &&Fault| {
            f.takes_postgres()
                || (f.cuts_off(peer) && !matches!(f.kind, Kind::Slow | Kind::Lossy))
                || (matches!(f.kind, Kind::Kill | Kind::Drain) && f.hits(peer))
        };
        let mut down: Vec<&Fault> = self.open(from, to).filter(down).collect();
        down.sort_by_key(|f| f.begin);
        let mut reached = from;
        for fault in down {
            if fault.begin > reached {
                return true;
            }
            reached = reached.max(fault.healed);
        }
        reached < to
    }
}

#[derive(Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
enum Line {
    Begin {
        at: At,
        fault: u64,
        kind: Kind,
        whom: Vec<String>,
        #[serde(default)]
        ways: Option<Vec<(String, String)>>,
    },
    Healed {
        at: At,
        fault: u64,
    },
    End {
        at: At,
        fault: u64,
    },
}

pub fn read(path: &Path) -> Result<Faults, Unreadable> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut places: HashMap<u64, usize> = HashMap::new();
    each_line(path, |_, bytes| {
        match serde_json::from_slice(bytes)? {
            Line::Begin { at, fault, kind, whom, ways } => {
                let ways = ways.unwrap_or_default();
                if ways.is_empty() && matches!(kind, Kind::Cut | Kind::Slow | Kind::Lossy) {
                    return Err(BadLine::Sense(format!("fault {fault} says no ways")));
                }
                if places.insert(fault, faults.len()).is_some() {
                    return Err(BadLine::Sense(format!("fault {fault} began before")));
                }
                let (healed, end) = (At::NEVER, At::NEVER);
                faults.push(Fault { number: fault, kind, whom, ways, begin: at, healed, end });
            }
            Line::Healed { at, fault } => begun(&mut faults, &places, fault)?.healed = at,
            Line::End { at, fault } => {
                let fault = begun(&mut faults, &places, fault)?;
                fault.end = at;
                fault.healed = fault.healed.min(at);
            }
        }
        Ok(())
    })?;
    Ok(Faults(faults))
}

fn begun<'a>(
    faults: &'a mut [Fault],
    places: &HashMap<u64, usize>,
    number: u64,
) -> Result<&'a mut Fault, BadLine> {
    let place = places.get(&number).ok_or_else(|| format!("fault {number} never began"))?;
    Ok(&mut faults[*place])
}
