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

crate::schema::schema_of!(Timestamp, crate::schema::time("RFC 3339, UTC, with microseconds."));

impl Timestamp {
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_microsecond())
    }

    pub fn saturating_add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
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

    /// By how many microseconds the wall clock is ahead of the monotonic one.
    fn ahead(&self) -> i64 {
        self.wall.0.saturating_sub_unsigned(self.mono.0)
    }

    /// When a past moment was, by the wall clock as it stands now.
    pub fn wall_at(&self, moment: Mono) -> Timestamp {
        self.wall.saturating_sub(self.mono.since(moment))
    }
}

/// How long a step ahead of the wall clock has to stand before [`CautiousClock`] believes it.
const STANDS: Duration = Duration::from_secs(24 * 3600);

/// The wall clock for what cannot be undone: a step ahead is followed only once it has stood for a day, so that a clock
/// that is set wrongly for a while throws nothing away. It has to be read now and then.
#[derive(Debug, Clone)]
pub struct CautiousClock {
    /// The least that the wall clock was ahead of the monotonic one, in microseconds: until [`Self::since`], and from
    /// then on.
    before: i64,
    lately: i64,
    since: Mono,
}

impl CautiousClock {
    pub fn new(now: Now) -> Self {
        let ahead = now.ahead();
        Self { before: ahead, lately: ahead, since: now.mono }
    }

    pub fn read(&mut self, now: Now) -> Timestamp {
        if now.mono.since(self.since) >= STANDS {
            (self.before, self.lately, self.since) = (self.lately, now.ahead(), now.mono);
        }
        self.lately = self.lately.min(now.ahead());
        Timestamp(self.before.min(self.lately).saturating_add_unsigned(now.mono.0))
    }
}

/// A duration in milliseconds, with microseconds kept as decimals: the unit of every `*_ms` that is not a count.
pub fn millis(d: Duration) -> f64 {
    d.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_clock_is_followed_ahead_after_a_day_and_back_at_once() {
        const HOUR: u64 = 3600 * 1_000_000;
        let at =
            |hours: u64, wall: u64| Now { mono: Mono(hours * HOUR), wall: Timestamp((wall * HOUR) as i64) };
        let told = |clock: &mut CautiousClock, hours, wall| clock.read(at(hours, wall)).0 / HOUR as i64;
        let mut clock = CautiousClock::new(at(0, 1000));
        assert_eq!(told(&mut clock, 1, 1001), 1001);
        // Eight days ahead: believed when no lesser reading is younger than a day.
        for hours in 2..=24 {
            assert_eq!(told(&mut clock, hours, 1192 + hours), i64::try_from(1000 + hours).unwrap());
        }
        let believed = (25..=72).find(|&hours| told(&mut clock, hours, 1192 + hours) > 1100);
        assert!(believed.is_some_and(|hours| (26..=50).contains(&hours)), "{believed:?}");
        // Back again: at once.
        assert_eq!(told(&mut clock, 73, 1073), 1073);
        assert_eq!(told(&mut clock, 74, 1074), 1074);
    }
}
