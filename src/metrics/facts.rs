//! Metrics as `/debug/performance` shows them.

use prometheus::Registry;
use prometheus::proto::{MetricFamily, MetricType};
use serde_json::{Map, Value, json};

/// Those that tell how this node does, by parts of their names.
const SHOWN: &[&str] = &[
    "_queue_",
    "_store_",
    "_breaker_",
    "_journal_",
    "_loop_stall",
    "_batch_",
    "_event_publish",
    "_outbox_",
    "_detection_",
    "_ping_rtt_",
    "_heartbeat_",
    "_activity_",
    "_reconcile_",
    "_peers",
    "_event_log_",
    "_runs_lost_",
    "_bans_read_",
];

/// By their names.
pub(super) fn of(registry: &Registry) -> Value {
    let families = registry.gather();
    let shown = families.iter().filter(|f| SHOWN.iter().any(|part| f.name().contains(part)));
    Value::Object(shown.map(|f| (f.name().to_owned(), of_family(f))).collect())
}

/// Its samples as objects of their labels, with a value; or, of a histogram, with count, sum and quantiles.
fn of_family(family: &MetricFamily) -> Value {
    let samples = family.get_metric().iter().map(|metric| {
        let mut fact: Map<String, Value> =
            metric.get_label().iter().map(|l| (l.name().to_owned(), Value::from(l.value()))).collect();
        match family.get_field_type() {
            MetricType::COUNTER => _ = fact.insert("value".into(), json!(metric.get_counter().get_value())),
            MetricType::GAUGE => _ = fact.insert("value".into(), json!(metric.get_gauge().get_value())),
            _ => {
                let h = metric.get_histogram();
                let count = h.get_sample_count();
                let at = |q: f64| {
                    let rank = (q * count as f64).ceil() as u64;
                    let bucket = h.get_bucket().iter().find(|b| b.cumulative_count() >= rank.max(1));
                    bucket.map(|b| b.upper_bound()).filter(|bound| bound.is_finite())
                };
                fact.insert("count".into(), json!(count));
                fact.insert("sum".into(), json!(h.get_sample_sum()));
                let mut below = 0;
                let held = h.get_bucket().iter().filter_map(|bucket| {
                    let count =
                        bucket.cumulative_count() - std::mem::replace(&mut below, bucket.cumulative_count());
                    (count > 0).then(|| json!([bucket.upper_bound(), count]))
                });
                let held: Vec<Value> = held.collect();
                fact.insert("buckets".into(), json!(held));
                fact.insert("p50_at_most".into(), json!(at(0.5)));
                fact.insert("p99_at_most".into(), json!(at(0.99)));
            }
        }
        Value::Object(fact)
    });
    samples.collect()
}
