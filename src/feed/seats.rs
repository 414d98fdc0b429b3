//! Who is subscribed: a bounded number of seats, each with the `seq` its holder has read to.
//!
//! A seat is given back when it is dropped, however its stream ends.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;

use crate::metrics::Metrics;

const QUEUE: &str = "subscribers";

/// By which way a subscriber reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    Sse,
    WebSocket,
}

impl Sink {
    const ALL: [Sink; 2] = [Sink::Sse, Sink::WebSocket];

    pub fn as_str(self) -> &'static str {
        match self {
            Sink::Sse => "sse",
            Sink::WebSocket => "websocket",
        }
    }
}

/// Every seat is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all {0} seats for subscribers are taken")]
pub struct NoSeat(pub usize);

#[derive(Clone)]
pub(super) struct Seats {
    holders: Arc<Mutex<Slab<Holder>>>,
    most: usize,
    metrics: Arc<Metrics>,
}

struct Holder {
    sink: Sink,
    read_to: Arc<AtomicI64>,
}

/// One subscriber's place.
pub(super) struct Seat {
    seats: Seats,
    key: usize,
    pub(super) sink: Sink,
    read_to: Arc<AtomicI64>,
}

impl Seats {
    pub(super) fn new(most: usize, metrics: Arc<Metrics>) -> Self {
        Self { holders: Arc::default(), most, metrics }
    }

    pub(super) fn take(&self, sink: Sink, after: i64) -> Result<Seat, NoSeat> {
        let mut holders = self.holders();
        if holders.len() >= self.most {
            self.metrics.queue_refused.with_label_values(&[QUEUE]).inc();
            return Err(NoSeat(self.most));
        }
        let read_to = Arc::new(AtomicI64::new(after));
        let key = holders.insert(Holder { sink, read_to: read_to.clone() });
        self.tell_depth(&holders);
        Ok(Seat { seats: self.clone(), key, sink, read_to })
    }

    pub(super) fn taken(&self) -> usize {
        self.holders().len()
    }

    /// How far the slowest of all is behind `newest`. The gauges of each sink's lag are set on the way.
    pub(super) fn slowest_lag(&self, newest: i64) -> i64 {
        let holders = self.holders();
        let lag_of = |sink| {
            let of_sink = holders.iter().filter(|(_, h)| h.sink == sink);
            of_sink.map(|(_, h)| newest - h.read_to.load(Ordering::Relaxed)).max().unwrap_or(0).max(0)
        };
        let lags = Sink::ALL.map(|sink| {
            let lag = lag_of(sink);
            self.metrics.outbox_lag.with_label_values(&[sink.as_str()]).set(lag);
            lag
        });
        lags.into_iter().max().unwrap_or(0)
    }

    fn holders(&self) -> MutexGuard<'_, Slab<Holder>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_depth(&self, holders: &Slab<Holder>) {
        self.metrics.queue_depth.with_label_values(&[QUEUE]).set(holders.len() as i64);
    }
}

impl Seat {
    pub(super) fn read_to(&self, seq: i64) {
        self.read_to.store(seq, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut holders = self.seats.holders();
        holders.try_remove(self.key);
        self.seats.tell_depth(&holders);
    }
}
