//! How big the stories of many nodes are told: small by default, and by the environment as big as is to be proved.
//!
//! - `TEST_SESSIONS`: devices that stay, for each node.
//! - `TEST_LANES`: devices that come and go at once.
//! - `TEST_OUTAGE_SECS`: how long a store is away.
//! - `TEST_LEASE_SECS`: the nodes' lease.
//! - `TEST_DEVICES`, `TEST_ROUNDS`: who contends for a device, and how often.
//! - `TEST_SHOWN`: sessions that a browser is shown.
//! - `TEST_IDENTITIES`: devices of as many names and types that come and go.
//! - `TEST_TRIES`: tokens that are changed by chance and tried.
//! - `TEST_ROUND_TRIPS`: pings that a device on a public client answers.
//! - `TEST_SLOW`: connections that send half a request; `TEST_DEAF`: devices that never read; `TEST_FLOOD`: frames of a
//!   flood.
//! - `TEST_DEADLINES=1`: the promised times are held too. That needs a release build (`TEST_LASTPONG`) and a machine
//!   that has nothing else to do; elsewhere they are only said.

use std::time::Duration;

pub fn sessions() -> usize {
    number("TEST_SESSIONS", 100)
}

pub fn lanes() -> usize {
    number("TEST_LANES", 30)
}

pub fn outage() -> Duration {
    Duration::from_secs(number("TEST_OUTAGE_SECS", 4) as u64)
}

/// Long enough that a node on a busy machine is not late with it.
pub fn lease() -> Duration {
    Duration::from_secs(number("TEST_LEASE_SECS", 4) as u64)
}

pub fn round_trips() -> usize {
    number("TEST_ROUND_TRIPS", 6)
}

pub fn devices() -> usize {
    number("TEST_DEVICES", 25)
}

pub fn rounds() -> usize {
    number("TEST_ROUNDS", 4)
}

/// How often a token is changed and tried on a socket.
pub fn tries() -> usize {
    number("TEST_TRIES", 500)
}

/// At least a few hundred, so that there are more types than are told apart.
pub fn identities() -> usize {
    number("TEST_IDENTITIES", 600)
}

pub fn slow() -> usize {
    number("TEST_SLOW", 500)
}

pub fn deaf() -> usize {
    number("TEST_DEAF", 100)
}

pub fn flood() -> usize {
    number("TEST_FLOOD", 20_000)
}

/// Sessions that a browser is shown.
pub fn shown() -> usize {
    number("TEST_SHOWN", 1_500)
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{name}={n} is no number")))
}

/// A time that is promised.
///
/// # Panics
/// When it took longer and `TEST_DEADLINES` is set.
pub fn promised(what: &str, took: Duration, limit: Duration) {
    eprintln!("{what}: {took:?} (promised: {limit:?})");
    let held = std::env::var_os("TEST_DEADLINES").is_some();
    assert!(!held || took <= limit, "{what} took {took:?}, and {limit:?} is promised");
}
