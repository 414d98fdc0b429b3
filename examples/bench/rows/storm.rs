//! Row `storm`: nearly all devices lose their connections at once and come back at once, as the server and the contract
//! advise (`Retry-After`, close codes, exponential backoff with full jitter); meanwhile, and for an interval after, the
//! others are pinged.
//!
//! Told are how long it takes until all are back, who was refused, how late the others' pings were, and how full
//! lastpong's queues grew. Where they are bounded, that bound is not to be passed and nothing is to be refused.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{Measured, UNDER_WAY};
use crate::clock::millis;
use crate::line::Figures;
use crate::load::{Late, Order};
use crate::subjects::lastpong::Lastpong;
use crate::subjects::{Server, Subject};
use crate::world::World;

const BACK_WITHIN_S: u64 = 180;

/// Between two looks at the queues.
const LOOK: Duration = Duration::from_millis(100);

pub fn measure(subject: Subject, world: &World) -> anyhow::Result<Measured> {
    // With everyone there, some thousand pings a second.
    let interval = world.interval * 2;
    let server = Server::start(subject, world, interval)?;
    let lastpong = server.lastpong()?;
    let mut load = server.load()?;
    let (staying, _) = load.connect(world.share(1, 15), UNDER_WAY)?;
    let (devices, _) = load.connect(world.sessions, UNDER_WAY)?;
    std::thread::sleep(world.settle + interval);

    let refused_before = refused_by_queues(lastpong)?;
    let is_over = AtomicBool::new(false);
    let (answer, deepest) = thread::scope(|scope| {
        let depths = scope.spawn(|| deepest(lastpong, &is_over));
        let answer = load.ask(&Order::Storm { devices: devices.clone(), within_s: BACK_WITHIN_S });
        is_over.store(true, Ordering::Relaxed);
        let depths = depths.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the queues' watch panicked")));
        anyhow::Ok((answer?, depths?))
    })?;
    let refused = refused_by_queues(lastpong)? - refused_before;
    server.has_ended(devices.len() as u64)?;
    let ended = lastpong.metric("lastpong_disconnects_total")?;

    let late = answer.late.unwrap_or_default();
    let Late { pings, p50_ms, p99_ms, max_ms } = late;
    let mut value = Figures::default()
        .with("back_s", millis(answer.began_us, answer.back_us) / 1_000.0)
        .with("refused", f64::from(answer.refused.values().sum::<u32>()))
        .with("failed", f64::from(answer.failed))
        .with("false_ends", ended - devices.len() as f64)
        .with("late_p50_ms", p50_ms)
        .with("late_p99_ms", p99_ms)
        .with("late_max_ms", max_ms)
        .with("pings", pings as f64)
        .with("queue_refused", refused)
        .with("load_turn_max_ms", answer.own_turn_ms);
    for (status, count) in &answer.refused {
        value = value.with(&format!("refused_{status}"), f64::from(*count));
    }
    for (queue, depth) in deepest {
        value = value.with(&format!("queue_{queue}"), depth);
    }
    let measured = Measured::new(value, server.settings);
    Ok(measured.and("sessions", world.sessions).and("staying", staying.len() as u64))
}

/// How full each queue was when it was looked at and fullest.
fn deepest(lastpong: &Lastpong, is_over: &AtomicBool) -> anyhow::Result<BTreeMap<String, f64>> {
    let mut deepest = BTreeMap::new();
    while !is_over.load(Ordering::Relaxed) {
        for (queue, depth) in lastpong.by_label("lastpong_queue_depth")? {
            let known = deepest.entry(queue).or_insert(depth);
            *known = depth.max(*known);
        }
        thread::sleep(LOOK);
    }
    Ok(deepest)
}

fn refused_by_queues(lastpong: &Lastpong) -> anyhow::Result<f64> {
    lastpong.metric("lastpong_queue_refused_total")
}
