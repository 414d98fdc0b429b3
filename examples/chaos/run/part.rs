//! The parts of an installation that a run sets up and hurts, by the names that its records use.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Serialize, Serializer};

/// One part. Each but the swarms has a network of its own; the swarms are together at [`Part::Devices`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Counted from 1.
    Node(u8),
    Postgres,
    Redis,
    /// The network that all devices are in.
    Devices,
    /// One process of simulated devices, by its letter.
    Swarm(char),
    /// The network of the run itself and its subscribers.
    Runner,
}

impl Part {
    /// The address in the run's own network.
    pub fn ip(self) -> Ipv4Addr {
        let last = match self {
            Self::Postgres => 2,
            Self::Redis => 3,
            Self::Devices | Self::Swarm(_) => 4,
            Self::Runner => 5,
            Self::Node(n) => 10 + n,
        };
        Ipv4Addr::new(10, 44, 0, last)
    }

    pub fn is_node(self) -> bool {
        matches!(self, Self::Node(_))
    }

    pub fn is_store(self) -> bool {
        matches!(self, Self::Postgres | Self::Redis)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(n) => write!(f, "node-{n}"),
            Self::Swarm(letter) => write!(f, "swarm-{letter}"),
            Self::Postgres => f.write_str("postgres"),
            Self::Redis => f.write_str("redis"),
            Self::Devices => f.write_str("devices"),
            Self::Runner => f.write_str("runner"),
        }
    }
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
