//! Devices that come and go too often: decided where the start is written, so that an episode has one event whichever
//! nodes the device came to.
//!
//! - A start is too many where it is the `count`th within the window. The event is made with the first such start after a
//!   whole window without one: so a device that goes on flapping has one event, and one that pauses and begins again
//!   another.
//! - It is decided from the record's own starts, in the transaction of the start: nothing is counted in memory, and
//!   nothing is forgotten by a restart.
//!
//! Times are those at which the devices were let in. Left out on purpose: what follows from it, see `cluster::flaps`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Store;
use crate::event::Connected;
use crate::ids::{DeviceId, DeviceType, NodeId, SessionId};

/// When a device is flapping.
#[derive(Debug, Clone, Copy)]
pub struct Flapping {
    /// So many starts, at least 2.
    pub count: usize,
    pub window: Duration,
    /// As the event tells it.
    pub ban: Duration,
}

/// `data` of a flapping event, less the order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flapped {
    pub device_id: DeviceId,
    pub device_type: DeviceType,
    /// The session whose start was one too many.
    pub session_id: SessionId,
    pub node_id: NodeId,
    pub starts: usize,
    /// In so short a time.
    pub span_ms: i64,
    pub window_ms: i64,
    /// For how long it is banned; 0 is not at all.
    pub ban_ms: i64,
    pub remote_addr: String,
}

impl Flapping {
    /// Starts before the one that is asked about, as far as they matter.
    pub fn looks_back(&self) -> usize {
        2 * self.count - 2
    }

    /// In microseconds, as the record has times.
    pub fn window_us(&self) -> i64 {
        micros(self.window)
    }

    /// Whether the first of these starts, the newest before the oldest, begins an episode.
    pub fn begins_with(&self, starts: &[i64]) -> bool {
        let window = self.window_us();
        let is_too_many =
            |at: usize| starts.get(at + self.count - 1).is_some_and(|first| starts[at] - first <= window);
        let goes_on = (1..self.count)
            .any(|at| starts.get(at).is_some_and(|start| starts[0] - start <= window) && is_too_many(at));
        !starts.is_empty() && is_too_many(0) && !goes_on
    }

    /// What is told of it. `starts` as above.
    pub fn told(&self, start: &Connected, starts: &[i64]) -> Flapped {
        let first = starts.get(self.count - 1).copied().unwrap_or(start.connected_at.0);
        Flapped {
            device_id: start.device_id.clone(),
            device_type: start.device_type.clone(),
            session_id: start.session_id,
            node_id: start.node_id.clone(),
            starts: self.count,
            span_ms: (start.connected_at.0 - first) / 1000,
            window_ms: self.window_us() / 1000,
            ban_ms: micros(self.ban) / 1000,
            remote_addr: start.remote_addr.to_string(),
        }
    }
}

impl Store {
    /// The same, which also tells of devices that come and go too often.
    pub fn with_flapping(self, rule: Flapping) -> Store {
        match self {
            Store::Sqlite(s) => Store::Sqlite(s.with_flapping(rule)),
            Store::Postgres(s) => Store::Postgres(s.with_flapping(rule)),
        }
    }
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULE: Flapping = Flapping { count: 4, window: Duration::from_micros(100), ban: Duration::ZERO };

    /// Which of these starts, the oldest first, begin an episode.
    fn beginnings(starts: &[i64]) -> Vec<usize> {
        let before =
            |at: usize| starts[..=at].iter().rev().take(RULE.looks_back() + 1).copied().collect::<Vec<_>>();
        (0..starts.len()).filter(|at| RULE.begins_with(&before(*at))).collect()
    }

    #[test]
    fn an_episode_begins_once_and_again_after_a_pause() {
        let none: [usize; 0] = [];
        assert_eq!(beginnings(&[0, 10, 20]), none, "three are none");
        assert_eq!(beginnings(&[0, 10, 20, 100]), [3]);
        assert_eq!(beginnings(&[0, 10, 20, 101]), none, "the window slides");
        assert_eq!(
            beginnings(&[0, 90, 95, 101, 102]),
            [4],
            "over the edge of a window that began with the first"
        );
        assert_eq!(beginnings(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]), [3]);
        let long: Vec<i64> = (0..1_000).map(|n| n * 20).collect();
        assert_eq!(beginnings(&long), [3], "it goes on and on");
        assert_eq!(beginnings(&[0, 1, 2, 3, 200, 201, 202, 203]), [3, 7]);
        assert_eq!(
            beginnings(&[0, 1, 2, 3, 80, 150, 170, 171]),
            [3],
            "the fifth was one too many as well, less than a window before"
        );
        assert_eq!(
            beginnings(&[0, 1, 2, 3, 80, 190, 200, 210, 220]),
            [3, 8],
            "one that paused for a window begins anew"
        );
    }

    proptest! {
        #[test]
        fn what_is_looked_back_at_is_enough(gaps in prop::collection::vec(0i64..80, 1..60)) {
            let starts: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let window = RULE.window_us();
            let many = |at: usize| at + 1 >= RULE.count && starts[at] - starts[at + 1 - RULE.count] <= window;
            let plain: Vec<usize> = (0..starts.len())
                .filter(|at| many(*at) && !(0..*at).any(|before| many(before) && starts[*at] - starts[before] <= window))
                .collect();
            prop_assert_eq!(beginnings(&starts), plain);
        }
    }
}
