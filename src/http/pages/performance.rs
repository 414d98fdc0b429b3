//! How this node performs: the same numbers as the JSON, one table a metric.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use askama::Template;
use serde_json::Value;

use super::Frame;
use super::words::{NONE, count};
use crate::feed::Standing;
use crate::http::browser;
use crate::http::debug::Memory;

/// Metrics under the question that they answer, each with what it says.
const GROUPS: [(&str, &[(&str, &str)]); 5] = [
    (
        "Is this node late?",
        &[
            ("lastpong_loop_stall_seconds", "Stalls of a worker's loop"),
            ("lastpong_queue_depth", "Waiting in queues"),
            ("lastpong_queue_refused_total", "Refused by full queues"),
            ("lastpong_detection_seconds", "Detection"),
        ],
    ),
    (
        "Are the stores slow or away?",
        &[
            ("lastpong_breaker_state", "Breakers (0 closed, 1 half-open, 2 open)"),
            ("lastpong_store_seconds", "Calls of the stores"),
            ("lastpong_batch_writes", "Writes in one transaction"),
            ("lastpong_journal_entries", "Waiting in the journal"),
            ("lastpong_peers", "Other nodes"),
            ("lastpong_runs_lost_total", "Declared lost"),
        ],
    ),
    (
        "Are subscribers behind?",
        &[
            ("lastpong_event_publish_seconds", "From an event to its hand-over"),
            ("lastpong_outbox_lag_events", "Events that the slowest reader lacks"),
            ("lastpong_event_log_events", "Events kept"),
        ],
    ),
    (
        "Is live state true?",
        &[
            ("lastpong_reconcile_drift", "Differences found"),
            ("lastpong_heartbeat_updates_total", "Heartbeats written"),
            ("lastpong_heartbeat_update_seconds", "Time of a batch of them"),
            ("lastpong_activity_checks_total", "Sessions looked up"),
        ],
    ),
    ("How far are devices?", &[("lastpong_ping_rtt_seconds", "Round trips")]),
];

#[derive(Template)]
#[template(path = "performance.html")]
struct Performance {
    frame: Frame,
    memory: Vec<(&'static str, String)>,
    feed: Vec<(&'static str, String)>,
    groups: Vec<Group>,
}

struct Group {
    name: &'static str,
    tables: Vec<Table>,
}

struct Table {
    id: &'static str,
    name: &'static str,
    is_histogram: bool,
    rows: Vec<Row>,
}

struct Row {
    labels: String,
    /// The value; or count, mean, p50 and p99.
    cells: Vec<String>,
}

/// The page of what `metrics` and `feed` say.
pub(in crate::http) fn performance_page(
    frame: Frame,
    metrics: &Value,
    feed: Standing,
    memory: Memory,
) -> HttpResponse {
    let table = |(id, name): &(&'static str, &'static str)| {
        let samples = metrics.get(*id)?.as_array()?;
        let is_histogram = samples.iter().any(|sample| sample.get("count").is_some());
        let rows = samples.iter().map(row).collect();
        Some(Table { id, name, is_histogram, rows })
    };
    let group = |(name, tables): (&'static str, &[(&'static str, &'static str)])| Group {
        name,
        tables: tables.iter().filter_map(table).collect(),
    };
    let page = Performance {
        frame,
        memory: vec![
            ("Resident", mebibytes(memory.resident_bytes)),
            ("Sessions", count(memory.sessions)),
            (
                "Resident for each session",
                memory.bytes_per_session.map_or_else(|| NONE.into(), |b| count(b) + " bytes"),
            ),
        ],
        feed: vec![
            ("Newest event", feed.newest.to_string()),
            ("In memory from", feed.in_memory_from.map_or_else(|| NONE.into(), |seq| seq.to_string())),
            ("Subscribers", feed.subscribers.to_string()),
            ("The slowest lacks", feed.slowest_lag.to_string()),
        ],
        groups: GROUPS.map(group).into_iter().filter(|group| !group.tables.is_empty()).collect(),
    };
    browser::page(StatusCode::OK, &page)
}

fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| NONE.to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / 1_048_576.0))
}

fn row(sample: &Value) -> Row {
    const FIGURES: [&str; 6] = ["value", "count", "sum", "p50_at_most", "p99_at_most", "buckets"];
    let labels =
        sample.as_object().into_iter().flatten().filter(|(name, _)| !FIGURES.contains(&name.as_str()));
    let labels: Vec<&str> = labels.filter_map(|(_, value)| value.as_str()).collect();
    let number = |name: &str| sample.get(name).and_then(Value::as_f64);
    let cells = match number("count") {
        Some(n) => {
            let mean = number("sum").filter(|_| n > 0.0).map(|sum| sum / n);
            let of = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), figure);
            vec![count(n as u64), of(mean), of(number("p50_at_most")), of(number("p99_at_most"))]
        }
        None => vec![number("value").map_or_else(|| NONE.to_owned(), figure)],
    };
    Row { labels: labels.join(" "), cells }
}

fn figure(x: f64) -> String {
    if x.fract() == 0.0 && x.abs() < 1e15 {
        return if x < 0.0 { x.to_string() } else { count(x as u64) };
    }
    match x.abs() {
        small if small < 0.001 => format!("{x:.6}"),
        small if small < 1.0 => format!("{x:.4}"),
        _ => format!("{x:.2}"),
    }
}
