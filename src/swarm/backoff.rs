//! Whether a device comes back, when, and where to: pure.
//!
//! Delays are exponential with full jitter (Brooker, "Exponential Backoff And Jitter"): anything from nothing to a
//! bound that doubles with each failure in a row. `Retry-After` is waited out first.

use std::time::Duration;

use rand::Rng;

/// How a dial or a session came to its end, as far as coming back depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered with another status than 101.
    Refused { retry_after: Option<Duration> },
    /// No answer, or an end before the welcome, by this code where one was told.
    Failed { code: Option<u16> },
    /// A session's end, by this code where the server told one first.
    Ended { code: Option<u16> },
}

/// The rules of a whole swarm.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub min: Duration,
    pub max: Duration,
    pub reconnect: bool,
    /// Comes back whatever the close code says.
    pub stubborn: bool,
}

impl Backoff {
    /// The delay before the next dial, or `None` for never again. `failures` are those in a row, this one included;
    /// none after a session that was welcomed.
    pub fn next(&self, outcome: Outcome, failures: u32, rng: &mut impl Rng) -> Option<Duration> {
        let (first, code) = match outcome {
            Outcome::Refused { retry_after } => (retry_after.unwrap_or_default(), None),
            Outcome::Failed { code } | Outcome::Ended { code } => (Duration::ZERO, code),
        };
        let unwelcome = code.is_some_and(|code| (4_500..5_000).contains(&code));
        if !self.reconnect || (unwelcome && !self.stubborn) {
            return None;
        }
        let bound = self.min.saturating_mul(1 << failures.min(16)).min(self.max);
        Some(first + rng.random_range(Duration::ZERO..=bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::behaviour::{Lot, chance};

    const RULES: Backoff = Backoff {
        min: Duration::from_millis(500),
        max: Duration::from_secs(15),
        reconnect: true,
        stubborn: false,
    };

    fn longest(rules: Backoff, outcome: Outcome, failures: u32) -> Option<Duration> {
        (0..200).map(|n| rules.next(outcome, failures, &mut chance(1, Lot::Backoff, n, 0))).max().flatten()
    }

    #[test]
    fn the_close_code_says_whether_to_come_back() {
        for (code, back) in [
            (None, true),
            (Some(1000), true),
            (Some(1001), true),
            (Some(4000), true),
            (Some(4499), true),
            (Some(4500), false),
            (Some(4509), false),
            (Some(4999), false),
        ] {
            for outcome in [Outcome::Ended { code }, Outcome::Failed { code }] {
                assert_eq!(longest(RULES, outcome, 0).is_some(), back, "{outcome:?}");
                assert!(longest(Backoff { stubborn: true, ..RULES }, outcome, 0).is_some());
                assert!(longest(Backoff { reconnect: false, ..RULES }, outcome, 0).is_none());
            }
        }
    }

    #[test]
    fn delays_double_to_their_bound_and_begin_after_what_was_asked() {
        let failed = Outcome::Failed { code: None };
        for (failures, bound) in [(0, 500), (1, 1_000), (2, 2_000), (10, 15_000), (u32::MAX, 15_000)] {
            let longest = longest(RULES, failed, failures).unwrap();
            let bound = Duration::from_millis(bound);
            assert!(longest <= bound && longest > bound / 2, "{failures}: {longest:?}");
        }
        let asked = Duration::from_secs(7);
        for n in 0..50 {
            let refused = Outcome::Refused { retry_after: Some(asked) };
            assert!(RULES.next(refused, 1, &mut chance(1, Lot::Backoff, n, 0)).unwrap() >= asked);
        }
    }
}
