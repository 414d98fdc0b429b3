//! What a swarm has counted: of one process, and of several together.
//!
//! Counts only grow, so that those of parts can be added up at any time. A histogram goes over a pipe as its values
//! with their counts.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The first so many sessions that ended unexpectedly are told by name.
pub const TOLD_BY_NAME: usize = 10;

/// What changes from second to second.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Pulse {
    pub live: u64,
    pub dialling: u64,
    pub begun: u64,
    pub welcomed: u64,
    pub refused: u64,
    pub failed: u64,
    pub pings: u64,
    pub pongs: u64,
    /// Ends, by how.
    pub ends: BTreeMap<String, u64>,
    pub unexpected: u64,
}

/// A session that ended although its device answered and did nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unexpected {
    pub device: String,
    pub session: String,
    pub how: String,
    pub code: Option<u16>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tally {
    pub pulse: Pulse,
    /// Refused handshakes by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Handshakes that came to nothing, by what was wrong.
    pub failures: BTreeMap<String, u64>,
    /// Ends by the close code that the server sent.
    pub codes: BTreeMap<u16, u64>,
    pub deeds: BTreeMap<String, u64>,
    /// Pings deliberately left unanswered.
    pub lost: u64,
    pub heartbeats: u64,
    pub not_understood: u64,
    pub unexpected: Vec<Unexpected>,
    /// Devices that will not come back.
    pub gone: u64,
    /// For how long this process itself stood still, in milliseconds.
    pub late_ms: u64,
    /// Welcomes in each second of the Unix epoch.
    pub by_second: BTreeMap<i64, u64>,
    /// From the dial to the answer 101, in microseconds.
    pub upgrade: Latency,
    pub welcome: Latency,
    /// From the server's ping to the device's pong.
    pub turnaround: Latency,
    /// Of the devices' own pings.
    pub ping: Latency,
    pub heartbeat: Latency,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.pulse.add(&other.pulse);
        sum(&mut self.statuses, &other.statuses);
        sum(&mut self.failures, &other.failures);
        sum(&mut self.codes, &other.codes);
        sum(&mut self.deeds, &other.deeds);
        sum(&mut self.by_second, &other.by_second);
        self.lost += other.lost;
        self.heartbeats += other.heartbeats;
        self.not_understood += other.not_understood;
        self.gone += other.gone;
        self.late_ms = self.late_ms.max(other.late_ms);
        let room = TOLD_BY_NAME.saturating_sub(self.unexpected.len());
        self.unexpected.extend(other.unexpected.iter().take(room).cloned());
        self.upgrade.add(&other.upgrade);
        self.welcome.add(&other.welcome);
        self.turnaround.add(&other.turnaround);
        self.ping.add(&other.ping);
        self.heartbeat.add(&other.heartbeat);
    }
}

impl Pulse {
    pub fn add(&mut self, other: &Pulse) {
        self.live += other.live;
        self.dialling += other.dialling;
        self.begun += other.begun;
        self.welcomed += other.welcomed;
        self.refused += other.refused;
        self.failed += other.failed;
        self.pings += other.pings;
        self.pongs += other.pongs;
        self.unexpected += other.unexpected;
        sum(&mut self.ends, &other.ends);
    }
}

fn sum<K: Ord + Clone>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, n) in from {
        *into.entry(key.clone()).or_default() += n;
    }
}

/// What takes longer is taken for this, so that one outlier does not cost memory.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Durations, in microseconds with three digits.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new(3).expect("three digits are allowed"))
    }
}

impl Latency {
    pub fn take(&mut self, took: Duration) {
        // Not `saturating_record`, which cuts off where it could grow.
        let us = took.min(LONGEST).as_micros() as u64;
        self.0.record(us).expect("a histogram that resizes takes an hour");
    }

    fn add(&mut self, other: &Latency) {
        self.0.add(&other.0).expect("a histogram that resizes takes any of its own kind");
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// In milliseconds.
    pub fn quantile_ms(&self, q: f64) -> f64 {
        self.0.value_at_quantile(q) as f64 / 1_000.0
    }

    /// In milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.0.max() as f64 / 1_000.0
    }
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.0.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())))
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut latency = Latency::default();
        for (value, count) in Vec::<(u64, u64)>::deserialize(d)? {
            latency.0.record_n(value, count).map_err(serde::de::Error::custom)?;
        }
        Ok(latency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_also_over_a_pipe() {
        let mut one = Tally::default();
        one.pulse.welcomed = 3;
        one.pulse.ends.insert("eof".into(), 2);
        one.codes.insert(4012, 1);
        one.by_second.insert(10, 5);
        (1..=1_000).for_each(|n| one.welcome.take(Duration::from_millis(n)));
        let piped: Tally = serde_json::from_str(&serde_json::to_string(&one).unwrap()).unwrap();
        let mut sum = Tally::default();
        sum.add(&one);
        sum.add(&piped);
        assert_eq!(
            (sum.pulse.welcomed, sum.pulse.ends["eof"], sum.codes[&4012], sum.by_second[&10]),
            (6, 4, 2, 10)
        );
        one.welcome.take(Duration::MAX);
        assert!((one.welcome.max_ms() - 3_600_000.0).abs() < 3_600.0, "{}", one.welcome.max_ms());
        assert_eq!(sum.welcome.count(), 2_000);
        for (q, ms) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let off = (sum.welcome.quantile_ms(q) - ms).abs();
            assert!(off <= ms * 0.002, "{q}: {}", sum.welcome.quantile_ms(q));
        }
    }
}
