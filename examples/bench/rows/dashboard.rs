//! Row `dashboard`: what a dashboard that somebody looks at costs, and whether pings are later for it: windows with one
//! open and without take turns, and the difference is told.

use std::time::{Duration, Instant};

use super::{Measured, UNDER_WAY};
use crate::line::Figures;
use crate::measure::cpu;
use crate::stats::median;
use crate::subjects::{Server, Subject};
use crate::watch::sse::Sse;
use crate::world::World;

/// Windows of each kind.
const TURNS: usize = 3;

/// As lastpong's default.
const INTERVAL: Duration = Duration::from_secs(25);

pub fn measure(subject: Subject, world: &World) -> anyhow::Result<Measured> {
    let server = Server::start(subject, world, INTERVAL)?;
    let mut load = server.load()?;
    load.connect(world.sessions, UNDER_WAY)?;
    std::thread::sleep(world.settle + INTERVAL);

    let (mut shut, mut open) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        shut.push(Window::of(&server, world.measured)?);
        let stream = Sse::follow(&server.lastpong()?.http, "/debug/live", 1)?;
        let before = stream.delivered();
        open.push(Window::of(&server, world.measured)?);
        anyhow::ensure!(stream.delivered() > before, "a dashboard was told nothing in {:?}", world.measured);
    }
    let of = |windows: &[Window], figure: fn(&Window) -> f64| {
        median(&windows.iter().map(figure).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    };
    let core = |windows: &[Window]| of(windows, |window| window.core_percent);
    let value = Figures::default()
        .with("core_percent", core(&open) - core(&shut))
        .with("core_percent_without", core(&shut))
        .with("rtt_ms", of(&open, |window| window.rtt_ms))
        .with("rtt_ms_without", of(&shut, |window| window.rtt_ms))
        .with("stalls", open.iter().map(|window| window.stalls).sum())
        .with("stalls_without", shut.iter().map(|window| window.stalls).sum());
    Ok(Measured::new(value, server.settings).and("sessions", world.sessions))
}

struct Window {
    /// Processor time of lastpong, in hundredths of one core.
    core_percent: f64,
    /// Of the pings of this window, the mean.
    rtt_ms: f64,
    /// How often a worker's loop was late.
    stalls: f64,
}

impl Window {
    fn of(server: &Server, length: Duration) -> anyhow::Result<Self> {
        let lastpong = server.lastpong()?;
        let read = || {
            ["ping_rtt_seconds_sum", "ping_rtt_seconds_count", "loop_stall_seconds_count"]
                .map(|name| lastpong.metric(&format!("lastpong_{name}")))
                .into_iter()
                .collect::<anyhow::Result<Vec<f64>>>()
        };
        let (before, cpu_before, began) = (read()?, cpu(server.pid)?, Instant::now());
        std::thread::sleep(length);
        let spent = cpu(server.pid)?.since(cpu_before).whole();
        let seconds = began.elapsed().as_secs_f64();
        let more: Vec<f64> = read()?.iter().zip(before).map(|(after, before)| after - before).collect();
        Ok(Self {
            core_percent: spent / seconds * 100.0,
            rtt_ms: more[0] / more[1] * 1_000.0,
            stalls: more[2],
        })
    }
}
