//! Row `pings`: the server's processor time for a million pings that were answered. Mosquitto is pinged by its clients,
//! and answers.

use super::{Measured, UNDER_WAY};
use crate::line::Figures;
use crate::measure::cpu;
use crate::subjects::{Server, Subject};
use crate::world::World;

pub fn measure(subject: Subject, world: &World) -> anyhow::Result<Measured> {
    let sessions = world.share(1, 3);
    let server = Server::start(subject, world, world.interval)?;
    let mut load = server.load()?;
    load.connect(sessions, UNDER_WAY)?;
    // Longer than an interval, so that every session is in its beat.
    std::thread::sleep(world.settle + world.interval);

    let (before, cpu_before) = (load.stat()?, cpu(server.pid)?);
    std::thread::sleep(world.measured);
    let (after, cpu_after) = (load.stat()?, cpu(server.pid)?);
    anyhow::ensure!(after.lost == 0, "{} sessions that answered were lost", after.lost);

    let round_trips = (after.round_trips - before.round_trips) as f64;
    anyhow::ensure!(round_trips > 0.0, "no ping was answered in {:?}", world.measured);
    let spent = cpu_after.since(cpu_before);
    let seconds = (after.ended_us - before.ended_us) as f64 / 1e6;
    let per_million = |cpu: f64| cpu / round_trips * 1e6;
    let value = Figures::default()
        .with("cpu_s_per_million", per_million(spent.whole()))
        .with("user_s_per_million", per_million(spent.user))
        .with("system_s_per_million", per_million(spent.system))
        .with("round_trips", round_trips)
        .with("round_trips_per_s", round_trips / seconds);
    let measured = Measured::new(value, server.settings);
    Ok(measured.and("sessions", sessions).and("seconds", seconds.round()))
}
