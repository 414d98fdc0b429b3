//! Row `memory`: what an idle session costs, as the slope between few sessions and many, and what is kept when all left.
//!
//! Before, sessions come and go, so that caches which are bounded are full and no part of the slope. The kernel's part is
//! the whole machine's, with both ends of each connection in it, and says little on a machine that does other things.

use std::time::Duration;

use super::{Measured, UNDER_WAY};
use crate::line::Figures;
use crate::load::How;
use crate::measure::{kernel_memory, settled};
use crate::subjects::{Server, Subject};
use crate::world::World;

/// So that hardly anyone is pinged while memory is looked at.
const INTERVAL: Duration = Duration::from_secs(60);

/// Those that come and go are so many at a time, and leave no trace of having been together.
const VISITORS: u32 = 64;

pub fn measure(subject: Subject, world: &World) -> anyhow::Result<Measured> {
    let (few, many, visits) = (world.share(2, 15), world.sessions, world.share(2, 3));
    let server = Server::start(subject, world, INTERVAL)?;
    let mut load = server.load()?;
    load.visit(visits, VISITORS)?;
    server.has_ended(visits.into())?;
    let before = settled(server.pid, world.settle)?;

    let (first, _) = load.connect(few, UNDER_WAY)?;
    let at_few = settled(server.pid, world.settle)?;
    let kernel_at_few = kernel_memory()?;
    let (last, _) = load.connect(many - few, UNDER_WAY)?;
    let at_many = settled(server.pid, world.settle)?;
    let kernel_at_many = kernel_memory()?;
    let lost = load.stat()?.lost;
    anyhow::ensure!(lost == 0, "{lost} idle sessions were lost");

    load.leave(first.start..last.end, How::Vanish, Duration::ZERO)?;
    server.has_ended(u64::from(visits) + u64::from(many))?;
    let after = settled(server.pid, world.settle)?;

    let slope = |few: u64, many: u64| (many as f64 - few as f64) / f64::from(last.end - last.start);
    let value = Figures::default()
        .with("bytes_per_session", slope(at_few.pss, at_many.pss))
        .with("rss_per_session", slope(at_few.rss, at_many.rss))
        .with("kernel_per_session", slope(kernel_at_few, kernel_at_many))
        .with("pss_mib", mib(at_many.pss))
        .with("rss_mib", mib(at_many.rss))
        .with("kept_mib", mib(after.pss) - mib(before.pss))
        .with("empty_mib", mib(before.pss));
    let measured = Measured::new(value, server.settings);
    Ok(measured.and("sessions", format!("{few} to {many}")).and("visits_before", visits))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
