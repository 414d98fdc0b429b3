//! The one clock that all processes of this machine share and that never jumps: the moment at which a device closed is
//! told by the load, the one at which its end was seen by the driver.

use rustix::time::{ClockId, clock_gettime};

/// Microseconds of the machine's monotonic clock.
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

/// Milliseconds from one moment to a later one; zero where it is not later.
pub fn millis(from_us: u64, to_us: u64) -> f64 {
    to_us.saturating_sub(from_us) as f64 / 1_000.0
}
