//! One subscriber: a place in the log and what it wants of it.
//!
//! [`Subscription::next`] may be dropped at any await and called again: the place moves only together with
//! what is returned, so nothing is skipped.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Feed;
use super::seats::Seat;
use crate::event::Event;
use crate::store::{EventFilter, EventPage, StoreError};
use crate::time::Timestamp;

/// Events handed over at a time. With the largest `meta` an event is about 8 KB, so this bounds what one
/// subscriber holds to about 1 MB, and with ordinary ones to about 100 KB.
const BATCH: usize = 128;

/// What a subscriber gets.
#[derive(Debug)]
pub enum Next {
    Batch {
        /// Events that were asked for and are no longer kept.
        missed: Option<RangeInclusive<i64>>,
        /// In `seq` order; empty only where something was missed.
        events: Vec<Arc<Event>>,
    },
    /// Nothing came in the time that the subscriber had patience for.
    Quiet,
    /// The feed is closed, and all that was published has been handed over.
    Closed,
}

/// A subscriber's cursor. It holds a seat until it is dropped.
pub struct Subscription {
    feed: Feed,
    seat: Seat,
    after: i64,
    filter: EventFilter,
    newest: watch::Receiver<i64>,
    closing: watch::Receiver<bool>,
    /// What is newer than this happened while the subscriber was here.
    joined_at: i64,
}

impl Subscription {
    pub(super) fn new(feed: Feed, seat: Seat, after: i64, filter: EventFilter) -> Self {
        let (newest, closing) = (feed.subscribe(), feed.0.closing.subscribe());
        let joined_at = *newest.borrow();
        Self { feed, seat, after, filter, newest, closing, joined_at }
    }

    /// The log was handed over up to and with this `seq`.
    pub fn after(&self) -> i64 {
        self.after
    }

    /// The next events, at once where there are any, else when they come; [`Next::Quiet`] after `patience`.
    pub async fn next(&mut self, patience: Duration) -> Result<Next, StoreError> {
        let deadline = Instant::now() + patience;
        loop {
            // The order of these two matters: whoever sees the feed closed must then see its last event.
            let closed = *self.closing.borrow_and_update();
            let newest = *self.newest.borrow_and_update();
            if self.after < newest {
                let (page, missed) = self.read().await?;
                let moved = page.scanned_to > self.after;
                self.after = self.after.max(page.scanned_to);
                self.seat.read_to(self.after);
                if missed.is_some() || !page.events.is_empty() {
                    self.observe(&page);
                    return Ok(Next::Batch { missed, events: page.events });
                }
                if moved && (closed || Instant::now() < deadline) {
                    continue;
                }
            }
            if closed {
                return Ok(Next::Closed);
            }
            tokio::select! {
                changed = self.newest.changed() => if changed.is_err() { return Ok(Next::Closed) },
                changed = self.closing.changed() => if changed.is_err() { return Ok(Next::Closed) },
                () = tokio::time::sleep_until(deadline) => return Ok(Next::Quiet),
            }
        }
    }

    async fn read(&self) -> Result<(EventPage, Option<RangeInclusive<i64>>), StoreError> {
        if let Some(page) = self.feed.read_ring(self.after, &self.filter, BATCH) {
            return Ok((page, None));
        }
        let next = self.after.saturating_add(1);
        let page = self.feed.0.read_store(self.after, &self.filter, BATCH).await?;
        if page.events.first().is_some_and(|e| e.seq == next) {
            return Ok((page, None));
        }
        // Asked after the read: events that retention took in between are then told as missed without being
        // so, which is the harmless one of the two mistakes.
        let oldest = self.feed.bounds().await?.oldest;
        Ok((page, (oldest > next).then(|| next..=oldest - 1)))
    }

    fn observe(&self, page: &EventPage) {
        if let Some(last) = page.events.last().filter(|e| e.seq > self.joined_at) {
            self.feed.observe_publish(self.seat.sink.as_str(), last, Timestamp::now());
        }
    }
}
