//! Where it is shown: a terminal has colours and a bottom line of totals, a pipe has plain lines.
//!
//! Notes on the connection go to standard error, so that what is piped is events alone. Nothing is printed of what came
//! from elsewhere but text without control characters.

use std::io::{self, IsTerminal, Write};

use anstream::AutoStream;
use rustix::termios::tcgetwinsize;
use tokio::time::Instant;

use super::line::Event;
use super::totals::Totals;

/// Goes to the first column of the line, and erases it.
const ERASE: &str = "\r\x1b[2K";
/// Of a terminal that does not say.
const COLUMNS: usize = 80;

pub(super) struct Screen {
    out: AutoStream<io::Stdout>,
    json: bool,
    /// A bottom line is kept.
    terminal: bool,
    /// It is there now.
    drawn: bool,
}

impl Screen {
    pub(super) fn of_stdout(json: bool) -> Self {
        let terminal = io::stdout().is_terminal() && !json;
        Self { out: AutoStream::auto(io::stdout()), json, terminal, drawn: false }
    }

    pub(super) fn shows_totals(&self) -> bool {
        self.terminal
    }

    pub(super) fn event(&mut self, event: &Event, data: &str, totals: &Totals) -> io::Result<()> {
        self.erase()?;
        if self.json {
            // Line breaks and the like are only between the tokens of JSON.
            writeln!(self.out, "{}", data.replace(|c: char| c.is_control(), ""))?;
        } else {
            writeln!(self.out, "{}", event.line())?;
        }
        if self.terminal {
            return self.draw(totals);
        }
        self.out.flush()
    }

    /// Draws the bottom line.
    pub(super) fn draw(&mut self, totals: &Totals) -> io::Result<()> {
        if !self.terminal {
            return Ok(());
        }
        self.erase()?;
        // In the last column some terminals go on to the next line.
        let columns = tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_col.into());
        let width = if columns == 0 { COLUMNS } else { columns } - 1;
        write!(self.out, "{}", totals.line(width, Instant::now()))?;
        self.drawn = true;
        self.out.flush()
    }

    /// Says what became of the connection. A standard error that is gone cannot be told so.
    pub(super) fn note(&mut self, text: &str) {
        let _ = self.erase();
        let _ = self.out.flush();
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        let _ = writeln!(io::stderr(), "watch: {text}");
    }

    /// Leaves the terminal at the beginning of a line, with the totals above.
    pub(super) fn finish(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = writeln!(self.out);
        }
        let _ = self.out.flush();
    }

    fn erase(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.drawn) {
            // Past what takes the colours out where they are not wanted: this is none.
            self.out.as_inner().write_all(ERASE.as_bytes())?;
        }
        Ok(())
    }
}
