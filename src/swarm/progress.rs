//! How a swarm is doing, on stderr: one line that is rewritten each second on a terminal, else a line each 5 s.
//!
//! A stderr that is gone cannot be told so: nothing here fails.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::tally::Pulse;

/// Between two lines where there is no terminal; a little less, for pulses come each second and not on the dot.
const PLAIN: Duration = Duration::from_millis(4_900);

pub struct Progress {
    quiet: bool,
    terminal: bool,
    told_at: Instant,
    /// At the last line.
    pongs: u64,
}

impl Progress {
    pub fn new(quiet: bool) -> Self {
        Self { quiet, terminal: io::stderr().is_terminal(), told_at: Instant::now(), pongs: 0 }
    }

    pub fn show(&mut self, pulse: &Pulse) {
        let passed = self.told_at.elapsed();
        if self.quiet || (!self.terminal && passed < PLAIN) {
            return;
        }
        let rate = pulse.pongs.saturating_sub(self.pongs) as f64 / passed.as_secs_f64().max(0.001);
        (self.told_at, self.pongs) = (Instant::now(), pulse.pongs);
        let text = line(pulse, rate);
        let mut err = io::stderr().lock();
        let _ = match self.terminal {
            true => write!(err, "\r{text}\x1b[K").and_then(|()| err.flush()),
            false => writeln!(err, "{text}"),
        };
    }

    /// Leaves the line that was rewritten.
    pub fn end(&self) {
        if self.terminal && !self.quiet {
            let _ = writeln!(io::stderr());
        }
    }
}

fn line(p: &Pulse, rate: f64) -> String {
    let ends: Vec<_> = p.ends.iter().map(|(how, n)| format!("{how} {n}")).collect();
    let ends = if ends.is_empty() { "none".to_owned() } else { ends.join(", ") };
    format!(
        "live {}  dialling {}  welcomed {}  refused {}  failed {}  ended: {ends}  unexpected {}  answered {rate:.0} pings/s",
        p.live, p.dialling, p.welcomed, p.refused, p.failed, p.unexpected,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_one_watches() {
        let mut pulse = Pulse { live: 7, refused: 2, ..Pulse::default() };
        pulse.ends.insert("eof".into(), 3);
        let line = line(&pulse, 41.6);
        for part in ["live 7", "refused 2", "eof 3", "42 pings/s"] {
            assert!(line.contains(part), "{line}");
        }
    }
}
