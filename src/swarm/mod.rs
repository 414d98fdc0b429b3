//! Simulated devices: load and faults for lastpong, with a report of what they saw.
//!
//! | file | holds |
//! | --- | --- |
//! | `options` | what is asked, and the plan that comes of it |
//! | `behaviour` | kinds of devices; chance, as a function of seed and device (pure) |
//! | `visit` | one connection of a device, from dial to end (pure) |
//! | `backoff` | whether and when a device comes back (pure) |
//! | `wire` | the handshake, frames and messages |
//! | `socket`, `timers` | the kernel's side; what is due when |
//! | `herd` | the loop that drives all devices of one process |
//! | `tale`, `record`, `tally`, `report` | what they saw: of a session, line by line, in counts, told at the end |
//! | `processes` | many processes as one swarm |
//!
//! - One thread per process, and well under 1 KB for each device: a server under test keeps the machine.
//! - A device answers before anything else is done, and what the swarm itself was late by is told.
//! - A swarm speaks to lastpong from outside only, and knows of it what the contract says.
//!
//! Left out on purpose: TLS, and devices that resume. `lastpong device` is a real device's client, this is not.

pub mod backoff;
pub mod behaviour;
mod herd;
pub mod options;
mod processes;
mod progress;
mod record;
pub mod report;
mod socket;
pub mod tale;
pub mod tally;
mod timers;
pub mod visit;
pub mod wire;

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use options::{BadOptions, Part, Plan, SwarmOptions};
use progress::Progress;
use report::Report;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use tally::{Pulse, Tally};

use crate::config::Settings;
use crate::token::DeviceTokens;

/// Files that a process needs beside its devices' sockets.
const OTHER_FILES: u64 = 64;

/// Why a swarm did not run to its report.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    #[error(transparent)]
    Options(#[from] BadOptions),
    #[error("the key of device tokens: {0}")]
    Key(io::Error),
    #[error("the swarm cannot go on: {0}")]
    Io(#[from] io::Error),
    #[error("process {index} of the swarm ended without its counts: {status}")]
    Part { index: usize, status: std::process::ExitStatus },
}

/// Runs a swarm to its end; `None` for one process of several, whose counts went to the first.
///
/// # Errors
/// Options that do not fit together, or what keeps a swarm from running.
pub fn run(options: &SwarmOptions, settings: &Settings) -> Result<Option<Report>, SwarmError> {
    let seed = options.seed.unwrap_or_else(rand::random);
    let files = raise_open_files()?;
    if let Some(part) = options.part {
        let plan = Plan::new(options, settings, seed, part)?;
        let told = processes::part_of_parent()?;
        let tally = run_herd(&plan, settings, |pulse| told.pulse(pulse))?;
        told.tally(&tally)?;
        return Ok(None);
    }
    let of = options.processes.unwrap_or_else(|| processes_for(options, files));
    let plan = Plan::new(options, settings, seed, Part { index: 0, of })?;
    let mut progress = Progress::new(options.quiet);
    let began = Instant::now();
    let tally = match of {
        1 => run_herd(&plan, settings, |pulse| progress.show(pulse))?,
        of => processes::run(of, seed, settings, |pulse| progress.show(pulse))?,
    };
    progress.end();
    Ok(Some(Report { tally, seed, devices: options.devices, processes: of, took: began.elapsed() }))
}

fn run_herd(plan: &Plan, settings: &Settings, on_pulse: impl FnMut(&Pulse)) -> Result<Tally, SwarmError> {
    let (key, _) = settings.token_secret().map_err(SwarmError::Key)?;
    let args: Vec<String> = std::env::args().skip(1).collect();
    let tokens = DeviceTokens::new(&key).for_audience(settings.token_audience.as_deref());
    let herd = herd::Herd::new(plan, tokens, signals()?, &args)?;
    Ok(herd.run(on_pulse)?)
}

/// Gets a byte for each SIGTERM and SIGINT.
fn signals() -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}

/// Raises the limit of open files as far as this process may; gives it.
fn raise_open_files() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

fn processes_for(options: &SwarmOptions, files: u64) -> u32 {
    let sockets = u64::from(options.devices) * options.mix.lines();
    let needed = sockets.div_ceil(files.saturating_sub(OTHER_FILES).max(1));
    u32::try_from(needed).unwrap_or(u32::MAX).min(options.devices)
}
