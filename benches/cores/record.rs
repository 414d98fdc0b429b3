//! What the registry and the store write of a session's end, and what subscribers get of it: a thousand at a time, as in
//! one commit.

use std::net::SocketAddr;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use lastpong::event::{Disconnected, Event, EventKind, EventRow, Meta, RttMs};
use lastpong::ids::{DeviceType, EventId, Incarnation, SessionId};
use lastpong::reason::{DetectedBy, Reason};
use lastpong::time::{Timestamp, millis};

/// As many as one commit takes.
const BATCH: usize = 1_000;

fn end(number: usize, meta: Meta) -> Disconnected {
    let connected_at = Timestamp(1_795_000_000_000_000);
    let disconnected_at = Timestamp(connected_at.0 + 61_234_567);
    Disconnected {
        device_id: format!("device-{number:09}").parse().expect("a device id"),
        device_type: DeviceType::default(),
        session_id: SessionId::new(),
        node_id: "node-1".parse().expect("a node id"),
        incarnation: Incarnation::new(),
        reason: Reason::PongTimeout,
        initiator: Reason::PongTimeout.initiator(),
        detected_by: DetectedBy::Heartbeat,
        close_code: Reason::PongTimeout.close_code(),
        connected_at,
        last_pong_at: Some(disconnected_at.saturating_sub(Duration::from_secs(20))),
        last_active_at: disconnected_at.saturating_sub(Duration::from_secs(20)),
        disconnected_at,
        detection_ms: millis(Duration::from_micros(20_000_123)),
        duration_ms: millis(Duration::from_micros(61_234_567)),
        rtt_ms: RttMs { last: Some(0.213), min: Some(0.187), avg: Some(0.402), max: Some(3.5) },
        pings_sent: Some(4),
        pongs_received: Some(3),
        reconnect_count: 0,
        remote_addr: SocketAddr::from(([10, 0, 0, 7], 40_000)),
        meta,
        trace_id: None,
    }
}

fn row(seq: i64, end: &Disconnected, data: String) -> EventRow {
    EventRow {
        seq,
        device_seq: Some(2),
        id: EventId::new(),
        kind: EventKind::SessionDisconnected,
        time: end.disconnected_at,
        node_id: end.node_id.clone(),
        device_id: Some(end.device_id.clone()),
        device_type: Some(end.device_type.clone()),
        session_id: Some(end.session_id),
        reason: Some(end.reason),
        data,
    }
}

fn json(end: &Disconnected) -> String {
    serde_json::to_string(end).expect("an end is plain data")
}

pub fn all(c: &mut Criterion) {
    let ends: Vec<_> = (0..BATCH).map(|number| end(number, Meta::new())).collect();
    let meta: Meta = (0..16).map(|n| (format!("key-{n:02}"), "a value of some length".to_owned())).collect();
    let full: Vec<_> = (0..BATCH).map(|number| end(number, meta.clone())).collect();
    let rows: Vec<_> = ends.iter().zip(1..).map(|(end, seq)| row(seq, end, json(end))).collect();
    let mut group = c.benchmark_group("record");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("1,000 ends as data", |b| {
        b.iter(|| ends.iter().map(json).map(|s| s.len()).sum::<usize>())
    });
    group.bench_function("1,000 ends with 16 meta keys as data", |b| {
        b.iter(|| full.iter().map(json).map(|s| s.len()).sum::<usize>());
    });
    group.bench_function("1,000 rows to events", |b| {
        b.iter_batched(
            || rows.clone(),
            |rows| rows.into_iter().map(Event::from).collect::<Vec<_>>(),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}
