//! The pure machine of one session.

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use lastpong::session::state::{Action, Liveness, Pace};
use lastpong::supervisor::clock::{Attended, Clocks};
use lastpong::time::Mono;

fn at(us: u64) -> Clocks {
    Clocks { mono: Mono(us), attended: Attended(us) }
}

pub fn all(c: &mut Criterion) {
    let pace = Pace {
        ping_interval: Duration::from_secs(25),
        pong_timeout: Duration::from_secs(10),
        max_missed_pongs: 2,
        adaptive: false,
    };
    let live = || {
        let mut liveness = Liveness::new(at(0), Duration::from_secs(10));
        liveness.recorded(at(0), &pace, 0.0);
        liveness
    };
    let mut group = c.benchmark_group("liveness");
    group.bench_function("a ping and its pong", |b| {
        let (mut liveness, mut now) = (live(), 0);
        b.iter(|| {
            now += 25_000_000;
            if let Action::Ping { token, .. } = liveness.on_deadline(at(now), &pace, black_box(now)) {
                liveness.pinged(at(now), &pace, token);
            }
            liveness.on_pong(at(now + 200), &pace, Some(now))
        });
    });
    group.bench_function("a deadline that moved on", |b| {
        let mut liveness = live();
        liveness.pinged(at(0), &pace, 7);
        b.iter(|| liveness.on_deadline(black_box(at(1_000)), &pace, 8));
    });
    group.finish();
}
