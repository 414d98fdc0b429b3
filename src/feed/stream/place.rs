//! Where a relay goes on, as a pure core: what it learns of stream and log goes in.
//!
//! - What it appends follows on the stream's last entry as it knows it; whether it knows it rightly, the script says.
//! - An empty stream is filled with the log's newest events, as many as the stream keeps.

use crate::store::LogBounds;

#[derive(Debug, Default)]
pub(super) struct Place {
    /// The stream's last entry.
    pub last: i64,
    /// The log is read on after this; above `last` where the log no longer keeps what follows it.
    pub after: i64,
    /// Events up to this were published, or need not be.
    pub told: i64,
    /// What [`Place::told`] was before the stream was found empty, until something was appended: it may have been another
    /// relay's turn, and what came since is still to be published.
    told_before: Option<i64>,
}

impl Place {
    /// Another relay leads; the stream ends here.
    pub fn stands_by(&mut self, end: &str) {
        self.last = seq_of(end).unwrap_or(self.last);
    }

    /// The stream ends with entry `last`, and has none where that is 0. The log was asked after the stream.
    pub fn found(&mut self, last: i64, log: LogBounds, max_len: i64) {
        self.last = last;
        if last == 0 {
            self.after = (log.newest - max_len).max(log.oldest - 1).max(0);
            self.told_before = self.told_before.or(Some(self.told));
            self.told = self.told.max(log.newest);
        } else {
            self.after = last;
            self.told = self.told_before.take().unwrap_or(self.told).max(last);
        }
    }

    /// The events after [`Place::after`], up to this one, were appended.
    pub fn appended(&mut self, newest: i64) {
        (self.last, self.after, self.told_before) = (newest, newest, None);
        self.told = self.told.max(newest);
    }
}

/// The `seq` of an entry of ours.
pub(super) fn seq_of(entry: &str) -> Option<i64> {
    entry.strip_suffix("-0")?.parse().ok()
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
