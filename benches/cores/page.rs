//! Choosing a page of live sessions, as `/debug/connections` does it.

use std::net::SocketAddr;
use std::sync::Arc;

use criterion::Criterion;
use lastpong::event::{Connected, Meta, RttMs};
use lastpong::http::debug::select::{Filter, Order, SortBy, select};
use lastpong::ids::{DeviceType, Incarnation, NodeId, SessionId};
use lastpong::supervisor::snapshot::{SessionView, Source, State};
use lastpong::time::Timestamp;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const SESSIONS: u32 = 100_000;
const LIMIT: usize = 100;

fn views() -> Vec<SessionView> {
    let mut random = SmallRng::seed_from_u64(7);
    let node: NodeId = "node-1".parse().expect("a node id");
    let incarnation = Incarnation::new();
    let view = |number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        let (began, heard) = (random.random_range(0..1_000_000_000), random.random_range(0..25_000_000));
        let rtt: f64 = random.random_range(0.1..300.0);
        let start = Connected {
            session_id: SessionId::new(),
            device_id: format!("device-{number:09}").parse().expect("a device id"),
            device_type: DeviceType::default(),
            node_id: node.clone(),
            incarnation,
            connected_at: Timestamp(began),
            remote_addr: SocketAddr::from(([10, a, b, c], 40_000)),
            meta: Meta::default(),
            trace_id: None,
        };
        SessionView {
            session_id: start.session_id,
            start: Arc::new(start),
            device_seq: Some(1),
            source: Source::Here,
            key: 0,
            state: if number.is_multiple_of(500) { State::Suspect } else { State::Live },
            last_pong_at: Some(Timestamp(2_000_000_000 - heard)),
            last_active_at: Timestamp(2_000_000_000 - heard),
            idle_ms: heard as f64 / 1000.0,
            rtt_ms: RttMs { last: Some(rtt), min: Some(rtt), avg: Some(rtt), max: Some(rtt) },
            missed: 0,
            pings_sent: 4,
            pongs_received: 4,
            reconnect_count: 0,
        }
    };
    (0..SESSIONS).map(view).collect()
}

pub fn all(c: &mut Criterion) {
    let views = views();
    let mut group = c.benchmark_group("page of 100,000");
    group.sample_size(20);
    for (name, by) in SortBy::ALL {
        let order = Order { by, reverse: true };
        group.bench_function(format!("sort=-{name}"), |b| {
            b.iter(|| select(views.iter(), &Filter::default(), order, None, LIMIT).total);
        });
    }
    let slow = Filter { min_rtt_ms: Some(250.0), ..Filter::default() };
    let order = Order { by: SortBy::Rtt, reverse: true };
    group.bench_function("min_rtt_ms=250&sort=-rtt", |b| {
        b.iter(|| select(views.iter(), &slow, order, None, LIMIT).total);
    });
    group.finish();
}
