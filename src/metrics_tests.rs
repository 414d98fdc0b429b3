use prometheus::core::Collector;
use serde_json::json;

use super::*;

#[test]
fn rare_things_begin_at_zero() {
    let text = Metrics::new().render();
    for reason in Reason::ALL {
        assert!(text.contains(&format!("lastpong_disconnects_total{{reason=\"{reason}\"}} 0\n")), "{reason}");
    }
    for outcome in Handshake::ALL {
        let line = format!("lastpong_handshakes_total{{outcome=\"{}\"}} 0\n", outcome.as_str());
        assert!(text.contains(&line), "{outcome:?}");
    }
    assert!(text.contains("websocket_messages_total{message_type=\"ping\",status=\"sent\"} 0\n"));
    assert!(text.contains(concat!("lastpong_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1\n")));
}

#[test]
fn device_types_are_bounded_and_each_keeps_its_gauge() {
    let metrics = Metrics::new();
    let of = |n: usize| metrics.connections_of(&format!("type-{n}").parse().unwrap(), "active");
    (0..1000).for_each(|n| of(n).inc());
    let text = metrics.render();
    let lines = text.lines().filter(|l| l.starts_with("websocket_connections_total{")).count();
    assert_eq!(lines, MAX_DEVICE_TYPES + 1);
    assert!(text.contains("{device_type=\"other\",status=\"active\"} 937\n"));
    (0..1000).for_each(|n| of(n).dec());
    let zeros = metrics.render().lines().filter(|l| l.contains("status=\"active\"} 0")).count();
    assert_eq!(zeros, MAX_DEVICE_TYPES + 1);
}

#[test]
fn facts_show_queues_and_quantiles() {
    let metrics = Metrics::new();
    metrics.queue_depth.with_label_values(&["record"]).set(3);
    (0..100).for_each(|_| metrics.loop_stall.observe(0.02));
    let facts = metrics.facts();
    let depths = facts["lastpong_queue_depth"].as_array().unwrap();
    assert_eq!(depths.len(), QUEUES.len());
    assert!(depths.contains(&json!({"queue": "record", "value": 3.0})), "{depths:?}");
    assert_eq!(facts["lastpong_loop_stall_seconds"][0]["p99_at_most"], json!(0.025));
    assert_eq!(facts["lastpong_detection_seconds"][0]["p99_at_most"], Value::Null);
    assert!(facts.get("websocket_messages_total").is_none());
}

#[test]
fn a_hundred_thousand_devices_of_as_many_types_add_no_series_without_end() {
    let metrics = Metrics::new();
    let series = |metrics: &Metrics| metrics.render().lines().filter(|l| !l.starts_with('#')).count();
    let before = series(&metrics);
    // What reaches a metric of what a device says of itself is its type.
    for n in 0..100_000 {
        let device_type = format!("type-{n}").parse().unwrap();
        metrics.connections_of(&device_type, "active").inc();
        metrics.disconnects.with_label_values(&[Reason::ALL[n % Reason::ALL.len()].as_str()]).inc();
        metrics.handshake(Handshake::ALL[n % Handshake::ALL.len()]);
    }
    // One of the types was there: that of devices without one.
    assert_eq!(series(&metrics), before + MAX_DEVICE_TYPES);
    let held = metrics.connections.collect();
    let held: f64 = held[0].get_metric().iter().map(|m| m.get_gauge().get_value()).sum();
    assert_eq!(held, 100_000.0, "each is counted, by its own name or as one of the others");
}
