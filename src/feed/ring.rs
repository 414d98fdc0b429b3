//! The most recent events without a gap, bounded by count and by bytes.
//!
//! Invariant: the `seq` of what is kept rises by exactly one from event to event, so that whether a stretch
//! is covered is seen from the first alone.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::event::Event;

#[derive(Debug)]
pub(super) struct Ring {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    max_events: usize,
    max_bytes: usize,
}

impl Ring {
    pub(super) fn new(max_events: usize, max_bytes: usize) -> Self {
        Self { events: VecDeque::new(), bytes: 0, max_events, max_bytes }
    }

    pub(super) fn push(&mut self, event: Arc<Event>) {
        // An event that does not follow on the last came past this feed: what was before it is read from the
        // store.
        if self.events.back().is_some_and(|last| last.seq + 1 != event.seq) {
            self.events.clear();
            self.bytes = 0;
        }
        self.bytes += event.json.len();
        self.events.push_back(event);
        while self.events.len() > self.max_events || self.bytes > self.max_bytes {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.json.len();
        }
    }

    /// Up to `most` events after `after`; nothing where the ring does not hold all that follow it.
    pub(super) fn after(&self, after: i64, most: usize) -> Option<Vec<Arc<Event>>> {
        let first = self.first()?;
        let skip = usize::try_from(after.checked_add(1)?.checked_sub(first)?).ok()?;
        Some(self.events.iter().skip(skip).take(most).cloned().collect())
    }

    pub(super) fn first(&self) -> Option<i64> {
        self.events.front().map(|e| e.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::tests::event;

    fn seqs(ring: &Ring, after: i64, most: usize) -> Option<Vec<i64>> {
        ring.after(after, most).map(|events| events.iter().map(|e| e.seq).collect())
    }

    #[test]
    fn it_answers_only_for_what_it_holds_without_a_gap() {
        let mut ring = Ring::new(3, usize::MAX);
        assert_eq!(seqs(&ring, 0, 9), None);
        (1..=5).for_each(|seq| ring.push(event(seq)));
        assert_eq!(seqs(&ring, 1, 9), None, "2 is gone");
        assert_eq!(seqs(&ring, 2, 9), Some(vec![3, 4, 5]));
        assert_eq!(seqs(&ring, 2, 2), Some(vec![3, 4]));
        assert_eq!(seqs(&ring, 5, 9), Some(vec![]));
        assert_eq!(seqs(&ring, i64::MAX, 9), None);
        assert_eq!(seqs(&ring, i64::MIN, 9), None);
        ring.push(event(8));
        assert_eq!(seqs(&ring, 5, 9), None, "6 and 7 never came here");
        assert_eq!(seqs(&ring, 7, 9), Some(vec![8]));
    }

    #[test]
    fn bytes_bound_it_too() {
        let one = event(1).json.len();
        let mut ring = Ring::new(100, one * 2 + one / 2);
        (1..=9).for_each(|seq| ring.push(event(seq)));
        assert_eq!(seqs(&ring, 7, 9), Some(vec![8, 9]));
        assert_eq!(seqs(&ring, 6, 9), None);
        let mut tiny = Ring::new(100, 1);
        tiny.push(event(1));
        assert_eq!((tiny.first(), tiny.bytes), (None, 0));
    }
}
