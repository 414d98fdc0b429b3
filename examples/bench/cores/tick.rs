//! The row `tick`: what a second's pings cost a worker's supervisor, with a million sessions on one thread.
//!
//! In virtual time, so that a run takes as long as the work does: a million sessions are asked each 25 s, which is 40,000
//! a second. Each ping comes up twice in the wheel: when it is due, and when the deadline of its pong, which was met, lapses.

use std::sync::Arc;
use std::time::Duration;

use lastpong::ids::{Incarnation, Run};
use lastpong::metrics::Metrics;
use lastpong::supervisor::admission::{Admission, Limits};
use lastpong::supervisor::clock::{Attended, Clocks};
use lastpong::supervisor::roster::Roster;
use lastpong::time::Mono;
use serde_json::{Map, json};

use super::children::Devices;
use super::lap::{Lap, Stopwatch, ms, quantile_ms};
use super::{Report, Size};

/// As the supervisor ticks.
const TICK: Duration = Duration::from_millis(20);
const TICKS_A_SECOND: u32 = 50;
/// Virtual seconds of a round.
const SECONDS: u32 = 5;
/// What the figures are told for.
const PINGS: f64 = 40_000.0;

pub fn run(size: Size, report: &mut Report<'_>) -> anyhow::Result<()> {
    report.progress(&format!("tick: {} sessions on one roster", size.sessions));
    let mut worker = Worker::new(size.sessions)?;
    // Until each session was asked once, they are not spread as they will be.
    let settling = worker.devices.pace.ping_interval.as_secs() as u32 + SECONDS;
    worker.turn(settling * TICKS_A_SECOND);
    for round in 1..=size.rounds {
        let turned = worker.turn(SECONDS * TICKS_A_SECOND);
        report.line("tick", round, size.sessions, turned.figures())?;
    }
    Ok(())
}

struct Worker {
    devices: std::rc::Rc<Devices>,
    now: Mono,
    attended: Attended,
}

#[derive(Default)]
struct Turned {
    ticks: Lap,
    answers: Lap,
    each: Vec<Duration>,
    pings: usize,
}

impl Worker {
    fn new(sessions: usize) -> anyhow::Result<Self> {
        let limits = Limits::default();
        let now = Mono::now();
        let roster = Roster::new(0, Arc::new(Metrics::new()), Admission::new(limits, Arc::default()), now);
        let run = Run { node_id: "bench".parse()?, incarnation: Incarnation::new() };
        let devices = Devices::new(roster, run);
        let attended = Attended(0);
        for number in 0..sessions {
            devices.connect(number, Clocks { mono: now, attended })?;
        }
        devices.welcome_all(Clocks { mono: now, attended });
        Ok(Self { devices, now, attended })
    }

    /// So many ticks, each with the pongs to the pings of the one before.
    fn turn(&mut self, ticks: u32) -> Turned {
        let mut turned = Turned::default();
        for _ in 0..ticks {
            self.now = self.now + TICK;
            self.attended = self.attended + TICK;
            let watch = Stopwatch::start();
            turned.pings += self.devices.answer(Clocks { mono: self.now, attended: self.attended });
            turned.answers += watch.lap();
            let watch = Stopwatch::start();
            self.devices.roster.tick(self.now);
            let lap = watch.lap();
            turned.ticks += lap;
            turned.each.push(lap.cpu);
        }
        turned
    }
}

impl Turned {
    fn figures(&self) -> Map<String, serde_json::Value> {
        let per = PINGS / self.pings.max(1) as f64;
        let figures = json!({
            "pings": self.pings,
            "ticks_ms_per_40k": ms(self.ticks.cpu.mul_f64(per)),
            "ticks_wall_ms_per_40k": ms(self.ticks.wall.mul_f64(per)),
            "pongs_ms_per_40k": ms(self.answers.cpu.mul_f64(per)),
            "tick_p50_ms": quantile_ms(&self.each, 0.5),
            "tick_p99_ms": quantile_ms(&self.each, 0.99),
            "tick_longest_ms": quantile_ms(&self.each, 1.0),
        });
        super::members(figures)
    }
}
