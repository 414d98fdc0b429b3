//! What is due when, for all devices of one process.
//!
//! An entry that was overtaken by an earlier one stays until its time and is recognised by whoever it was for; a visit
//! has at most a few.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Mono;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// The visit in this place, if it still has this number.
    Visit { place: usize, number: u64 },
    /// This device comes back.
    Dial { device: u32 },
}

#[derive(Debug, Default)]
pub struct Timers(BinaryHeap<Reverse<(Mono, Due)>>);

impl Timers {
    pub fn add(&mut self, at: Mono, due: Due) {
        self.0.push(Reverse((at, due)));
    }

    pub fn next(&self) -> Option<Mono> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// The next that is due by `now`, and when it was.
    pub fn pop(&mut self, now: Mono) -> Option<(Mono, Due)> {
        self.0.peek().filter(|Reverse((at, _))| *at <= now)?;
        self.0.pop().map(|Reverse(entry)| entry)
    }
}
