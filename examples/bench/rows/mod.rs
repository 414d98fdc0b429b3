//! What is measured: a file a row, each with how it is done and what its figures mean.

mod dashboard;
mod detection;
mod drop;
mod ends;
mod fanout;
mod handshakes;
mod heartbeats;
mod instructions;
mod memory;
mod nodes;
mod pings;
mod statements;
mod storm;

use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Map, Value};

use crate::line::Figures;
use crate::subjects::{Setup, Subject};
use crate::world::World;

/// Handshakes that are under way at once.
pub const UNDER_WAY: u32 = 256;

/// How long events may take until they are seen. Far more than any row would call good.
pub const SEEN_WITHIN: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Row {
    /// Bytes of memory a session, and what is kept when all have left
    Memory,
    /// Processor time for a million pings and their answers
    Pings,
    /// Processor time for a handshake, and handshakes a second
    Handshakes,
    /// From a device's close to its end record, one after another
    Ends,
    /// All devices drop at once
    Drop,
    /// All devices drop at once and come back at once, while others stay
    Storm,
    /// From a connection's end, or a deadline, to its end record
    Detection,
    /// Processor time for an event delivered to one of many subscribers
    Fanout,
    /// Processor time of a dashboard that is looked at, and whether pings are later for it
    Dashboard,
    /// Instructions for a ping and its pong, by callgrind
    Instructions,
    /// Heartbeats a second into Redis
    Heartbeats,
    /// Several nodes side by side until 100,000 sessions are held; only where it is asked for
    Nodes,
}

/// What a measurement came to.
pub struct Measured {
    pub value: Map<String, Value>,
    pub settings: Map<String, Value>,
}

impl Measured {
    fn new(value: Figures, settings: Map<String, Value>) -> Self {
        Self { value: value.0, settings }
    }

    fn and(mut self, key: &str, setting: impl Into<Value>) -> Self {
        self.settings.insert(key.to_owned(), setting.into());
        self
    }
}

impl Row {
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// All but what needs a machine to itself for long, and some GiB of it.
    pub fn usual() -> Vec<Self> {
        Self::value_variants().iter().copied().filter(|row| *row != Self::Nodes).collect()
    }

    /// Whether it measures a lastpong that runs, so that another build can be measured in turn.
    pub fn is_of_programs(self) -> bool {
        !matches!(self, Self::Heartbeats | Self::Nodes)
    }

    /// Who is measured, in this order in each round.
    pub fn subjects(self) -> Vec<Subject> {
        let (embedded, stores) = (Subject::Lastpong(Setup::Embedded), Subject::Lastpong(Setup::Stores));
        let with_peers = |own: &[Subject]| own.iter().copied().chain(Subject::PEERS).collect();
        match self {
            Self::Memory | Self::Pings => with_peers(&[embedded]),
            Self::Handshakes => with_peers(&[embedded, stores]),
            Self::Ends | Self::Storm => vec![embedded, stores],
            Self::Drop => vec![embedded, stores, statements::SUBJECT],
            Self::Detection | Self::Fanout | Self::Dashboard | Self::Instructions => vec![embedded],
            Self::Heartbeats => vec![embedded, heartbeats::REFERENCE],
            Self::Nodes => vec![stores],
        }
    }

    /// # Errors
    /// What kept it from being measured.
    pub fn measure(self, subject: Subject, world: &World) -> anyhow::Result<Measured> {
        match (self, subject) {
            (Self::Drop, Subject::Reference(_)) => statements::measure(world),
            (Self::Heartbeats, Subject::Reference(_)) => heartbeats::reference(),
            (Self::Heartbeats, _) => heartbeats::measure(world),
            (Self::Memory, subject) => memory::measure(subject, world),
            (Self::Pings, subject) => pings::measure(subject, world),
            (Self::Handshakes, subject) => handshakes::measure(subject, world),
            (Self::Ends, subject) => ends::measure(subject, world),
            (Self::Drop, subject) => drop::measure(subject, world),
            (Self::Storm, subject) => storm::measure(subject, world),
            (Self::Detection, subject) => detection::measure(subject, world),
            (Self::Fanout, subject) => fanout::measure(subject, world),
            (Self::Dashboard, subject) => dashboard::measure(subject, world),
            (Self::Nodes, _) => nodes::measure(world),
            (Self::Instructions, subject) => instructions::measure(subject, world),
        }
    }
}

/// The median, the 99th percentile and the longest of some delays, in milliseconds.
fn delays(figures: Figures, name: &str, delays: &[f64]) -> Figures {
    let at = |share| crate::stats::percentile(delays, share).unwrap_or(f64::NAN);
    let key = |what: &str| format!("{name}{what}_ms");
    figures.with(&key("p50"), at(0.5)).with(&key("p99"), at(0.99)).with(&key("max"), at(1.0))
}
