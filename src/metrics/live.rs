//! What is told of live state, and of how far it differs from the sessions it speaks of.

use prometheus::{Histogram, IntCounterVec, Registry};

use super::{STORE, counters, histogram};

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
    pub reconcile_drift: IntCounterVec,
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
            reconcile_drift: counters(
                r,
                "lastpong_reconcile_drift",
                "Differences between sessions, live state and record that were found, by kind.",
                &["kind"],
            ),
        };
        metrics.begin_at_zero();
        metrics
    }

    fn begin_at_zero(&self) {
        let all = [
            (&self.heartbeat_updates, OUTCOMES),
            (&self.activity_checks, VERDICTS),
            (&self.reconcile_drift, DRIFTS),
        ];
        for (counter, words) in all {
            words.iter().for_each(|word| _ = counter.with_label_values(&[word]));
        }
    }
}
