//! What waits for the next commit, in order, as a pure core.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

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
    /// When the oldest write came.
    since: Mono,
}

/// What to do now.
#[derive(Debug)]
pub enum Next {
    Commit(Arc<Vec<Write>>),
    /// The group is due after this time.
    WaitFor(Duration),
    Nothing,
}

impl Pending {
    pub fn new(grouping: Grouping) -> Self {
        Self { grouping, writes: VecDeque::new(), since: Mono(0) }
    }

    pub fn push(&mut self, writes: Vec<Write>, now: Mono) {
        if self.writes.is_empty() {
            self.since = now;
        }
        self.writes.extend(writes);
    }

    /// The group that is due. `hurry` waits for no company.
    pub fn next(&mut self, now: Mono, hurry: bool) -> Next {
        if self.writes.is_empty() {
            return Next::Nothing;
        }
        let waited = now.since(self.since);
        if !hurry && self.writes.len() < self.grouping.size && waited < self.grouping.delay {
            return Next::WaitFor(self.grouping.delay - waited);
        }
        self.since = now;
        let group = self.writes.len().min(self.grouping.size);
        Next::Commit(Arc::new(self.writes.drain(..group).collect()))
    }

    /// Writes that wait.
    pub fn count(&self) -> usize {
        self.writes.len()
    }
}
