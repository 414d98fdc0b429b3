//! Row `nodes`: nodes side by side on one Postgres and one Redis, each with as many sessions as its process may hold
//! sockets for, until there are 100,000; then all are held.
//!
//! Bytes are those of whole processes by the sessions that they hold, so what a node needs by itself is in them.

use std::time::Duration;

use super::{Measured, UNDER_WAY};
use crate::line::Figures;
use crate::load::Client;
use crate::measure::{cpu, kernel_memory, memory};
use crate::subjects::lastpong::{Lastpong, Setup, Stores};
use crate::subjects::{Server, Subject, text};
use crate::world::World;

/// In all, where a node holds 15,000.
const SESSIONS: u32 = 100_000;
const NODES_OF_15_000: u32 = 7;

/// As lastpong's default.
const INTERVAL: Duration = Duration::from_secs(25);

/// Each node has some connections.
const CONNECTIONS: &str = "max_connections=400";

pub fn measure(world: &World) -> anyhow::Result<Measured> {
    let in_all = world.share(SESSIONS, 15_000);
    let (subject, kernel_before) = (Subject::Lastpong(Setup::Stores), kernel_memory()?);
    let stores = Stores::start(&[CONNECTIONS]);
    let mut nodes: Vec<(Server, Client)> = Vec::new();
    for n in 0..NODES_OF_15_000 {
        let name = format!("bench-{n}");
        let lastpong = Lastpong::start_node(world, &name, &stores, &[("PING_INTERVAL", &text(INTERVAL))])?;
        let server = Server::of(subject, lastpong, INTERVAL);
        let mut load = server.load_of(&name)?;
        let held = in_all * n / NODES_OF_15_000;
        load.connect(in_all * (n + 1) / NODES_OF_15_000 - held, UNDER_WAY)?;
        nodes.push((server, load));
    }
    std::thread::sleep(world.settle + INTERVAL);

    let before = sum(&mut nodes)?;
    std::thread::sleep(world.measured);
    let after = sum(&mut nodes)?;
    let kernel = kernel_memory()?;
    let spent = after.cpu - before.cpu;
    let round_trips = (after.round_trips - before.round_trips) as f64;
    let value = Figures::default()
        .with("sessions", f64::from(after.ready))
        .with("bytes_per_session", after.pss as f64 / f64::from(after.ready))
        .with("kernel_per_session", (kernel as f64 - kernel_before as f64) / f64::from(after.ready))
        .with("cpu_s_per_million", spent / round_trips * 1e6)
        .with("round_trips", round_trips)
        .with("false_ends", after.ends);
    let settings = nodes.swap_remove(0).0.settings;
    Ok(Measured::new(value, settings).and("nodes", NODES_OF_15_000).and("postgres_too", CONNECTIONS))
}

/// What all nodes and their devices came to so far.
#[derive(Debug, Default)]
struct Sum {
    ready: u32,
    round_trips: u64,
    cpu: f64,
    pss: u64,
    ends: f64,
}

fn sum(nodes: &mut [(Server, Client)]) -> anyhow::Result<Sum> {
    let mut sum = Sum::default();
    for (server, load) in nodes {
        let stat = load.stat()?;
        sum.ready += stat.ready;
        sum.round_trips += stat.round_trips;
        sum.cpu += cpu(server.pid)?.whole();
        sum.pss += memory(server.pid)?.pss;
        sum.ends += server.lastpong()?.metric("lastpong_disconnects_total")?;
    }
    Ok(sum)
}
