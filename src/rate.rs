//! How many a second: the generic cell rate algorithm in one word.
//!
//! The one number kept is the time at which the next arrival would be exactly on schedule (ITU-T I.371, the
//! virtual scheduling form). A second's worth may come at once.

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
        let gap = SECOND_US / u64::from(per_sec);
        let next = self.0.max(now.0) + gap;
        let early = next.saturating_sub(now.0 + SECOND_US.max(gap));
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
