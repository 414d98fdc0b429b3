//! What is told of the record: its calls, its ends, its length, and whose it is.

use std::sync::Arc;
use std::time::Instant;

use prometheus::{IntCounter, IntGauge, Registry};

use super::{FIXED, Metrics, gauge, register};
use crate::event::{Event, EventKind};

/// The numbers of the record.
pub struct RecordMetrics {
    /// Events that the log keeps, as of the last sweep of what is past its retention.
    pub event_log_events: IntGauge,
    /// How often this node was declared lost and went on as another run.
    pub runs_lost: IntCounter,
    /// When this node last read what is banned, in Unix seconds.
    pub bans_read: IntGauge,
    /// Episodes of flapping that this node told of.
    pub flapping: IntCounter,
}

impl RecordMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        let runs_lost = "How often this node was declared lost by another, and went on as another run.";
        let flapping = "Devices that began to come and go too often.";
        Self {
            event_log_events: gauge(
                r,
                "lastpong_event_log_events",
                "Events that the log keeps, counted at each sweep.",
            ),
            bans_read: gauge(
                r,
                "lastpong_bans_read_timestamp_seconds",
                "When this node last read from the record what is banned, in Unix seconds; 0 before the first time.",
            ),
            runs_lost: register(r, IntCounter::new("lastpong_runs_lost_total", runs_lost).expect(FIXED)),
            flapping: register(r, IntCounter::new("lastpong_flapping_total", flapping).expect(FIXED)),
        }
    }
}

impl Metrics {
    /// Counts the end records among these events. For whoever wrote them to the record: of a log that many nodes read,
    /// each end is counted by one.
    pub fn count_ends(&self, events: &[Arc<Event>]) {
        let ends = events.iter().filter(|event| event.kind == EventKind::SessionDisconnected);
        for reason in ends.filter_map(|event| event.reason) {
            self.disconnects.with_label_values(&[reason.as_str()]).inc();
        }
    }

    /// Awaits a call of a store, and notes how long it took, whatever came of it.
    pub async fn timed<T>(&self, store: &str, op: &str, call: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let answer = call.await;
        self.store_seconds.with_label_values(&[store, op]).observe(began.elapsed().as_secs_f64());
        answer
    }
}
