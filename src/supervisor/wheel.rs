//! A timing wheel: deadlines of many sessions, looked at slot by slot.
//!
//! An entry is a hint, not the deadline: when its slot comes up the holder is asked for its deadline as it
//! stands, and is entered again for that. So a deadline that moves away (the usual case: a pong came) costs
//! nothing; for one that comes nearer another entry is made, and the roster lets the older one lapse. A deadline past the wheel's span waits in its last slot and moves on from there.
//!
//! After Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987), the hashed kind with one round.

use std::time::Duration;

use super::clock::Attended;

/// The width of a slot, and so the time by which an entry may come up late.
pub const SLOT: Duration = Duration::from_millis(20);
const SLOT_US: u64 = SLOT.as_micros() as u64;
/// 82 s: past the longest usual ping interval.
const SLOTS: u64 = 4096;

#[derive(Debug)]
pub struct Wheel<T> {
    slots: Box<[Vec<T>]>,
    /// The next slot to come up, counted from the clock's beginning.
    next: u64,
}

impl<T: Copy> Wheel<T> {
    pub fn new(now: Attended) -> Self {
        Self { slots: vec![Vec::new(); SLOTS as usize].into(), next: now.0 / SLOT_US }
    }

    /// Brings `entry` up no earlier than `at`, and less than a [`SLOT`] after it.
    pub fn enter(&mut self, entry: T, at: Attended) {
        let slot = at.0.div_ceil(SLOT_US).clamp(self.next, self.next + SLOTS - 1);
        self.slots[(slot % SLOTS) as usize].push(entry);
    }

    /// Takes out what has come up by `now`, in the order of the slots.
    pub fn turn(&mut self, now: Attended, due: &mut Vec<T>) {
        let past = now.0 / SLOT_US;
        while self.next <= past {
            let slot = &mut self.slots[(self.next % SLOTS) as usize];
            due.append(slot);
            // A storm must not leave its largest slot allocated for ever.
            slot.shrink_to(64);
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_entry_comes_up_once_and_in_time(
            ats in prop::collection::vec(0u64..200_000_000, 1..200),
            steps in prop::collection::vec(1u64..30_000_000, 1..60),
        ) {
            let mut wheel = Wheel::new(Attended(0));
            for (key, at) in ats.iter().enumerate() {
                wheel.enter(key as u32, Attended(*at));
            }
            let (mut now, mut seen, mut due) = (0, vec![0; ats.len()], Vec::new());
            for step in steps.into_iter().chain([400_000_000]) {
                let mut slot_by_slot = now;
                now += step;
                while slot_by_slot < now {
                    slot_by_slot = (slot_by_slot + SLOT_US).min(now);
                    wheel.turn(Attended(slot_by_slot), &mut due);
                    for key in due.drain(..) {
                        let at = ats[key as usize];
                        if at > slot_by_slot {
                            wheel.enter(key, Attended(at));
                            continue;
                        }
                        // Up to a slot late, and then up to the tick after.
                        prop_assert!(slot_by_slot - at < 2 * SLOT_US, "{at} came up at {slot_by_slot}");
                        seen[key as usize] += 1;
                    }
                }
            }
            prop_assert!(seen.iter().all(|n| *n == 1), "{seen:?}");
        }
    }
}
