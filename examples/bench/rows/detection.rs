//! Row `detection`: how long after a connection's end, or after the deadline of a device that fell silent, the end record
//! is with a subscriber.

use std::time::Duration;

use super::{Measured, SEEN_WITHIN, UNDER_WAY, delays};
use crate::line::Figures;
use crate::load::{How, Order};
use crate::subjects::{Lastpong, Server, Subject, text};
use crate::watch::sse::Sse;
use crate::world::World;

const GAP: Duration = Duration::from_millis(10);
const PONG_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_MISSED: u32 = 2;

pub fn measure(subject: Subject, world: &World) -> anyhow::Result<Measured> {
    let settings = [
        ("PING_INTERVAL", text(world.interval)),
        ("PONG_TIMEOUT", text(PONG_TIMEOUT)),
        ("MAX_MISSED_PONGS", MAX_MISSED.to_string()),
    ];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let lastpong = Lastpong::start(world, subject, &settings)?;
    let server = Server::of(subject, lastpong, world.interval);
    let lastpong = server.lastpong()?;
    let (sessions, some) = (world.share(1, 3), world.share(1, 50));
    let mut load = server.load()?;
    let (devices, _) = load.connect(sessions, UNDER_WAY)?;
    let sse = Sse::subscribe(&lastpong.http, 1)?;
    std::thread::sleep(world.settle + world.interval);

    let (mut first, mut seen) = (devices.start, 0);
    let mut value = Figures::default();
    for (name, how) in [("close_", How::Close), ("reset_", How::Reset), ("vanish_", How::Vanish)] {
        let answer = load.leave(first..first + some, how, GAP)?;
        (first, seen) = (first + some, seen + some as usize);
        sse.seen.until(seen, SEEN_WITHIN)?;
        value = delays(value, name, &sse.seen.delays_ms(&answer.left)?);
    }
    let silent =
        load.ask(&Order::Silence { devices: first..first + some, within_s: SEEN_WITHIN.as_secs() })?;
    sse.seen.until(seen + some as usize, SEEN_WITHIN)?;
    let verdict_ms = (PONG_TIMEOUT * MAX_MISSED).as_secs_f64() * 1_000.0;
    let since_ping = sse.seen.delays_ms(&silent.left)?;
    // From the deadline: the pongs of the first ping that it did not answer, and of those after, were due then.
    let since_deadline: Vec<f64> = since_ping.iter().map(|delay| delay - verdict_ms).collect();
    value = delays(value, "silent_late_", &since_deadline);
    anyhow::ensure!(silent.lost == 0, "{} sessions that answered were lost", silent.lost);
    Ok(Measured::new(value, server.settings).and("sessions", sessions).and("of_each_kind", some))
}
