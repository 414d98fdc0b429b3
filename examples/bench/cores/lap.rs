//! Time taken, by the clock on the wall and by what this thread had of a processor.
//!
//! The second is what a bound is held against on a machine that does other things as well.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::stats::percentile;

#[derive(Debug, Clone, Copy, Default)]
pub struct Lap {
    pub wall: Duration,
    pub cpu: Duration,
}

/// A running clock of this thread.
pub struct Stopwatch {
    wall: Instant,
    cpu: Duration,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self { wall: Instant::now(), cpu: thread_cpu() }
    }

    pub fn lap(&self) -> Lap {
        Lap { wall: self.wall.elapsed(), cpu: thread_cpu().saturating_sub(self.cpu) }
    }
}

impl std::ops::AddAssign for Lap {
    fn add_assign(&mut self, other: Self) {
        self.wall += other.wall;
        self.cpu += other.cpu;
    }
}

impl Lap {
    /// The longest in each.
    pub fn max(self, other: Self) -> Self {
        Self { wall: self.wall.max(other.wall), cpu: self.cpu.max(other.cpu) }
    }
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Milliseconds, to the microsecond.
pub fn ms(d: Duration) -> f64 {
    (d.as_secs_f64() * 1e6).round() / 1e3
}

/// The time that a share of them does not exceed, in milliseconds; zero of none.
pub fn quantile_ms(times: &[Duration], share: f64) -> f64 {
    let times: Vec<f64> = times.iter().copied().map(ms).collect();
    percentile(&times, share).unwrap_or_default()
}
