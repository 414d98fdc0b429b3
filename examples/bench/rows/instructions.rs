//! Row `instructions`: what a ping and its pong cost in instructions, counted by callgrind, which is the same on any
//! machine however busy.
//!
//! The program runs under valgrind and is counted twice for the same time: with nobody connected, and with devices. The
//! difference over the pongs is the figure, so that what it does anyhow is not in it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::Measured;
use crate::line::Figures;
use crate::process::find;
use crate::subjects::{Lastpong, Server, Subject, text};
use crate::world::World;

/// valgrind is some fifty times as slow as the machine.
const LONGER: u32 = 4;

pub fn measure(subject: Subject, world: &World) -> anyhow::Result<Measured> {
    let valgrind = find("valgrind").context("there is no valgrind")?;
    let valgrind = valgrind.display().to_string();
    let sessions = world.share(1, 75);
    let out = tempfile::TempDir::with_prefix("lastpong-bench-callgrind-")?;
    let file = format!("--callgrind-out-file={}/out", out.path().display());
    let under = [valgrind.as_str(), "--tool=callgrind", "--instr-atstart=no", "--separate-threads=no", &file];
    // Often, so that pings come in lots as they do where there are many sessions.
    let interval = world.interval / 4;
    let settings = [("PING_INTERVAL", text(interval))];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let lastpong = Lastpong::start_under(world, subject, &settings, &under)?;
    let server = Server::of(subject, lastpong, interval);

    let mut load = server.load()?;
    let (idle, idle_for, _) = counted(&server, &mut load, world, &out.path().join("out.1"))?;
    load.connect(sessions, 8)?;
    std::thread::sleep(world.settle + interval);
    let (busy, busy_for, pongs) = counted(&server, &mut load, world, &out.path().join("out.2"))?;
    ensure!(pongs > 0, "no ping was answered under valgrind");

    let anyhow_spent = idle / idle_for.as_secs_f64() * busy_for.as_secs_f64();
    let value = Figures::default()
        .with("per_pong", (busy - anyhow_spent) / pongs as f64)
        .with("per_pong_all_in", busy / pongs as f64)
        .with("idle_per_s", idle / idle_for.as_secs_f64())
        .with("pongs", pongs as f64);
    Ok(Measured::new(value, server.settings).and("sessions", sessions))
}

/// Counts for a while: instructions, for how long, and pongs meanwhile.
fn counted(
    server: &Server,
    load: &mut crate::load::Client,
    world: &World,
    file: &Path,
) -> anyhow::Result<(f64, Duration, u64)> {
    control(server.pid, "--instr=on")?;
    let (began, before) = (Instant::now(), load.stat()?.round_trips);
    std::thread::sleep(world.measured);
    let (took, after) = (began.elapsed(), load.stat()?.round_trips);
    control(server.pid, "--instr=off")?;
    control(server.pid, "--dump")?;
    let deadline = Instant::now() + world.measured * LONGER;
    loop {
        if let Some(total) = fs::read_to_string(file).ok().as_deref().and_then(total) {
            return Ok((total, took, after - before));
        }
        ensure!(Instant::now() < deadline, "callgrind wrote no {}", file.display());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn control(pid: u32, order: &str) -> anyhow::Result<()> {
    let output = Command::new("callgrind_control").args([order, &pid.to_string()]).output();
    let output = output.context("callgrind_control can not be run")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "callgrind_control {order}: {said}");
    Ok(())
}

/// The last line of a file of callgrind's.
fn total(text: &str) -> Option<f64> {
    text.lines().rev().find_map(|line| line.strip_prefix("totals: "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_total_is_the_last_line_and_no_other() {
        assert_eq!(super::total("events: Ir\nsummary: 7\nfn=(1)\n+3 4\ntotals: 1234\n"), Some(1234.0));
        assert_eq!(super::total("events: Ir\nsummary: 7\n"), None);
    }
}
