//! What the driver tells its load and what that answers: a JSON object a line, one answer for each order.

use std::collections::BTreeMap;
use std::ops::Range;

use clap::ValueEnum;
use lastpong::ids::SessionId;
use serde::{Deserialize, Serialize};

/// How devices speak to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// A token in the handshake, and there once it is welcomed.
    Lastpong,
    /// WebSocket, pinged by the server.
    Plain,
    /// MQTT 3.1.1 over WebSocket: the device pings.
    Mqtt,
    /// The protocol of NATS over WebSocket: the server pings.
    Nats,
}

/// How a device leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// By a close frame.
    Close,
    /// Its connection is reset.
    Reset,
    /// Its socket is closed without a word.
    Vanish,
}

/// Devices are numbered from 0 in the order in which they first connect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Order {
    /// So many more devices connect, at most `under_way` of them at one time; who is refused comes again.
    Connect { count: u32, under_way: u32, within_s: u64 },
    /// So many devices connect and leave once they are there.
    Visit { count: u32, under_way: u32, within_s: u64 },
    /// These leave one after another, `gap_us` apart.
    Leave { devices: Range<u32>, how: How, gap_us: u64, within_s: u64 },
    /// These answer no more, until the server has ended all of them.
    Silence { devices: Range<u32>, within_s: u64 },
    /// These lose their connections all at once and come back at once, as the server advises. How late those with lower
    /// numbers are pinged meanwhile, and for an interval after, is told.
    Storm { devices: Range<u32>, within_s: u64 },
    /// Nothing but an answer.
    Stat,
}

/// What became of an order. Counts are since the load began, but for what one order brings about by itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Answer {
    /// What was not reached in time.
    pub error: Option<String>,
    pub began_us: u64,
    pub ended_us: u64,
    /// When all were back, after a storm.
    pub back_us: u64,
    /// Devices that are there now.
    pub ready: u32,
    pub round_trips: u64,
    /// Connections that the server ended without being asked to.
    pub lost: u32,
    /// Handshakes that were refused, by status.
    pub refused: BTreeMap<u16, u32>,
    /// Dials that came to nothing in another way.
    pub failed: u32,
    /// When each device left, or got the first ping that it did not answer.
    pub left: Vec<Left>,
    pub late: Option<Late>,
    /// The longest turn of the load itself: what it was late by.
    pub own_turn_ms: f64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Left {
    /// Of a server that tells it.
    pub session: Option<SessionId>,
    pub at_us: u64,
}

/// How late pings came: the time from one to the next, less the interval.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Late {
    pub pings: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}
