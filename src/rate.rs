//! How many a second: the generic cell rate algorithm in one word.
//!
//! The one number kept is the time at which the next arrival would be exactly on schedule (ITU-T I.371, the
//! virtual scheduling form). A second's worth may come at once.

pub mod keyed;

use std::time::Duration;

use crate::time::Mono;

const SECOND_US: u64 = 1_000_000;

/// A rate and who keeps to it.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    per_sec: u32,
    schedule: Schedule,
}

/// Who keeps to a rate that is known elsewhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct Schedule(u64);

impl Rate {
    /// `per_sec` at least 1.
    pub fn new(per_sec: u32) -> Self {
        Self { per_sec: per_sec.max(1), schedule: Schedule::default() }
    }

    /// Counts one arrival, or says after which time there is room for it.
    pub fn take(&mut self, now: Mono) -> Result<(), Duration> {
        self.schedule.take(self.per_sec, now)
    }
}

impl Schedule {
    /// The same for `per_sec`, at least 1 and always the same.
    pub fn take(&mut self, per_sec: u32, now: Mono) -> Result<(), Duration> {
        self.take_all(1, u64::from(per_sec), u64::from(per_sec), now)
    }

    /// The same for `count` arrivals together, of which `at_once` may come at once; `per_sec` and `at_once` at least 1.
    pub fn take_all(&mut self, count: u64, per_sec: u64, at_once: u64, now: Mono) -> Result<(), Duration> {
        let time_of = |arrivals: u64| arrivals.saturating_mul(SECOND_US) / per_sec;
        let next = self.0.max(now.0) + time_of(count);
        let early = next.saturating_sub(now.0 + time_of(at_once.max(count)));
        if early > 0 {
            return Err(Duration::from_micros(early));
        }
        self.0 = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_once_count_as_many() {
        let (mut bytes, now) = (Schedule::default(), Mono(5_000_000));
        let mut take = |count, now| bytes.take_all(count, 1_000, 4_000, now);
        assert!(take(3_000, now).is_ok());
        assert_eq!(take(2_000, now), Err(Duration::from_secs(1)));
        assert!(take(2_000, now + Duration::from_secs(1)).is_ok());
        assert!(take(1, now + Duration::from_secs(1)).is_err());
    }

    #[test]
    fn a_second_s_worth_at_once_then_one_by_one() {
        let mut rate = Rate::new(10);
        let now = Mono(5_000_000);
        assert_eq!((0..20).filter(|_| rate.take(now).is_ok()).count(), 10);
        assert_eq!(rate.take(now), Err(Duration::from_millis(100)));
        let later = now + Duration::from_millis(100);
        assert!(rate.take(later).is_ok());
        assert!(rate.take(later).is_err());
    }
}
