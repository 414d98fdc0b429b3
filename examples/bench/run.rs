//! A run: rounds of rows of subjects, each measurement a line of its own as soon as it is there.
//!
//! Subjects take turns within each round, so that whatever else the machine does befalls all of them. What fails is told
//! and leaves its line out; the others are measured all the same.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use lastpong::config::units::parse_duration;

use crate::line::Line;
use crate::rows::Row;
use crate::subjects::Subject;
use crate::world::World;

#[derive(Debug, Args)]
pub struct Options {
    /// Which rows [default: all but nodes]
    #[arg(value_enum)]
    rows: Vec<Row>,
    /// The program that is measured
    #[arg(long)]
    lastpong: PathBuf,
    /// Another build of it, measured in turn with the first; the table tells it as `other`
    #[arg(long, value_name = "PROGRAM")]
    beside: Option<PathBuf>,
    /// The folder of the peers that are built from benches/peers
    #[arg(long, default_value = "target/peers/release")]
    peers: PathBuf,
    /// How often each is measured; medians are told
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// The most sessions of a row; the sizes of all rows follow from it
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(50..=18_000))]
    sessions: u32,
    /// lastpong alone
    #[arg(long)]
    no_peers: bool,
    /// Where the measurements go, a JSON object a line; they are added to what is there
    #[arg(long)]
    out: PathBuf,
    /// How long a flow is measured
    #[arg(long, default_value = "20s", value_parser = duration)]
    measured: Duration,
    /// How long a server is left alone before it is looked at
    #[arg(long, default_value = "5s", value_parser = duration)]
    settle: Duration,
    /// From one ping to the next, in rows that measure pings
    #[arg(long, default_value = "1s", value_parser = duration)]
    interval: Duration,
    /// Threads of each server that can be told
    #[arg(long, default_value_t = 2)]
    workers: u32,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|d| !d.is_zero())
        .ok_or_else(|| "allowed is a duration of 1ms or more, as 500ms, 20s or 1m".to_owned())
}

/// Gives whether all was measured.
///
/// # Errors
/// What keeps it from measuring anything.
pub fn run(options: Options) -> anyhow::Result<bool> {
    let rows = if options.rows.is_empty() { Row::usual() } else { options.rows };
    let world = World {
        lastpong: std::path::absolute(&options.lastpong)?,
        other: options.beside.as_ref().map(std::path::absolute).transpose()?,
        peers: std::path::absolute(&options.peers)?,
        workers: options.workers,
        sessions: options.sessions,
        measured: options.measured,
        settle: options.settle,
        interval: options.interval,
    };
    for program in std::iter::once(&world.lastpong).chain(&world.other) {
        anyhow::ensure!(program.is_file(), "there is no program {}", program.display());
    }
    let out = File::options().create(true).append(true).open(&options.out);
    let mut out = out.with_context(|| options.out.display().to_string())?;
    let wanted = |subject: &Subject| !options.no_peers || !Subject::PEERS.contains(subject);
    let mut plan: Vec<(Row, Subject)> = Vec::new();
    for row in rows {
        let mut subjects = row.subjects();
        if world.other.is_some() && row.is_of_programs() {
            subjects.insert(1, Subject::Other);
        }
        plan.extend(subjects.into_iter().filter(wanted).map(|subject| (row, subject)));
    }
    for (row, subject) in &plan {
        if let Some(missing) = subject.missing(&world) {
            eprintln!("bench: {}: {} is not here: {missing}", row.name(), subject.name());
        }
    }
    plan.retain(|(_, subject)| subject.missing(&world).is_none());

    let mut is_whole = true;
    for round in 1..=options.rounds as usize {
        for (row, subject) in &plan {
            let began = Instant::now();
            let name = format!("round {round} of {}: {} of {}", options.rounds, row.name(), subject.name());
            match row.measure(*subject, &world) {
                Ok(measured) => {
                    let (value, settings) = (measured.value, measured.settings);
                    let line =
                        Line { row: row.name(), subject: subject.name().into(), round, value, settings };
                    line.write(&mut out)?;
                    eprintln!("bench: {name}, in {:.0} s", began.elapsed().as_secs_f64());
                }
                Err(error) => {
                    is_whole = false;
                    eprintln!("bench: {name} was not measured: {error:#}");
                }
            }
        }
    }
    Ok(is_whole)
}
