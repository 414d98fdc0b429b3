//! Breaks lastpong on purpose and checks that it keeps its promises.
//!
//! `run` sets up an installation with simulated devices and subscribers, brings about faults by a seeded schedule,
//! records what everyone saw and has that checked; `check` checks the records of an earlier run; `plan` prints a
//! schedule. The two halves share the records' format and nothing else.
//!
//! Exit codes: 0 all held, 1 a promise was broken or the run failed, 2 it was asked wrongly.

mod check;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Breaks lastpong on purpose and checks that it keeps its promises.
#[derive(Parser)]
#[command(name = "chaos")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set up, break, record, check; needs root
    Run {
        #[command(flatten)]
        run: run::Options,
        #[command(flatten)]
        check: check::Options,
    },
    /// Check the records of a run
    Check {
        /// Its folder
        dir: PathBuf,
        #[command(flatten)]
        check: check::Options,
    },
    /// Print a schedule, a fault a line, and do nothing
    Plan(run::Schedule),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { run, check } => carry_out(run, &check),
        Command::Check { dir, check } => verdict(&dir, &check),
        Command::Plan(schedule) => {
            let seed = schedule.seed.unwrap_or_else(rand::random);
            eprintln!("chaos: seed {seed}");
            for planned in schedule.plan(seed) {
                println!("{}", serde_json::json!(planned));
            }
            ExitCode::SUCCESS
        }
    }
}

fn carry_out(options: run::Options, check: &check::Options) -> ExitCode {
    let seed = options.schedule.seed.unwrap_or_else(rand::random);
    let outcome = match run::run(options, seed) {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            let was_asked_wrongly = error.is::<run::Refused>();
            return if was_asked_wrongly { ExitCode::from(2) } else { ExitCode::FAILURE };
        }
    };
    let verdict = verdict(&outcome.out, check);
    for trouble in &outcome.troubles {
        eprintln!("chaos: the run failed: {trouble}");
    }
    let held = outcome.troubles.is_empty() && verdict == ExitCode::SUCCESS;
    eprintln!("chaos: seed {seed}, records in {}", outcome.out.display());
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn verdict(dir: &Path, options: &check::Options) -> ExitCode {
    match check::check(dir, options) {
        Ok(verdict) => {
            match options.json {
                true => println!("{}", verdict.json()),
                false => print!("{verdict}"),
            }
            if verdict.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("chaos: {}: {error:#}", dir.display());
            ExitCode::FAILURE
        }
    }
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
