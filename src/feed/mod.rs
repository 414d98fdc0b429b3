//! Reading the durable event log: what every subscriber, page and inspection of events goes through.
//!
//! - [`Feed::publish`] is called only after a commit and in `seq` order, so nothing is told that is not
//!   durable.
//! - A subscriber is a cursor ([`cursor::Subscription`]) and nothing else. There is no queue per subscriber:
//!   whoever is slow reads later, slows nobody and takes no memory.
//! - The most recent events are kept in one ring for all; whoever is further behind reads the store. A read
//!   never skips: what the ring does not hold without a gap is asked of the store.
//! - Subscribers are counted and bounded ([`seats`]).
//!
//! Left out: retention (the store's), and pushing to other systems.

pub mod cursor;
mod ring;
pub mod seats;
pub mod sse;
pub mod stream;
pub mod tail;

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Notify, watch};

use crate::event::Event;
use crate::metrics::Metrics;
use crate::store::{EventFilter, EventPage, LogBounds, Store, StoreError};
use crate::time::Timestamp;
use crate::trace;
use cursor::Subscription;
use ring::Ring;
use seats::{NoSeat, Seats, Sink};

/// Events cloned out of the ring under its lock at a time, before they are filtered without it.
const SCAN: usize = 256;

/// Where the log ends, while the store has not been reached yet.
pub const UNKNOWN: i64 = -1;

/// The bounds of a feed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Recent events kept in memory, and their JSON in bytes; whichever is met first.
    pub ring_events: usize,
    pub ring_bytes: usize,
    /// Subscribers at one time, SSE and WebSocket together.
    pub subscribers: usize,
    /// Others write to the log too: a [`tail`] is to read it.
    pub shared_log: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { ring_events: 8192, ring_bytes: 16 << 20, subscribers: 1024, shared_log: false }
    }
}

/// The reading side of the event log. Cheap to clone.
#[derive(Clone)]
pub struct Feed(Arc<Shared>);

struct Shared {
    store: Store,
    ring: RwLock<Ring>,
    newest: watch::Sender<i64>,
    /// Others write to the log too, and a [`tail`] reads what they wrote.
    shared_log: bool,
    /// Something was written that has not been read.
    behind: Notify,
    closing: watch::Sender<bool>,
    seats: Seats,
    metrics: Arc<Metrics>,
}

/// Where the feed stands, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Standing {
    pub newest: i64,
    /// The oldest event that is read without asking the store; absent while the ring is empty.
    pub in_memory_from: Option<i64>,
    pub subscribers: usize,
    /// Events between the log's end and the slowest subscriber.
    pub slowest_lag: i64,
}

impl Shared {
    async fn read_store(
        &self,
        after: i64,
        filter: &EventFilter,
        limit: usize,
    ) -> Result<EventPage, StoreError> {
        self.metrics.timed("sql", "events", self.store.events(after, filter, limit)).await
    }
}

impl Feed {
    /// `newest_seq` is the log's end at the start of this process; [`UNKNOWN`] is for a tail to find out.
    pub fn new(store: Store, newest_seq: i64, metrics: Arc<Metrics>) -> Self {
        Self::with_limits(store, newest_seq, metrics, Limits::default())
    }

    pub fn with_limits(store: Store, newest_seq: i64, metrics: Arc<Metrics>, limits: Limits) -> Self {
        Self(Arc::new(Shared {
            store,
            ring: RwLock::new(Ring::new(limits.ring_events, limits.ring_bytes)),
            newest: watch::Sender::new(newest_seq),
            shared_log: limits.shared_log,
            behind: Notify::new(),
            closing: watch::Sender::new(false),
            seats: Seats::new(limits.subscribers, metrics.clone()),
            metrics,
        }))
    }

    /// The log ends here, as the store says.
    pub fn begin_at(&self, newest: i64) {
        self.0.newest.send_replace(newest);
    }

    /// Tells readers of events that are durable. In `seq` order; an event at or before the newest was told
    /// already and is passed over. Where others write too, what does not follow on the newest is left to the
    /// tail, which reads it with what came before. For one thread.
    pub fn publish(&self, events: &[Arc<Event>]) {
        let newest = self.newest();
        if self.0.shared_log && events.iter().find(|e| e.seq > newest).is_some_and(|e| e.seq > newest + 1) {
            return self.0.behind.notify_one();
        }
        let fresh = || events.iter().filter(move |e| e.seq > newest);
        let Some(last) = fresh().next_back() else { return };
        {
            let mut ring = self.0.ring.write().unwrap_or_else(PoisonError::into_inner);
            fresh().for_each(|event| ring.push(event.clone()));
        }
        // Readers are woken only now, when what they are told of can be read.
        self.0.newest.send_replace(last.seq);
        let now = Timestamp::now();
        for event in fresh() {
            self.observe_publish("feed", event, now);
            trace::published(event, now);
        }
    }

    /// Up to `limit` events after the `seq` `after` that the filter wants. The page may hold fewer although
    /// the log goes on: [`EventPage::scanned_to`] says how far it was read.
    pub async fn read(
        &self,
        after: i64,
        filter: &EventFilter,
        limit: usize,
    ) -> Result<EventPage, StoreError> {
        match self.read_ring(after, filter, limit) {
            Some(page) => Ok(page),
            None => self.0.read_store(after, filter, limit).await,
        }
    }

    fn read_ring(&self, after: i64, filter: &EventFilter, limit: usize) -> Option<EventPage> {
        let mut page = EventPage { events: Vec::new(), scanned_to: after };
        loop {
            let ring = self.0.ring.read().unwrap_or_else(PoisonError::into_inner);
            let stretch = ring.after(page.scanned_to, SCAN);
            drop(ring);
            let Some(stretch) = stretch else {
                // The ring moved on meanwhile: what was scanned stands, the rest is for the next read.
                return (page.scanned_to > after).then_some(page);
            };
            if stretch.is_empty() {
                return Some(page);
            }
            for event in stretch {
                page.scanned_to = event.seq;
                if filter.matches(&event) {
                    page.events.push(event);
                    if page.events.len() >= limit {
                        return Some(page);
                    }
                }
            }
        }
    }

    /// The log's ends as the store keeps them.
    pub async fn bounds(&self) -> Result<LogBounds, StoreError> {
        self.0.store.bounds().await
    }

    /// The newest event that was published, or [`UNKNOWN`].
    pub fn newest(&self) -> i64 {
        *self.0.newest.borrow()
    }

    /// The newest `seq`, and every change of it.
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        self.0.newest.subscribe()
    }

    /// Takes a seat and a cursor after the `seq` `after`.
    pub fn follow(&self, sink: Sink, after: i64, filter: EventFilter) -> Result<Subscription, NoSeat> {
        Ok(Subscription::new(self.clone(), self.0.seats.take(sink, after)?, after, filter))
    }

    /// Ends every subscription once it has delivered what is published. Called after the last publication.
    pub fn close(&self) {
        self.0.closing.send_replace(true);
    }

    pub fn is_closed(&self) -> bool {
        *self.0.closing.borrow()
    }

    pub fn standing(&self) -> Standing {
        let newest = self.newest();
        let in_memory_from = self.0.ring.read().unwrap_or_else(PoisonError::into_inner).first();
        Standing {
            newest,
            in_memory_from,
            subscribers: self.0.seats.taken(),
            slowest_lag: self.0.seats.slowest_lag(newest),
        }
    }

    fn observe_publish(&self, sink: &str, event: &Event, now: Timestamp) {
        let seconds = (now.0 - event.time.0).max(0) as f64 / 1e6;
        self.0.metrics.event_publish.with_label_values(&[sink]).observe(seconds);
    }
}

#[cfg(test)]
pub(crate) mod tests;
