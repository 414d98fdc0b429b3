//! Row `fanout`: what it costs to tell an end to one subscriber more, from the difference between one and many.

use std::time::{Duration, Instant};

use super::{Measured, SEEN_WITHIN, UNDER_WAY};
use crate::line::Figures;
use crate::load::{Client, How};
use crate::measure::cpu;
use crate::subjects::{Server, Subject};
use crate::watch::sse::Sse;
use crate::world::World;

const SUBSCRIBERS: usize = 50;

/// As lastpong's default.
const INTERVAL: Duration = Duration::from_secs(25);

pub fn measure(subject: Subject, world: &World) -> anyhow::Result<Measured> {
    let server = Server::start(subject, world, INTERVAL)?;
    let mut load = server.load()?;
    let ends = world.share(1, 3);
    // What is done once is done before.
    told(&server, &mut load, world, 1, ends)?;
    let (one, _) = told(&server, &mut load, world, 1, ends)?;
    let (many, seconds) = told(&server, &mut load, world, SUBSCRIBERS, ends)?;
    let events = f64::from(ends) * SUBSCRIBERS as f64;
    let more = f64::from(ends) * (SUBSCRIBERS - 1) as f64;
    let value = Figures::default()
        .with("cpu_us_per_event", (many - one) / more * 1e6)
        .with("cpu_us_per_event_all_in", many / events * 1e6)
        .with("events_per_s", events / seconds);
    let measured = Measured::new(value, server.settings);
    Ok(measured.and("subscribers", SUBSCRIBERS as u64).and("ends", ends))
}

/// So many devices leave at once, before so many subscribers; gives the processor time and the time it took.
fn told(
    server: &Server,
    load: &mut Client,
    world: &World,
    subscribers: usize,
    ends: u32,
) -> anyhow::Result<(f64, f64)> {
    let (devices, _) = load.connect(ends, UNDER_WAY)?;
    let sse = Sse::subscribe(&server.lastpong()?.http, subscribers)?;
    std::thread::sleep(world.settle);
    let (began, before) = (Instant::now(), cpu(server.pid)?);
    load.leave(devices, How::Vanish, Duration::ZERO)?;
    sse.until(u64::from(ends) * subscribers as u64, SEEN_WITHIN)?;
    Ok((cpu(server.pid)?.since(before).whole(), began.elapsed().as_secs_f64()))
}
