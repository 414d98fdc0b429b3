//! What the devices of one process saw, as JSON lines in a file.
//!
//! - A line is written whole, in one write with others of its turn of the loop, so that a process that is killed loses
//!   the last turn at most.
//! - `at` is in microseconds since the Unix epoch by the machine's clock.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;

use crate::ids::{DeviceId, SessionId};
use crate::time::Timestamp;

#[derive(Debug, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Line<'a> {
    /// The first.
    Swarm {
        pid: u32,
        devices: usize,
        seed: u64,
        args: &'a [String],
    },
    Dial {
        conn: u64,
        device: &'a DeviceId,
        to: SocketAddr,
        behaviour: &'a str,
    },
    /// Answered with another status than 101.
    Refused {
        conn: u64,
        status: u16,
        retry_after_s: Option<u64>,
    },
    /// Over before the welcome.
    Failed {
        conn: u64,
        error: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
    },
    Welcome {
        conn: u64,
        device: &'a DeviceId,
        session: SessionId,
        node: &'a str,
        device_seq: Option<i64>,
    },
    Did {
        conn: u64,
        session: SessionId,
        what: &'a str,
    },
    End(End<'a>),
    /// The swarm itself stood still for so long.
    Late {
        ms: u64,
    },
    Leaving,
    Done,
}

#[derive(Debug, Serialize)]
pub struct End<'a> {
    pub conn: u64,
    pub session: SessionId,
    pub how: &'a str,
    pub code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
    pub pings: u32,
    pub pongs: u32,
    pub lost: u32,
    pub slowest_us: u32,
    pub owed_since: Option<i64>,
    pub last_pong_at: Option<i64>,
    pub welcome_at: i64,
}

#[derive(Serialize)]
struct Entry<'a> {
    at: i64,
    #[serde(flatten)]
    line: Line<'a>,
}

pub struct Record {
    file: File,
    lines: Vec<u8>,
}

impl Record {
    /// Begins a new file; one of this name is lost.
    ///
    /// # Errors
    /// A file that cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::create(path)?, lines: Vec::new() })
    }

    pub fn add(&mut self, line: Line<'_>) {
        let entry = Entry { at: Timestamp::now().0, line };
        serde_json::to_writer(&mut self.lines, &entry).expect("a line is plain data, and memory takes it");
        self.lines.push(b'\n');
    }

    /// Writes the lines of this turn.
    ///
    /// # Errors
    /// A full disk, and what else may befall a file.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(&self.lines);
        self.lines.clear();
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_flat_object() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen.jsonl");
        let mut record = Record::create(&path).unwrap();
        let device = "swarm-1".parse().unwrap();
        record.add(Line::Dial {
            conn: 7,
            device: &device,
            to: "127.0.0.1:80".parse().unwrap(),
            behaviour: "late",
        });
        record.add(Line::Failed { conn: 7, error: "refused", code: None });
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "", "lines are written by the turn");
        record.flush().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0]["at"].as_i64().unwrap() > 1_600_000_000_000_000);
        assert_eq!((&lines[0]["is"], &lines[0]["to"]), (&"dial".into(), &"127.0.0.1:80".into()));
        assert_eq!((&lines[1]["is"], lines[1].get("code")), (&"failed".into(), None));
    }
}
