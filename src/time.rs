//! The two clocks, kept apart by type.
//!
//! [`Mono`] is what deadlines and durations are reckoned by: it never jumps. [`Timestamp`] is what people and
//! subscribers are told. A moment is kept as [`Mono`] and told as [`Timestamp`] by [`Now::wall_at`], so that a
//! step of the wall clock moves no deadline.

use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Microseconds since this process first asked for the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub u64);

impl Mono {
    pub fn now() -> Self {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        Self(START.elapsed().as_micros() as u64)
    }

    /// The time from `earlier` to this moment; zero where that is not earlier.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Mono {
    type Output = Mono;

    fn add(self, d: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// Wall-clock time in microseconds since the Unix epoch; RFC 3339 UTC with microseconds when written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_microsecond())
    }

    pub fn saturating_sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        write!(f, "{t:.6}")
    }
}

impl std::str::FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(value: &str) -> Result<Self, jiff::Error> {
        Ok(Self(value.parse::<jiff::Timestamp>()?.as_microsecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One reading of both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub mono: Mono,
    pub wall: Timestamp,
}

/// Two readings further apart than this were interrupted, and are taken again.
const APART: Duration = Duration::from_millis(1);

impl Now {
    pub fn read() -> Self {
        // A thread that is put off between the two would tell times that contradict its durations.
        for _ in 0..3 {
            let mono = Mono::now();
            let wall = Timestamp::now();
            if Mono::now().since(mono) < APART {
                return Self { mono, wall };
            }
        }
        Self { mono: Mono::now(), wall: Timestamp::now() }
    }

    /// When a past moment was, by the wall clock as it stands now.
    pub fn wall_at(&self, moment: Mono) -> Timestamp {
        self.wall.saturating_sub(self.mono.since(moment))
    }
}

/// A duration in milliseconds, with microseconds kept as decimals: the unit of every `*_ms` that is not a count.
pub fn millis(d: Duration) -> f64 {
    d.as_micros() as f64 / 1000.0
}
