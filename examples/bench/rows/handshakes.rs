//! Row `handshakes`: the server's processor time for one handshake, and how many it does in a second at full speed with
//! the devices on the same cores. lastpong's are done when the welcome came, which is after the start was durable: what one
//! commit takes is told too, and beside it what the disk takes to keep one page.

use std::time::Duration;

use super::{Measured, UNDER_WAY};
use crate::line::Figures;
use crate::measure::{cpu, fsync_ms};
use crate::subjects::{Server, Subject};
use crate::world::World;

/// As lastpong's default.
const INTERVAL: Duration = Duration::from_secs(25);

pub fn measure(subject: Subject, world: &World) -> anyhow::Result<Measured> {
    let devices = world.share(2, 3);
    let server = Server::start(subject, world, INTERVAL)?;
    let mut load = server.load()?;
    // Whatever is opened at the first need is open then.
    let visits = world.share(1, 30);
    load.visit(visits, UNDER_WAY)?;
    server.has_ended(visits.into())?;

    let fsync_ms = fsync_ms()?;
    let commits = || server.lastpong().ok().map_or(Ok((0.0, 0.0)), |lastpong| lastpong.store_calls("commit"));
    let (calls_before, waited_before) = commits()?;
    let before = cpu(server.pid)?;
    let (_, answer) = load.connect(devices, UNDER_WAY)?;
    let spent = cpu(server.pid)?.since(before);
    let (calls, waited) = commits()?;
    let (calls, waited) = (calls - calls_before, waited - waited_before);
    let seconds = (answer.ended_us - answer.began_us) as f64 / 1e6;
    let each = |cpu: f64| cpu / f64::from(devices) * 1e6;
    let mut value = Figures::default()
        .with("cpu_us", each(spent.whole()))
        .with("user_us", each(spent.user))
        .with("system_us", each(spent.system))
        .with("per_s", f64::from(devices) / seconds)
        .with("refused", f64::from(answer.refused.values().sum::<u32>()))
        .with("failed", f64::from(answer.failed));
    if calls > 0.0 {
        value = value
            .with("commit_ms", waited / calls * 1e3)
            .with("starts_per_commit", f64::from(devices) / calls);
    }
    value = value.with("fsync_ms", fsync_ms);
    let measured = Measured::new(value, server.settings);
    Ok(measured.and("devices", devices).and("under_way", UNDER_WAY))
}
