//! Reading the run folder. A file has one writer and a line is written whole, so that only the last line of a file whose
//! writer was killed may be cut; anything else that cannot be read is an error with the file's name and the line.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use uuid::Uuid;

use super::at::{At, SECOND, ms};
use super::devices::{self, Conn, Swarm};
use super::faults::{self, Fault, Faults};
use super::log::{self, Log, Sessions, What};
use super::names::{Name, Names};

#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("{} cannot be read", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{} line {line}: {why}", path.display())]
    Line { path: PathBuf, line: u32, why: String },
    #[error("{}: {why}", path.display())]
    File { path: PathBuf, why: String },
}

/// Why a line was not taken: where it is no JSON of the kind expected, it may be the cut last one.
#[derive(Debug)]
pub enum BadLine {
    Json(serde_json::Error),
    Sense(String),
}

impl From<serde_json::Error> for BadLine {
    fn from(error: serde_json::Error) -> Self {
        BadLine::Json(error)
    }
}

impl From<String> for BadLine {
    fn from(why: String) -> Self {
        BadLine::Sense(why)
    }
}

/// Gives each line with its number to `take`, holding one at a time.
pub fn each_line(
    path: &Path,
    mut take: impl FnMut(u32, &[u8]) -> Result<(), BadLine>,
) -> Result<(), Unreadable> {
    let io = |source| Unreadable::Io { path: path.to_owned(), source };
    let mut file = BufReader::with_capacity(1 << 18, File::open(path).map_err(io)?);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if file.read_until(b'\n', &mut bytes).map_err(io)? == 0 {
            break;
        }
        let whole = bytes.last() == Some(&b'\n');
        let why = match take(line, &bytes) {
            Ok(()) => continue,
            Err(BadLine::Json(_)) if !whole => break,
            Err(BadLine::Json(error)) => error.to_string(),
            Err(BadLine::Sense(why)) => why,
        };
        return Err(Unreadable::Line { path: path.to_owned(), line, why });
    }
    Ok(())
}

/// The `.jsonl` files of a folder by name, so that a run is always read in one order.
pub fn files_in(dir: &Path) -> Result<Vec<(String, PathBuf)>, Unreadable> {
    let io = |source| Unreadable::Io { path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            files.push((stem, path));
        }
    }
    if files.is_empty() {
        return Err(Unreadable::File { path: dir.to_owned(), why: "no records (*.jsonl) are here".into() });
    }
    files.sort();
    Ok(files)
}

/// What `run.json` says that a judgement needs.
#[derive(Debug, Clone, Deserialize)]
pub struct Run {
    #[serde(default)]
    pub seed: serde_json::Value,
    pub setup: Setup,
    pub nodes: Vec<String>,
    pub ping_interval_ms: u32,
    pub pong_timeout_ms: u32,
    pub max_missed_pongs: u32,
    pub lease_ms: u32,
    pub began_at: Option<At>,
    pub quiet_at: Option<At>,
    pub left_at: Option<At>,
    pub ended_at: Option<At>,
    /// All subscribers that there should be, where it says so.
    #[serde(default)]
    pub subscribers: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setup {
    Cluster,
    Embedded,
}

impl Run {
    pub fn pong_timeout(&self) -> i64 {
        ms(self.pong_timeout_ms)
    }

    pub fn lease(&self) -> i64 {
        ms(self.lease_ms)
    }

    /// From the first ping that a silent device leaves unanswered to its end.
    pub fn deadline(&self) -> i64 {
        self.pong_timeout().saturating_mul(i64::from(self.max_missed_pongs))
    }

    /// Longest time from a device's last sign to the decision that it is dead, on a network that works.
    pub fn patience(&self) -> i64 {
        self.deadline().saturating_add(ms(self.ping_interval_ms)).saturating_add(self.pong_timeout())
    }

    /// Longest time from a device's falling silent to its end, with much to spare.
    pub fn longest_silence(&self) -> i64 {
        self.deadline().saturating_add(ms(self.ping_interval_ms)).saturating_add(10 * SECOND)
    }

    /// After so long without a word a device gives up its connection.
    pub fn given_up_after(&self) -> i64 {
        ms(self.ping_interval_ms).saturating_mul(3).saturating_add(self.pong_timeout())
    }

    /// Within this everything that a fault delayed is done once it is gone: the lease of a process that is to
    /// notice, and the pauses between tries to reach what was away.
    pub fn settling(&self) -> i64 {
        self.lease().saturating_add(10 * SECOND)
    }
}

/// An operator's kick: as it was about to be asked for, and what came of it.
#[derive(Debug, Clone, Copy)]
pub struct Kick {
    pub at: At,
    pub session: Uuid,
    pub answer: Option<(At, u16)>,
}

/// A commit that took Postgres long, although it asked for next to nothing.
#[derive(Debug, Clone, Copy)]
pub struct Slow {
    pub from: At,
    pub to: At,
}

/// A session that a node listed as live at the quiet time.
#[derive(Debug, Clone)]
pub struct Live {
    pub at: At,
    pub session: Uuid,
    pub device: String,
}

/// All that is held in memory; what subscribers saw is judged as it is read (`told`).
#[derive(Debug)]
pub struct Records {
    pub run: Run,
    pub names: Names,
    pub swarms: Vec<Swarm>,
    pub conns: Vec<Conn>,
    /// The places in `conns` of each device's dials.
    pub dials: HashMap<Name, Vec<usize>>,
    pub faults: Faults,
    pub kicks: Vec<Kick>,
    pub slow: Vec<Slow>,
    pub log: Log,
    pub sessions: Sessions,
    pub live: Vec<Live>,
    /// Each subscriber's file, and how many events it got.
    pub subscribers: Vec<(String, u64)>,
    /// When each incarnation of a node was first known to be there; known once all that was told is read.
    pub incarnations: HashMap<(Name, Name), At>,
}

impl Records {
    pub fn read(dir: &Path) -> Result<Self, Unreadable> {
        let run = read_run(&dir.join("run.json"))?;
        let faults = faults::read(&dir.join("faults.jsonl"))?;
        let kicks = read_kicks(&dir.join("operator.jsonl"))?;
        let slow = read_slow(&dir.join("slow.jsonl"))?;
        let live = read_live(&dir.join("live.jsonl"))?;
        let mut names = Names::default();
        let mut sessions = Sessions::default();
        let (swarms, conns) = devices::read(&dir.join("devices"), &faults, &mut names, &mut sessions)?;
        let log = log::read(&dir.join("log.jsonl"), &mut names, &mut sessions)?;
        let mut dials: HashMap<Name, Vec<usize>> = HashMap::new();
        for (place, conn) in conns.iter().enumerate() {
            dials.entry(conn.device).or_default().push(place);
        }
        let (subscribers, incarnations) = Default::default();
        Ok(Self {
            run,
            names,
            swarms,
            conns,
            dials,
            faults,
            kicks,
            slow,
            log,
            sessions,
            live,
            subscribers,
            incarnations,
        })
    }

    /// Dates each incarnation by the first of its sessions: by its welcome, else as the start says or was told.
    pub fn date_incarnations(&mut self) {
        for event in &self.log.events {
            let What::Start { session, node, incarnation: Some(incarnation), connected_at } = event.what
            else {
                continue;
            };
            let conn = self.sessions.get(session).conn;
            let welcome = conn.and_then(|conn| self.conns[conn].welcome).map(|w| w.at);
            let at = welcome.unwrap_or_else(|| {
                let told = event.seen_at.unwrap_or(At::NEVER);
                let from = connected_at.min(told).before(60 * SECOND);
                let clock_was_set = self.faults.clock_was_set(&[self.names.text(node)], from, told);
                if clock_was_set { told } else { connected_at }
            });
            let first = self.incarnations.entry((node, incarnation)).or_insert(at);
            *first = at.min(*first);
        }
    }

    /// This fault could keep one of these nodes, these devices or what both need from what they do.
    pub fn concerns(&self, fault: &Fault, nodes: &[&str], swarm: Option<&Swarm>) -> bool {
        fault.concerns(|name| {
            matches!(name, "postgres" | "redis" | "devices")
                || nodes.contains(&name)
                || swarm.is_some_and(|swarm| swarm.is(name))
        })
    }

    /// Postgres took long between these two.
    pub fn was_slow(&self, from: At, to: At) -> bool {
        self.slow.iter().any(|slow| slow.from <= to && slow.to >= from)
    }

    /// The end of the time that the records speak of.
    pub fn finish(&self) -> At {
        let swarms = self.swarms.iter().map(|s| s.last_at);
        swarms.chain(self.run.ended_at).max().unwrap_or(At::NEVER)
    }
}

fn read_run(path: &Path) -> Result<Run, Unreadable> {
    let text = std::fs::read(path).map_err(|source| Unreadable::Io { path: path.to_owned(), source })?;
    serde_json::from_slice(&text)
        .map_err(|error| Unreadable::File { path: path.to_owned(), why: error.to_string() })
}

fn read_kicks(path: &Path) -> Result<Vec<Kick>, Unreadable> {
    #[derive(Deserialize)]
    #[serde(tag = "is", rename_all = "snake_case")]
    enum Line {
        Kick { at: At, session: Uuid, status: Option<u16> },
    }
    let mut kicks: Vec<Kick> = Vec::new();
    each_line(path, |_, bytes| {
        let Line::Kick { at, session, status } = serde_json::from_slice(bytes)?;
        let asked = kicks.iter_mut().rfind(|kick| kick.session == session && kick.answer.is_none());
        match (status, asked) {
            (Some(status), Some(kick)) => kick.answer = Some((at, status)),
            (status, _) => kicks.push(Kick { at, session, answer: status.map(|status| (at, status)) }),
        }
        Ok(())
    })?;
    Ok(kicks)
}

fn read_slow(path: &Path) -> Result<Vec<Slow>, Unreadable> {
    #[derive(Deserialize)]
    #[serde(tag = "is", rename_all = "snake_case")]
    enum Line {
        Slow { at: At, took_ms: u32 },
    }
    let mut slow = Vec::new();
    each_line(path, |_, bytes| {
        let Line::Slow { at, took_ms } = serde_json::from_slice(bytes)?;
        slow.push(Slow { from: at.before(ms(took_ms)), to: at });
        Ok(())
    })?;
    Ok(slow)
}

fn read_live(path: &Path) -> Result<Vec<Live>, Unreadable> {
    #[derive(Deserialize)]
    struct Line {
        at: At,
        session_id: Uuid,
        device_id: String,
    }
    let mut live = Vec::new();
    each_line(path, |_, bytes| {
        let Line { at, session_id, device_id } = serde_json::from_slice(bytes)?;
        live.push(Live { at, session: session_id, device: device_id });
        Ok(())
    })?;
    Ok(live)
}
