//! Whether a store that failed is asked again yet, as a pure core: time and chance are passed in.
//!
//! - Closed: every call is allowed. A failure opens it.
//! - Open: no call is allowed until its pause is over. The pause doubles from [`FIRST_PAUSE`] to [`MAX_PAUSE`].
//! - Half-open: one call is allowed, the trial. It closes or opens the breaker by how it ends; one of which nothing is
//!   heard for [`TRIAL`] is taken for abandoned, and another is allowed.
//!
//! A success always closes it, whichever call's it was: the store has just answered. Failures that arrive while it
//! is open are those of calls that began before, and make the pause no longer.
//!
//! ```text
//!   closed ──failed──▶ open ──pause over, asked──▶ half-open ──failed──▶ open, for longer
//!     ▲                 └────────succeeded────────────┤
//!     └───────────────────────────────────────────────┘
//! ```
//!
//! Left out on purpose: counting failures before it opens. The first pause is short, and who asks keeps what was
//! refused.

use std::time::Duration;

use crate::time::Mono;

/// How long the first failure keeps everyone away.
pub const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause, less or more its jitter: so soon is a store noticed that has come back.
pub const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How long a trial may take before it is given up: longer than any call's deadline.
pub const TRIAL: Duration = Duration::from_secs(10);
/// A pause is longer or shorter by up to this part of it, so that many nodes do not ask in step.
const JITTER: f64 = 0.2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    HalfOpen,
    Open,
}

impl BreakerState {
    /// The value of `lastpong_breaker_state`.
    pub fn gauge(self) -> i64 {
        match self {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Breaker {
    state: BreakerState,
    /// When the next call is allowed, unless closed.
    until: Mono,
    /// The pause that the next failure brings, before its jitter.
    pause: Duration,
    /// In a row, since the last success.
    failures: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new()
    }
}

impl Breaker {
    pub fn new() -> Self {
        Self { state: BreakerState::Closed, until: Mono(0), pause: FIRST_PAUSE, failures: 0 }
    }

    /// Whether to call now. Where it says so while half-open, the call is the trial: its end must be told.
    pub fn allows(&mut self, now: Mono) -> bool {
        if self.state == BreakerState::Closed {
            return true;
        }
        if now < self.until {
            return false;
        }
        self.state = BreakerState::HalfOpen;
        self.until = now + TRIAL;
        true
    }

    /// How long until [`Breaker::allows`] says yes; zero where it does now.
    pub fn wait(&self, now: Mono) -> Duration {
        match self.state {
            BreakerState::Closed => Duration::ZERO,
            BreakerState::HalfOpen | BreakerState::Open => self.until.since(now),
        }
    }

    pub fn succeeded(&mut self) {
        *self = Self::new();
    }

    /// A call failed, or took longer than its deadline.
    pub fn failed(&mut self, now: Mono) {
        self.failed_by_chance(now, rand::random());
    }

    /// As [`Breaker::failed`], with the chance (0 to 1) that makes the pause shorter or longer.
    pub fn failed_by_chance(&mut self, now: Mono, chance: f64) {
        self.failures += 1;
        if self.state == BreakerState::Open {
            return;
        }
        self.state = BreakerState::Open;
        self.until = now + self.pause.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance.clamp(0.0, 1.0));
        self.pause = (self.pause * 2).min(MAX_PAUSE);
    }

    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// Failures in a row.
    pub fn failures(&self) -> u64 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(ms * 1_000)
    }

    #[test]
    fn pauses_grow_to_their_bound_and_a_success_forgets_them() {
        let mut breaker = Breaker::new();
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert!(breaker.allows(now));
            breaker.failed_by_chance(now, 0.5);
            let wait = breaker.wait(now);
            assert!(!breaker.allows(Mono((now + wait).0 - 1)));
            pauses.push(wait.as_millis());
            now = now + wait;
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1_000, 1_000]);
        assert!(breaker.allows(now));
        assert_eq!((breaker.state(), breaker.failures()), (BreakerState::HalfOpen, 6));
        breaker.succeeded();
        assert_eq!((breaker.state(), breaker.failures()), (BreakerState::Closed, 0));
        breaker.failed_by_chance(now, 0.5);
        assert_eq!(breaker.wait(now), FIRST_PAUSE);
    }

    #[test]
    fn half_open_lets_one_through() {
        let mut breaker = Breaker::new();
        breaker.failed_by_chance(at(0), 0.0);
        assert_eq!(breaker.wait(at(0)), FIRST_PAUSE.mul_f64(0.8));
        assert!(breaker.allows(at(100)));
        assert!(!breaker.allows(at(101)), "a second trial beside the first");
        assert!(breaker.allows(at(100) + TRIAL), "an abandoned trial shut it for good");
    }

    #[test]
    fn late_failures_of_many_calls_are_one() {
        let mut breaker = Breaker::new();
        (0..100).for_each(|n| breaker.failed_by_chance(at(n), 1.0));
        assert_eq!(breaker.wait(at(0)), FIRST_PAUSE.mul_f64(1.2));
        assert_eq!(breaker.failures(), 100);
    }

    proptest! {
        /// Whatever happens, somebody is let through again within the longest pause or the longest trial, and never
        /// two in one pause.
        #[test]
        fn it_never_shuts_for_good(steps in prop::collection::vec((0u64..3_000, 0u8..4, 0.0f64..1.0), 1..200)) {
            let mut breaker = Breaker::new();
            let mut now = at(0);
            for (ms, what, chance) in steps {
                now = now + Duration::from_millis(ms);
                match what {
                    0 => breaker.failed_by_chance(now, chance),
                    1 => breaker.succeeded(),
                    _ => {
                        let closed = breaker.state() == BreakerState::Closed;
                        if breaker.allows(now) && !closed {
                            prop_assert!(!breaker.clone().allows(now), "two trials at once");
                        }
                    }
                }
                prop_assert!(breaker.wait(now) <= TRIAL.max(MAX_PAUSE.mul_f64(1.0 + JITTER)));
                let then = now + breaker.wait(now);
                prop_assert!(breaker.clone().allows(then));
            }
        }
    }
}
