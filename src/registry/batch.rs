//! What waits to be made durable, in order, as a pure core.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::Incarnation;
use crate::store::Write;
use crate::time::Mono;

/// When a group is committed.
#[derive(Debug, Clone)]
pub struct Grouping {
    /// How long the first of a group waits for company. Zero commits at once; a group then forms while the
    /// commit before it is under way.
    pub delay: Duration,
    /// The most writes of a group.
    pub size: usize,
}

#[derive(Debug)]
pub struct Pending {
    grouping: Grouping,
    writes: VecDeque<Write>,
    /// When the oldest write came; absent where it has waited enough.
    since: Option<Mono>,
}

/// When the next group is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Now,
    After(Duration),
    /// There is none.
    Never,
}

impl Pending {
    pub fn new(grouping: Grouping) -> Self {
        Self { grouping, writes: VecDeque::new(), since: None }
    }

    pub fn push(&mut self, writes: Vec<Write>, now: Mono) {
        if self.writes.is_empty() {
            self.since = Some(now);
        }
        self.writes.extend(writes);
    }

    /// `hurry` waits for no company.
    pub fn due(&self, now: Mono, hurry: bool) -> Due {
        if self.writes.is_empty() {
            return Due::Never;
        }
        let waited = self.since.map_or(self.grouping.delay, |since| now.since(since));
        if hurry || self.writes.len() >= self.grouping.size || waited >= self.grouping.delay {
            return Due::Now;
        }
        Due::After(self.grouping.delay - waited)
    }

    /// The next group.
    pub fn take(&mut self, now: Mono) -> Vec<Write> {
        self.since = Some(now);
        let group = self.writes.len().min(self.grouping.size);
        self.writes.drain(..group).collect()
    }

    /// Puts a group that was not made durable back at its place: before all that came after it.
    pub fn put_back(&mut self, group: impl DoubleEndedIterator<Item = Write>) {
        group.rev().for_each(|write| self.writes.push_front(write));
        self.since = None;
    }

    /// Drops the starts of other runs than this one, and says how many. Ends stay.
    pub fn drop_other_starts(&mut self, run: Incarnation) -> usize {
        let before = self.writes.len();
        self.writes.retain(|write| !matches!(write, Write::Start(start) if start.data.incarnation != run));
        before - self.writes.len()
    }

    /// Writes that wait.
    pub fn count(&self) -> usize {
        self.writes.len()
    }
}

/// Takes a group out of what two may share. The other has done with it, or soon will have.
pub fn unshared<T: Clone>(group: Arc<Vec<T>>) -> Vec<T> {
    Arc::try_unwrap(group).unwrap_or_else(|shared| shared.to_vec())
}
