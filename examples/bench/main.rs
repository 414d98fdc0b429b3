//! Measures lastpong from outside, beside others, in one run.
//!
//! | file | holds |
//! | --- | --- |
//! | `rows` | what is measured, a file a row |
//! | `subjects` | who is measured: lastpong, and the peers |
//! | `load` | the devices, in a process of their own |
//! | `watch` | what is seen of lastpong: its answers, events, stream, record |
//! | `measure`, `clock`, `stats` | what the kernel knows; one clock for all processes; medians |
//! | `run`, `line` | rounds, and the measurements as JSON lines |
//! | `table`, `reach` | the table of them, and what they are to reach |
//! | `cores` | the rows that need no sockets, in this process |
//!
//! `scripts/bench` builds and runs all of it. Programs that are measured are gone with this one, however it ends.
//!
//! Exit codes: 0 all was measured, 1 something was not, 2 it was asked wrongly. What is not reached is no failure.

mod clock;
mod cores;
mod line;
mod load;
mod measure;
#[path = "../../tests/support/postgres.rs"]
mod postgres;
mod process;
mod reach;
#[path = "../../tests/support/redis.rs"]
mod redis_server;
mod rows;
mod run;
mod stats;
mod subjects;
mod table;
mod watch;
mod world;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Measures lastpong, and others beside it.
#[derive(Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure rows, with real sockets
    Run(run::Options),
    /// Measure lastpong's parts in this process
    Cores {
        /// Where the measurements go, a JSON object a line; they are added to what is there
        #[arg(long)]
        out: PathBuf,
    },
    /// Print the table of measurements
    Table {
        /// What `run` and `cores` wrote
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    #[command(hide = true)]
    Load(load::Options),
}

fn main() -> ExitCode {
    match carry_out(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Run(options) => {
            raise_open_files()?;
            run::run(options)
        }
        Command::Cores { out } => {
            let file = File::options().create(true).append(true).open(&out);
            cores::run(&mut file.with_context(|| out.display().to_string())?)?;
            Ok(true)
        }
        Command::Table { files } => {
            print!("{}", table::table(&read(&files)?));
            Ok(true)
        }
        Command::Load(options) => {
            raise_open_files()?;
            load::run(options)?;
            Ok(true)
        }
    }
}

fn read(files: &[PathBuf]) -> anyhow::Result<Vec<line::Line>> {
    let mut lines = Vec::new();
    for path in files {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        for (n, text) in BufReader::new(file).lines().enumerate() {
            let place = || format!("{}:{}", path.display(), n + 1);
            lines.push(serde_json::from_str(&text?).with_context(place)?);
        }
    }
    Ok(lines)
}

/// As far as this process may, for itself and for those that it starts: each session is an open file.
fn raise_open_files() -> anyhow::Result<()> {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).context("the limit of open files")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
