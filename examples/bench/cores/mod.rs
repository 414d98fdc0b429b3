//! The rows that need no socket: lastpong's own parts in this process, with more sessions than a process may hold sockets.
//!
//! | row | what |
//! | --- | --- |
//! | `tick` | the roster and its wheel with a million sessions, in virtual time |
//! | `snapshot` | supervisors with a million sessions: memory, and the longest step of a snapshot |
//! | `connections` | `/debug/connections` over 100,000 sessions |
//!
//! What is called is what a serving node runs: rosters, wheels, supervisors, the inspector, the routes. What is not
//! there is sockets, their tasks, and the store; [`children`] says what stands for a session.

mod children;
mod connections;
mod lap;
mod node;
mod snapshot;
mod tick;

use std::io::Write;

use serde_json::{Map, Value, json};

use crate::line::Line;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Of the rows `tick` and `snapshot`.
    pub sessions: usize,
    /// Of the row `connections`.
    pub listed: usize,
    pub rounds: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self { sessions: 1_000_000, listed: 100_000, rounds: 5 }
    }
}

/// Measures every row at its full size, and writes a line for each round of each.
pub fn run(out: &mut dyn Write) -> anyhow::Result<()> {
    run_at(Size::default(), out)
}

pub fn run_at(size: Size, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut report = Report { out };
    tick::run(size, &mut report)?;
    actix::System::new().block_on(async {
        snapshot::run(size, &mut report).await?;
        connections::run(size, &mut report).await
    })
}

/// Where the figures go.
struct Report<'a> {
    out: &'a mut dyn Write,
}

impl Report<'_> {
    fn line(
        &mut self,
        row: &str,
        round: usize,
        sessions: usize,
        value: Map<String, Value>,
    ) -> anyhow::Result<()> {
        let settings = members(json!({"sessions": sessions}));
        let line = Line { row: row.into(), subject: "lastpong".into(), round, value, settings };
        line.write(self.out)
    }

    fn progress(&self, what: &str) {
        eprintln!("bench: {what}");
    }
}

fn members(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row comes in each round, with figures that something was measured for.
    #[test]
    fn every_row_has_its_figures() {
        let mut out = Vec::new();
        run_at(Size { sessions: 2_000, listed: 1_000, rounds: 1 }, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for (row, figures) in [
            ("tick", &["pings", "ticks_ms_per_40k", "pongs_ms_per_40k", "tick_longest_ms"][..]),
            ("snapshot", &["snapshot_ms", "longest_step_ms", "longest_step_of_ticks_ms"]),
            ("connections", &["p50_ms", "p99_ms", "back_to_back_p99_ms"]),
        ] {
            let line = lines.iter().find(|line| line["row"] == row);
            let line = line.unwrap_or_else(|| panic!("no row {row} in {text}"));
            for name in figures {
                assert!(line["value"][name].as_f64().is_some_and(|x| x > 0.0), "{name}: {line}");
            }
        }
    }
}
