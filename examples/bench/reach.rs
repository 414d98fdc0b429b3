//! The figures that the table tells, and what they are to reach.

/// A line of the table: a figure of lastpong's.
pub struct Figure {
    pub row: &'static str,
    pub subject: &'static str,
    pub key: &'static str,
    pub what: &'static str,
    pub reach: &'static [Reach],
}

pub struct Reach {
    pub limit: Limit,
    pub than: Than,
}

#[derive(Debug, Clone, Copy)]
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

/// What a limit is of: the figure itself, or its ratio to a figure of another subject in the same row.
#[derive(Debug, Clone, Copy)]
pub enum Than {
    Number,
    Subject(&'static str, &'static str),
}

const fn at_most(limit: f64) -> Reach {
    Reach { limit: Limit::AtMost(limit), than: Than::Number }
}

const fn at_least(limit: f64) -> Reach {
    Reach { limit: Limit::AtLeast(limit), than: Than::Number }
}

const fn at_most_of(limit: f64, subject: &'static str, key: &'static str) -> Reach {
    Reach { limit: Limit::AtMost(limit), than: Than::Subject(subject, key) }
}

const fn at_least_of(limit: f64, subject: &'static str, key: &'static str) -> Reach {
    Reach { limit: Limit::AtLeast(limit), than: Than::Subject(subject, key) }
}

/// lastpong without stores of others.
pub const EMBEDDED: &str = "lastpong";
const STORES: &str = "lastpong/postgres";

const fn told(
    row: &'static str,
    subject: &'static str,
    key: &'static str,
    what: &'static str,
    reach: &'static [Reach],
) -> Figure {
    Figure { row, subject, key, what, reach }
}

const BYTES: &str = "bytes_per_session";
const CPU: &str = "cpu_s_per_million";
const USER: &str = "user_s_per_million";

/// In the order in which they are told.
pub const FIGURES: &[Figure] = &[
    told(
        "memory",
        EMBEDDED,
        BYTES,
        "bytes a session (PSS)",
        &[
            at_most(1_700.0),
            at_most_of(1.0 / 7.0, "tutorial", BYTES),
            at_most_of(1.0, "tungstenite", BYTES),
            at_most_of(1.0, "mosquitto", BYTES),
            at_most_of(1.0, "nats-server", BYTES),
        ],
    ),
    told("memory", EMBEDDED, "rss_per_session", "bytes a session (RSS)", &[]),
    told("memory", EMBEDDED, "kernel_per_session", "kernel bytes a session, both ends", &[]),
    told("memory", EMBEDDED, "kept_mib", "MiB kept when all have left", &[]),
    told(
        "pings",
        EMBEDDED,
        CPU,
        "CPU s a million round trips",
        &[at_most_of(0.95, "tungstenite", CPU), at_most_of(0.3, "nats-server", CPU)],
    ),
    told("pings", EMBEDDED, USER, "of it in user space", &[at_most(1.5), at_most_of(0.5, "tutorial", USER)]),
    told("pings", EMBEDDED, "round_trips_per_s", "round trips a second", &[]),
    told("handshakes", EMBEDDED, "cpu_us", "CPU us a handshake, SQLite", &[]),
    told("handshakes", EMBEDDED, "per_s", "handshakes a second, SQLite with fsync", &[at_least(10_000.0)]),
    told("handshakes", EMBEDDED, "commit_ms", "ms a commit", &[]),
    told("handshakes", EMBEDDED, "starts_per_commit", "starts in it", &[]),
    told("handshakes", EMBEDDED, "fsync_ms", "ms that the disk takes for one page", &[]),
    told("handshakes", STORES, "cpu_us", "CPU us a handshake, Postgres", &[]),
    told("handshakes", STORES, "per_s", "handshakes a second, Postgres", &[at_least(10_000.0)]),
    told("handshakes", STORES, "commit_ms", "ms a commit", &[]),
    told("handshakes", STORES, "starts_per_commit", "starts in it", &[]),
    told("ends", EMBEDDED, "p50_ms", "ms from close to subscriber, p50, SQLite", &[]),
    told("ends", EMBEDDED, "p99_ms", "p99", &[at_most(20.0)]),
    told("ends", EMBEDDED, "asked_p99_ms", "to whoever asks, p99", &[at_most(20.0)]),
    told("ends", STORES, "p50_ms", "ms from close to subscriber, p50, Postgres", &[]),
    told("ends", STORES, "p99_ms", "p99", &[at_most(20.0)]),
    told("ends", STORES, "asked_p99_ms", "to whoever asks, p99", &[at_most(20.0)]),
    told("drop", EMBEDDED, "all_s", "s until all ends are recorded and told, SQLite", &[at_most(1.5)]),
    told("drop", EMBEDDED, "p99_ms", "ms from its drop to subscriber, p99", &[at_most(100.0)]),
    told("drop", EMBEDDED, "ends_per_s", "ends a second", &[]),
    told("drop", STORES, "all_s", "s until recorded, told and in Redis, Postgres", &[at_most(1.5)]),
    told("drop", STORES, "recorded_s", "of it on the record", &[]),
    told("drop", STORES, "subscriber_s", "of it with a subscriber", &[]),
    told("drop", STORES, "stream_s", "of it in the stream", &[]),
    told("drop", STORES, "p99_ms", "ms from its drop to subscriber, p99", &[at_most(100.0)]),
    told("drop", STORES, "ends_per_s", "ends a second", &[at_least_of(0.6, "by hand", "ends_per_s")]),
    told("storm", EMBEDDED, "back_s", "s until all are back, SQLite", &[]),
    told("storm", EMBEDDED, "false_ends", "ends of devices that stayed", &[at_most(0.0)]),
    told("storm", EMBEDDED, "late_p99_ms", "ms that pings of the others were late, p99", &[]),
    told("storm", EMBEDDED, "late_max_ms", "longest", &[]),
    told("storm", EMBEDDED, "load_turn_max_ms", "ms that the load itself was late, longest", &[]),
    told("storm", EMBEDDED, "queue_record", "most entries in the queue of writes", &[at_most(50_000.0)]),
    told("storm", EMBEDDED, "queue_refused", "entries that queues refused", &[at_most(0.0)]),
    told("storm", EMBEDDED, "refused", "handshakes refused", &[]),
    told("storm", STORES, "back_s", "s until all are back, Postgres", &[]),
    told("storm", STORES, "false_ends", "ends of devices that stayed", &[at_most(0.0)]),
    told("storm", STORES, "late_p99_ms", "ms that pings of the others were late, p99", &[]),
    told("storm", STORES, "late_max_ms", "longest", &[]),
    told("storm", STORES, "load_turn_max_ms", "ms that the load itself was late, longest", &[]),
    told("storm", STORES, "queue_record", "most entries in the queue of writes", &[at_most(50_000.0)]),
    told("storm", STORES, "queue_refused", "entries that queues refused", &[at_most(0.0)]),
    told("storm", STORES, "refused", "handshakes refused", &[]),
    told(
        "detection",
        EMBEDDED,
        "close_p99_ms",
        "ms from a close frame to subscriber, p99",
        &[at_most(100.0)],
    ),
    told("detection", EMBEDDED, "reset_p99_ms", "from a reset, p99", &[at_most(100.0)]),
    told("detection", EMBEDDED, "vanish_p99_ms", "from an end without a word, p99", &[at_most(100.0)]),
    told("detection", EMBEDDED, "silent_late_p50_ms", "from a silent device's deadline, p50", &[]),
    told("detection", EMBEDDED, "silent_late_max_ms", "longest", &[at_most(1_000.0)]),
    told("fanout", EMBEDDED, "cpu_us_per_event", "CPU us an event for one subscriber more", &[]),
    told("fanout", EMBEDDED, "events_per_s", "events a second to 50 subscribers", &[]),
    told("dashboard", EMBEDDED, "core_percent", "% of a core for an open dashboard", &[at_most(2.0)]),
    told("dashboard", EMBEDDED, "core_percent_without", "% of a core without one", &[]),
    told("dashboard", EMBEDDED, "rtt_ms", "mean round trip with one, ms", &[]),
    told("dashboard", EMBEDDED, "rtt_ms_without", "without", &[]),
    told("dashboard", EMBEDDED, "stalls", "stalls of a worker with one", &[at_most(0.0)]),
    told("instructions", EMBEDDED, "per_pong", "instructions a ping and pong, user space", &[]),
    told("nodes", STORES, "sessions", "sessions held at once, nodes side by side", &[]),
    told("nodes", STORES, "bytes_per_session", "bytes a session (PSS), all in", &[]),
    told("nodes", STORES, "kernel_per_session", "kernel bytes a session, both ends", &[]),
    told("nodes", STORES, CPU, "CPU s a million round trips", &[]),
    told("nodes", STORES, "false_ends", "ends of devices that stayed", &[at_most(0.0)]),
    told("heartbeats", EMBEDDED, "per_s", "heartbeats a second into Redis", &[]),
    told(
        "tick",
        EMBEDDED,
        "ticks_ms_per_40k",
        "ms of ticks for 40,000 sessions due, of 1,000,000",
        &[at_most(2.0)],
    ),
    told("tick", EMBEDDED, "tick_longest_ms", "longest tick, ms", &[]),
    told("snapshot", EMBEDDED, "longest_step_ms", "ms a snapshot keeps a tick waiting", &[at_most(1.0)]),
    told("snapshot", EMBEDDED, "snapshot_ms", "ms for the whole snapshot", &[]),
    told("snapshot", EMBEDDED, "core_bytes_per_session", "bytes a session without its socket", &[]),
    told("connections", EMBEDDED, "p50_ms", "ms for a page of 100,000 connections, p50", &[]),
    told("connections", EMBEDDED, "p99_ms", "p99", &[at_most(10.0)]),
    told(
        "connections",
        EMBEDDED,
        "late_p99_ms_quiet",
        "ms that deadlines are late, nobody looking, p99",
        &[],
    ),
    told("connections", EMBEDDED, "late_p99_ms_looking", "the same while somebody looks, p99", &[]),
];
