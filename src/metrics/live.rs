//! What is told of live state, and of how far it differs from the sessions it speaks of.

use prometheus::{Histogram, IntCounterVec, IntGaugeVec, Registry};

use super::{STORE, counters, gauges, histogram};

/// What became of a heartbeat's update: `written`, `unknown` (live state had no such session, and got it anew) or
/// `failed`.
const OUTCOMES: &[&str] = &["written", "unknown", "failed"];
const VERDICTS: &[&str] = &["active", "inactive", "unknown"];
/// Where two of sessions, live state and record differed.
const DRIFTS: &[&str] = &["sql_orphan", "sql_missing", "redis_orphan", "redis_missing", "redis_stale"];

/// The numbers of live state.
pub struct LiveMetrics {
    pub heartbeat_updates: IntCounterVec,
    pub heartbeat_update_seconds: Histogram,
    pub activity_checks: IntCounterVec,
    /// Of all rounds together. A gauge, because readers of OpenMetrics would add `_total` to a counter's name.
    pub reconcile_drift: IntGaugeVec,
}

impl LiveMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        let metrics = Self {
            heartbeat_updates: counters(
                r,
                "lastpong_heartbeat_updates_total",
                "Heartbeats written to live state, by outcome.",
                &["outcome"],
            ),
            heartbeat_update_seconds: histogram(
                r,
                "lastpong_heartbeat_update_seconds",
                "Time taken to write a batch of heartbeats to live state.",
                STORE,
            ),
            activity_checks: counters(
                r,
                "lastpong_activity_checks_total",
                "Sessions whose activity was looked up in live state, by verdict.",
                &["verdict"],
            ),
            reconcile_drift: gauges(
                r,
                "lastpong_reconcile_drift",
                "Differences between sessions, live state and record found since the start, by kind.",
                &["kind"],
            ),
        };
        metrics.begin_at_zero();
        metrics
    }

    fn begin_at_zero(&self) {
        for (counter, words) in [(&self.heartbeat_updates, OUTCOMES), (&self.activity_checks, VERDICTS)] {
            words.iter().for_each(|word| _ = counter.with_label_values(&[word]));
        }
        DRIFTS.iter().for_each(|kind| _ = self.reconcile_drift.with_label_values(&[kind]));
    }
}
