//! What every row is given: the programs, and how much is measured.

use std::path::PathBuf;
use std::time::Duration;

/// Sizes follow from one number, so that a short trial has the proportions of the whole.
#[derive(Debug, Clone)]
pub struct World {
    pub lastpong: PathBuf,
    /// Another build of it, measured in turn.
    pub other: Option<PathBuf>,
    /// The folder of the peers that are built from `benches/peers`.
    pub peers: PathBuf,
    /// Of each server that can be told.
    pub workers: u32,
    /// The most sessions of a row.
    pub sessions: u32,
    /// How long a flow is measured.
    pub measured: Duration,
    /// How long a server is left alone before its memory is looked at.
    pub settle: Duration,
    /// From one ping to the next, in rows that measure pings.
    pub interval: Duration,
}

impl World {
    /// So many of the sessions, at least one.
    pub fn share(&self, of: u32, in_all: u32) -> u32 {
        (u64::from(self.sessions) * u64::from(of) / u64::from(in_all)).max(1) as u32
    }
}
