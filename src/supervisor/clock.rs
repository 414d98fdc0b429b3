//! A clock that stands still while this process does.
//!
//! After a pause of the process (SIGSTOP, swap, a blocked loop) every timer is late and pongs may lie unread:
//! to judge devices by the time that passed would be to end them for our fault. So deadlines are kept in
//! [`Attended`] time. It follows the monotonic clock tick by tick, but one tick moves it by [`MAX_STEP`] at
//! most; what is over that was a stall, and nobody's deadline came nearer in it.
//!
//! The idea is Lifeguard's local health awareness (Dadgar et al., 2018), carried to its simplest form.

use std::time::Duration;

use crate::chaos::{Safety, lacks};
use crate::time::Mono;

/// The longest pause between two ticks that counts as attended. Above the jitter of a busy loop, and well below the
/// deadlines of heartbeats over a network.
pub const MAX_STEP: Duration = Duration::from_millis(250);

/// The least time for the arrears of a stall; a longer stall has as long as it took.
const CATCH_UP: Duration = Duration::from_secs(1);

/// Microseconds in which this worker was looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Attended(pub u64);

impl std::ops::Add<Duration> for Attended {
    type Output = Attended;

    fn add(self, d: Duration) -> Attended {
        Attended(self.0.saturating_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// One reading of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    pub mono: Mono,
    pub attended: Attended,
}

impl Clocks {
    /// Whether the worker stalled between `earlier` and this reading.
    pub fn stalled_since(&self, earlier: Clocks) -> bool {
        self.mono.since(earlier.mono).as_micros() as u64 > self.attended.0.saturating_sub(earlier.attended.0)
    }
}

/// Keeps attended time for one worker.
#[derive(Debug)]
pub struct AttendedClock {
    at_tick: Clocks,
    /// Until then, what was left undone in the last stall is being caught up with.
    catching_up_until: Mono,
}

impl AttendedClock {
    pub fn new(now: Mono) -> Self {
        Self { at_tick: Clocks { mono: now, attended: Attended(0) }, catching_up_until: now }
    }

    /// The time now, between ticks.
    pub fn read(&self, now: Mono) -> Clocks {
        let step = now.since(self.at_tick.mono);
        let step = if lacks(Safety::StallGuard) { step } else { step.min(MAX_STEP) };
        Clocks { mono: now, attended: self.at_tick.attended + step }
    }

    /// A tick. Returns how long the worker had stalled before it, where it had.
    pub fn tick(&mut self, now: Mono) -> Option<Duration> {
        let step = now.since(self.at_tick.mono);
        self.at_tick = self.read(now);
        let stall = step.checked_sub(MAX_STEP).filter(|stall| !stall.is_zero())?;
        self.catching_up_until = now + stall.max(CATCH_UP);
        Some(stall)
    }

    /// Whether what is read now may have come during a stall: one that is not over until the next tick, or one of
    /// which the arrears may still be there.
    pub fn is_catching_up(&self, now: Mono) -> bool {
        now < self.catching_up_until || now.since(self.at_tick.mono) > MAX_STEP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_does_not_pass() {
        let ms = |n: u64| Mono(n * 1000);
        let mut clock = AttendedClock::new(ms(0));
        assert_eq!(clock.tick(ms(50)), None);
        let before = clock.read(ms(60));
        assert_eq!(before.attended, Attended(60_000));
        assert_eq!(clock.read(ms(60_050)).attended, Attended(300_000));
        assert_eq!(clock.tick(ms(60_050)), Some(Duration::from_millis(59_750)));
        let after = clock.read(ms(60_100));
        assert_eq!(after.attended, Attended(350_000));
        assert!(after.stalled_since(before));
        assert!(!clock.read(ms(60_110)).stalled_since(after));
    }

    #[test]
    fn after_a_stall_it_catches_up_for_as_long() {
        let ms = |n: u64| Mono(n * 1000);
        let mut clock = AttendedClock::new(ms(0));
        clock.tick(ms(100));
        assert!(!clock.is_catching_up(ms(300)));
        assert!(clock.is_catching_up(ms(400)), "the tick is late, and what is read now may be old");
        assert_eq!(clock.tick(ms(10_350)), Some(Duration::from_secs(10)));
        (1..50).for_each(|n| _ = clock.tick(ms(10_350 + n * 200)));
        assert!(clock.is_catching_up(ms(20_340)));
        clock.tick(ms(20_350));
        assert!(!clock.is_catching_up(ms(20_360)));
    }
}
