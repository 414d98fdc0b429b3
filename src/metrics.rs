//! The numbers that lastpong tells of itself, for Prometheus and for `/debug/performance`.
//!
//! - Every label value that is known beforehand exists from the start at 0, so that a rate over a rare event
//!   has a beginning.
//! - No label grows without bound: what a device may choose (its type) is folded into `other` beyond
//!   [`MAX_DEVICE_TYPES`] distinct ones.
//! - What counts once a frame is a resolved child ([`Messages`]): one atomic addition, no look-up.
//!
//! A registry of its own instead of the crate's global one, so that two nodes in one process do not mix. Only what the
//! kernel says of the process (memory, open files, processor time) is the same for both.

mod facts;
mod live;
mod record;
mod tls;
mod window;
mod words;

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use prometheus::local::{LocalHistogram, LocalIntCounter};
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use serde_json::Value;

use crate::ids::DeviceType;
use crate::reason::Reason;
pub use live::LiveMetrics;
pub use record::RecordMetrics;
pub use tls::TlsMetrics;
pub use window::Standing;
pub use words::{Handshake, Limit, TlsHandshake};

/// Distinct device types that get a label value of their own; those met later are told as `other`.
pub const MAX_DEVICE_TYPES: usize = 64;

/// The queues between actors: facts of the workers, writes for the registry, orders for the workers, signs of life; and the
/// seats of those who follow events.
const QUEUES: &[&str] = &["facts", "record", "orders", "heard", "subscribers"];

const RTT: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const STORE: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0];
const WAIT: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
const BATCH: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0];

/// Frames by kind and fate, each a resolved child of `websocket_messages_total{message_type,status}`.
#[derive(Debug, Clone)]
pub struct Messages {
    pub pings_sent: IntCounter,
    /// Pongs that answered the ping they name.
    pub pongs_matched: IntCounter,
    /// Late or unsolicited pongs: life, but no round trip.
    pub pongs_unmatched: IntCounter,
    pub device_pings: IntCounter,
    pub heartbeats: IntCounter,
    pub acks: IntCounter,
    pub byes: IntCounter,
    pub welcomes: IntCounter,
    /// `error` frames sent: each answers a frame that was not understood.
    pub errors: IntCounter,
    /// Frames that ended their session: too big, malformed, too many.
    pub refused: IntCounter,
}

/// What one worker counts at every ping, and adds to everyone's at its tick: memory that several cores write in turn
/// costs more than the counting.
pub struct Counted {
    pub pings_sent: LocalIntCounter,
    pub pongs_matched: LocalIntCounter,
    pub ping_rtt: LocalHistogram,
}

impl Counted {
    pub fn flush(&self) {
        self.pings_sent.flush();
        self.pongs_matched.flush();
        self.ping_rtt.flush();
    }
}

/// Every metric of a node. Shared as `Arc<Metrics>`.
pub struct Metrics {
    registry: Registry,
    device_types: RwLock<HashSet<String>>,
    pub messages: Messages,
    /// Use [`Metrics::connections_of`], which bounds the label.
    connections: IntGaugeVec,
    /// By state: `starting`, `live`, `suspect`.
    pub sessions: IntGaugeVec,
    pub disconnects: IntCounterVec,
    pub handshakes: IntCounterVec,
    /// By limit: what it refused or ended.
    pub limited: IntCounterVec,
    /// Connections that are not sessions.
    pub http_connections: IntGauge,
    pub ping_rtt: Histogram,
    /// From the last proof of life to the decision that a session is over.
    pub detection: Histogram,
    /// From an event's time to its hand-over to the sink.
    pub event_publish: HistogramVec,
    /// How far the slowest reader of a sink is behind the log's end.
    pub outbox_lag: IntGaugeVec,
    pub store_seconds: HistogramVec,
    /// By store (`sql`, `redis`): 0 closed, 1 half-open, 2 open.
    pub breaker_state: IntGaugeVec,
    /// Starts, ends and beginnings of runs that wait in the node's journal.
    pub journal_entries: IntGauge,
    /// Writes in one transaction.
    pub batch_writes: Histogram,
    pub queue_depth: IntGaugeVec,
    pub queue_refused: IntCounterVec,
    /// How late a worker's loop was woken.
    pub loop_stall: Histogram,
    pub build_info: IntGaugeVec,
    /// Other nodes on the record, by state: `live`, `lost`, `gone`.
    pub peers: IntGaugeVec,
    /// What became of spans.
    pub spans: IntCounterVec,
    pub live: LiveMetrics,
    pub record: RecordMetrics,
    pub tls: TlsMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Starting, live, suspect.
    pub fn sessions_by_state(&self) -> [i64; 3] {
        ["starting", "live", "suspect"].map(|state| self.sessions.with_label_values(&[state]).get())
    }

    /// All that this node holds.
    pub fn sessions_held(&self) -> u64 {
        self.sessions_by_state().iter().sum::<i64>().max(0).unsigned_abs()
    }

    /// For one worker.
    pub fn counted(&self) -> Counted {
        Counted {
            pings_sent: self.messages.pings_sent.local(),
            pongs_matched: self.messages.pongs_matched.local(),
            ping_rtt: self.ping_rtt.local(),
        }
    }

    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let message_counts =
            counters(r, "websocket_messages_total", "Frames by kind and fate.", &["message_type", "status"]);
        let metrics = Self {
            messages: Messages::of(&message_counts),
            connections: gauges(
                r,
                "websocket_connections_total",
                "Sessions held, by device type.",
                &["device_type", "status"],
            ),
            sessions: gauges(r, "lastpong_sessions", "Sessions held, by state.", &["state"]),
            disconnects: counters(r, "lastpong_disconnects_total", "End records, by reason.", &["reason"]),
            handshakes: counters(
                r,
                "lastpong_handshakes_total",
                "Requests for a session, by outcome.",
                &["outcome"],
            ),
            limited: counters(
                r,
                "lastpong_limited_total",
                "Refused or ended, by the limit reached.",
                &["limit"],
            ),
            http_connections: gauge(r, "lastpong_http_connections", "Connections that are not sessions."),
            ping_rtt: histogram(r, "lastpong_ping_rtt_seconds", "Round trips of matched pongs.", RTT),
            detection: histogram(
                r,
                "lastpong_detection_seconds",
                "From the last proof of life to the decision that a session is over.",
                WAIT,
            ),
            event_publish: histograms(
                r,
                "lastpong_event_publish_seconds",
                "From an event's time to its hand-over to the sink.",
                &["sink"],
                WAIT,
            ),
            outbox_lag: gauges(
                r,
                "lastpong_outbox_lag_events",
                "Events between the log's end and the slowest reader of the sink.",
                &["sink"],
            ),
            store_seconds: histograms(
                r,
                "lastpong_store_seconds",
                "Time taken by the store.",
                &["store", "op"],
                STORE,
            ),
            breaker_state: gauges(
                r,
                "lastpong_breaker_state",
                "Whether the store is asked: 0 closed, 1 half-open, 2 open.",
                &["store"],
            ),
            journal_entries: gauge(
                r,
                "lastpong_journal_entries",
                "Entries of the node's journal that the SQL store does not have yet.",
            ),
            batch_writes: histogram(r, "lastpong_batch_writes", "Writes in one transaction.", BATCH),
            queue_depth: gauges(r, "lastpong_queue_depth", "Entries waiting in a bounded queue.", &["queue"]),
            queue_refused: counters(
                r,
                "lastpong_queue_refused_total",
                "Entries that a full queue refused.",
                &["queue"],
            ),
            loop_stall: histogram(
                r,
                "lastpong_loop_stall_seconds",
                "How late a worker's loop was woken.",
                WAIT,
            ),
            build_info: gauges(r, "lastpong_build_info", "Always 1; the version is its label.", &["version"]),
            peers: gauges(r, "lastpong_peers", "Other nodes on the record, by state.", &["state"]),
            spans: counters(r, "lastpong_spans_total", "Spans of traces, by outcome.", &["outcome"]),
            live: LiveMetrics::new(r),
            record: RecordMetrics::new(r),
            tls: TlsMetrics::new(r),
            device_types: RwLock::default(),
            registry,
        };
        metrics.registry.register(Box::new(ProcessCollector::for_self())).expect(FIXED);
        metrics.begin_at_zero();
        metrics
    }

    fn begin_at_zero(&self) {
        for state in ["starting", "live", "suspect"] {
            self.sessions.with_label_values(&[state]);
        }
        for reason in Reason::ALL {
            self.disconnects.with_label_values(&[reason.as_str()]);
        }
        for outcome in Handshake::ALL {
            self.handshakes.with_label_values(&[outcome.as_str()]);
        }
        for limit in Limit::ALL {
            self.limited.with_label_values(&[limit.as_str()]);
        }
        self.connections_of(&DeviceType::default(), "active");
        for sink in ["feed", "sse", "websocket", "redis_stream"] {
            self.event_publish.with_label_values(&[sink]);
        }
        for sink in ["sse", "websocket", "redis_stream"] {
            self.outbox_lag.with_label_values(&[sink]);
        }
        self.breaker_state.with_label_values(&["sql"]);
        for queue in QUEUES {
            self.queue_refused.with_label_values(&[queue]);
            self.queue_depth.with_label_values(&[queue]);
        }
        for state in ["live", "lost", "gone"] {
            self.peers.with_label_values(&[state]);
        }
        for outcome in ["exported", "dropped", "failed"] {
            self.spans.with_label_values(&[outcome]);
        }
        self.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    }

    /// The gauge of connections of a device type, by status (`active` for a welcomed session). The same type
    /// gets the same gauge for the life of the process, so that what was added can be taken away.
    pub fn connections_of(&self, device_type: &DeviceType, status: &str) -> IntGauge {
        self.connections.with_label_values(&[self.folded(device_type.as_str()), status])
    }

    fn folded<'a>(&self, device_type: &'a str) -> &'a str {
        if self.device_types.read().unwrap_or_else(PoisonError::into_inner).contains(device_type) {
            return device_type;
        }
        let mut known = self.device_types.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MAX_DEVICE_TYPES || known.contains(device_type) {
            known.insert(device_type.to_owned());
            return device_type;
        }
        "other"
    }

    pub fn handshake(&self, outcome: Handshake) {
        self.handshakes.with_label_values(&[outcome.as_str()]).inc();
    }

    pub fn limited(&self, limit: Limit) {
        self.limited.with_label_values(&[limit.as_str()]).inc();
    }

    /// The Prometheus text format.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|e| {
            log::error!(error:% = e; "the metrics could not be encoded");
            String::new()
        })
    }

    /// What the process holds in memory, where the system tells.
    pub fn resident_bytes(&self) -> Option<u64> {
        let families = self.registry.gather();
        let told = families.iter().find(|family| family.name() == "process_resident_memory_bytes")?;
        told.get_metric().first().map(|metric| metric.get_gauge().get_value() as u64)
    }

    /// What `/debug/performance` shows: the same numbers as an object by metric name, histograms as count,
    /// sum, the upper bounds of the buckets that hold the median and the 99th percentile, and what each bucket holds.
    pub fn facts(&self) -> Value {
        facts::of(&self.registry)
    }
}

impl Messages {
    fn of(counts: &IntCounterVec) -> Self {
        let child = |kind: &str, status: &str| counts.with_label_values(&[kind, status]);
        Self {
            pings_sent: child("ping", "sent"),
            pongs_matched: child("pong", "matched"),
            pongs_unmatched: child("pong", "unmatched"),
            device_pings: child("ping", "received"),
            heartbeats: child("heartbeat", "received"),
            acks: child("ack", "sent"),
            byes: child("bye", "received"),
            welcomes: child("welcome", "sent"),
            errors: child("error", "sent"),
            refused: child("frame", "refused"),
        }
    }
}

// Names and labels are constants of this file, so that a refusal by the registry is a fault of the text
// above, which the first test of this module would meet.
const FIXED: &str = "metric names are distinct and well formed";

fn register<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, metric: C) -> C {
    registry.register(Box::new(metric.clone())).expect(FIXED);
    metric
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels).expect(FIXED))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels).expect(FIXED))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help).expect(FIXED))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    register(registry, Histogram::with_opts(opts).expect(FIXED))
}

fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    register(registry, HistogramVec::new(opts, labels).expect(FIXED))
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
