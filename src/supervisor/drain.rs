//! A drain of this node: how fast its sessions are ended, and how far that is.
//!
//! The orders are given out by the root's timer, so many a step. When none are left, whoever was let in just before the
//! doors closed gets his: all who are left are told once a second, for to be told is not yet to be gone.

use std::time::Duration;

use actix::SpawnHandle;

use crate::time::Timestamp;

use super::messages::Order;

pub(super) const STEP: Duration = Duration::from_millis(50);
/// Steps from one round of orders to the next.
const ROUND: u32 = 20;
/// A drain goes at least so fast, in sessions a second: few sessions need no long spread.
const FLOOR: f64 = 200.0;

/// A drain that is under way, or done.
pub(super) struct Draining {
    /// Sessions there were when it began.
    pub of: usize,
    /// When all of them will have been told to end.
    pub until: Timestamp,
    /// The process stops after it: it cannot be undone.
    pub for_good: bool,
    pub timer: SpawnHandle,
    a_step: usize,
    rest: Vec<(usize, Order)>,
    /// Steps until whoever is left is told again.
    round_in: u32,
}

/// How fast so many sessions are ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pace {
    pub per_sec: f64,
    pub takes: Duration,
}

impl Pace {
    pub fn of(sessions: usize, spread: Duration) -> Self {
        let per_sec = (sessions as f64 / spread.as_secs_f64().max(0.001)).max(FLOOR);
        Self { per_sec, takes: Duration::from_secs_f64(sessions as f64 / per_sec) }
    }
}

impl Draining {
    pub fn new(of: usize, pace: Pace, for_good: bool, timer: SpawnHandle) -> Self {
        let a_step = (pace.per_sec * STEP.as_secs_f64()).ceil() as usize;
        let until = Timestamp::now().saturating_add(pace.takes);
        Self { of, until, for_good, timer, a_step, rest: Vec::new(), round_in: 0 }
    }

    /// The orders of this step.
    pub fn step(&mut self) -> Vec<(usize, Order)> {
        self.rest.split_off(self.rest.len().saturating_sub(self.a_step))
    }

    /// Asks `all` for the orders of all that are left, where none are known and it is time.
    pub fn refill(&mut self, all: impl FnOnce() -> Vec<(usize, Order)>) {
        if self.rest.is_empty() && self.round_in == 0 {
            self.rest = all();
            self.round_in = ROUND;
        }
        self.round_in = self.round_in.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_sessions_need_no_long_spread() {
        let seconds = Duration::from_secs;
        assert_eq!(Pace::of(60_000, seconds(30)), Pace { per_sec: 2_000.0, takes: seconds(30) });
        assert_eq!(Pace::of(400, seconds(30)), Pace { per_sec: 200.0, takes: seconds(2) });
        assert_eq!(Pace::of(0, seconds(30)).takes, Duration::ZERO);
        assert!(Pace::of(100_000, Duration::ZERO).takes <= Duration::from_millis(1));
    }
}
