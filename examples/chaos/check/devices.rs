//! What the devices wrote of themselves: one [`Conn`] for each dial.
//!
//! A swarm that was killed leaves a file that just stops. Its connections have no end there, and what its devices did is
//! known until [`Swarm::gone_at`] only.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use uuid::Uuid;

use super::at::{At, SECOND};
use super::faults::{Faults, Kind};
use super::log::Sessions;
use super::names::{Name, Names};
use super::records::{BadLine, Unreadable, each_line, files_in};

/// The behaviour of those that end without a word on purpose.
const VANISHES: &str = "vanish";
/// Errors of a dial whose request never left.
const UNSENT: [&str; 4] = ["refused", "Connection timed out", "unreachable", "No route"];

/// One file of devices, written by one process.
#[derive(Debug)]
pub struct Swarm {
    /// The file's name without its extension.
    pub file: String,
    /// When it started, and its devices all came.
    pub began: At,
    /// The stalls of the process itself: until when, and for how many microseconds.
    pub lates: Vec<(At, i64)>,
    pub leaving: Option<At>,
    pub done: bool,
    pub last_at: At,
    /// When it was killed, where it did not come to its end.
    pub gone_at: Option<At>,
    /// A fault killed it.
    pub was_killed: bool,
}

impl Swarm {
    /// Whether a fault's name means this process: it may write `swarm-a`, and after a restart `swarm-a-1`.
    pub fn is(&self, name: &str) -> bool {
        self.file.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Reads on, answers no ping from now on.
    Silent,
    /// Stops reading.
    Deaf,
    Reset,
    Close,
    Bye,
    /// The end of the stream without a close frame.
    Vanish,
    /// A ping was left unanswered on purpose.
    Lose,
    /// It heard nothing for some pings' time, and took the connection for dead.
    GaveUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    CloseFrame,
    Eof,
    Reset,
    Error,
    #[serde(rename = "self")]
    Itself,
    Left,
}

#[derive(Debug, Clone, Copy)]
pub struct Welcome {
    pub at: At,
    pub session: u32,
    pub node: Name,
    pub device_seq: Option<i64>,
}

/// How a connection ended as its device saw it.
#[derive(Debug, Clone, Copy)]
pub struct ConnEnd {
    pub at: At,
    pub how: How,
    pub code: Option<u16>,
    pub pings: u64,
    pub pongs: u64,
    pub lost: u64,
    pub slowest: i64,
    pub owed_since: Option<At>,
    pub last_pong_at: Option<At>,
}

/// How a dial came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fell {
    /// No node took it, or one said no.
    Refused,
    /// It broke after it was sent: a node may have admitted it all the same.
    Midway,
}

#[derive(Debug)]
pub struct Conn {
    pub swarm: u32,
    pub number: u64,
    pub device: Name,
    pub dial_at: At,
    /// How it was to behave; empty where the record does not say.
    pub behaviour: Name,
    /// What came of the dial where it was not a welcome.
    pub fell: Option<(At, Fell)>,
    pub welcome: Option<Welcome>,
    pub deeds: Vec<(At, Deed)>,
    pub end: Option<ConnEnd>,
}

impl Conn {
    pub fn did(&self, deed: Deed) -> Option<At> {
        self.deeds.iter().find(|(_, d)| *d == deed).map(|(at, _)| *at)
    }

    /// A node may have made a session of it.
    pub fn may_have_reached(&self) -> bool {
        !matches!(self.fell, Some((_, Fell::Refused)))
    }
}

#[derive(Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Line {
    Swarm {},
    Dial {
        conn: u64,
        device: String,
        #[serde(default)]
        behaviour: String,
    },
    Refused {
        conn: u64,
    },
    Failed {
        conn: u64,
        #[serde(default)]
        error: String,
    },
    Welcome {
        conn: u64,
        device: String,
        session: Uuid,
        node: String,
        device_seq: Option<i64>,
    },
    Did {
        conn: u64,
        what: Deed,
    },
    End(EndLine),
    Late {
        ms: f64,
    },
    Leaving {},
    Done {},
}

#[derive(Deserialize)]
pub struct EndLine {
    conn: u64,
    how: How,
    code: Option<u16>,
    pings: u64,
    pongs: u64,
    lost: u64,
    slowest_us: i64,
    owed_since: Option<At>,
    last_pong_at: Option<At>,
}

#[derive(Deserialize)]
pub struct Stamp {
    pub at: At,
}

impl Line {
    /// The dial that it is about, where it is about one.
    pub fn conn(&self) -> Option<u64> {
        match self {
            Line::Dial { conn, .. } | Line::Refused { conn } | Line::Failed { conn, .. } => Some(*conn),
            Line::Welcome { conn, .. } | Line::Did { conn, .. } => Some(*conn),
            Line::End(end) => Some(end.conn),
            Line::Swarm {} | Line::Late { .. } | Line::Leaving {} | Line::Done {} => None,
        }
    }
}

pub fn read(
    dir: &Path,
    faults: &Faults,
    names: &mut Names,
    sessions: &mut Sessions,
) -> Result<(Vec<Swarm>, Vec<Conn>), Unreadable> {
    let mut swarms = Vec::new();
    let mut conns = Vec::new();
    for (file, path) in files_in(dir)? {
        let number = u32::try_from(swarms.len()).expect("fewer files than 2^32");
        let mut reader = Reader { number, names, sessions, conns: &mut conns, places: HashMap::new() };
        let mut swarm: Option<Swarm> = None;
        each_line(&path, |_, bytes| {
            let line: Line = serde_json::from_slice(bytes)?;
            let Stamp { at } = serde_json::from_slice(bytes)?;
            match (&mut swarm, line) {
                (None, Line::Swarm {}) => {
                    let file = file.clone();
                    swarm = Some(Swarm {
                        file,
                        began: at,
                        lates: Vec::new(),
                        leaving: None,
                        done: false,
                        last_at: at,
                        gone_at: None,
                        was_killed: false,
                    });
                    Ok(())
                }
                (None, _) => Err(BadLine::Sense("the first line is not the swarm's".into())),
                (Some(swarm), line) => reader.take(swarm, at, line).map_err(BadLine::Sense),
            }
        })?;
        // A process that was killed before its first line was whole has nothing to tell.
        let Some(mut swarm) = swarm else { continue };
        if !swarm.done {
            let killed_at = killed_at(&swarm, faults);
            swarm.was_killed = killed_at.is_some();
            swarm.gone_at = Some(killed_at.unwrap_or(swarm.last_at));
        }
        swarms.push(swarm);
    }
    Ok((swarms, conns))
}

/// When a fault ended this process: the first that did so after its last line, less what that line may be late by.
fn killed_at(swarm: &Swarm, faults: &Faults) -> Option<At> {
    let ends = |kind| matches!(kind, Kind::Drop | Kind::Kill);
    let kills = faults.all().iter().filter(|f| ends(f.kind) && f.whom.iter().any(|w| swarm.is(w)));
    kills.map(|f| f.begin).filter(|begin| *begin >= swarm.last_at.before(SECOND)).min()
}

struct Reader<'a> {
    number: u32,
    names: &'a mut Names,
    sessions: &'a mut Sessions,
    conns: &'a mut Vec<Conn>,
    places: HashMap<u64, usize>,
}

impl Reader<'_> {
    fn take(&mut self, swarm: &mut Swarm, at: At, line: Line) -> Result<(), String> {
        swarm.last_at = swarm.last_at.max(at);
        match line {
            Line::Swarm {} => return Err("a second swarm in one file".into()),
            Line::Dial { conn, device, behaviour } => return self.dial(at, conn, &device, &behaviour),
            Line::Refused { conn } => self.conn(conn)?.fell = Some((at, Fell::Refused)),
            Line::Failed { conn, error } => {
                let unsent = UNSENT.iter().any(|words| error.contains(words));
                let fell = if unsent { Fell::Refused } else { Fell::Midway };
                self.conn(conn)?.fell = Some((at, fell));
            }
            Line::Welcome { conn, device, session, node, device_seq } => {
                return self.welcome(at, conn, &device, session, &node, device_seq);
            }
            Line::Did { conn, what } => {
                let vanishes = self.names.of(VANISHES);
                let unsaid = self.names.of("");
                let conn = self.conn(conn)?;
                let as_meant = [vanishes, unsaid].contains(&conn.behaviour);
                // Of another kind it does so only when it hears nothing more.
                let what = if what == Deed::Vanish && !as_meant { Deed::GaveUp } else { what };
                // How often is in the end's line.
                if what != Deed::Lose || conn.did(Deed::Lose).is_none() {
                    conn.deeds.push((at, what));
                }
            }
            Line::End(end) => return self.end(at, end),
            Line::Late { ms } => swarm.lates.push((at, (ms * 1_000.0) as i64)),
            Line::Leaving {} => swarm.leaving = Some(at),
            Line::Done {} => swarm.done = true,
        }
        Ok(())
    }

    fn conn(&mut self, number: u64) -> Result<&mut Conn, String> {
        let place = self.places.get(&number).ok_or_else(|| format!("conn {number} was never dialled"))?;
        Ok(&mut self.conns[*place])
    }

    fn dial(&mut self, at: At, number: u64, device: &str, behaviour: &str) -> Result<(), String> {
        if self.places.insert(number, self.conns.len()).is_some() {
            return Err(format!("conn {number} was dialled before"));
        }
        self.conns.push(Conn {
            swarm: self.number,
            number,
            device: self.names.of(device),
            dial_at: at,
            behaviour: self.names.of(behaviour),
            fell: None,
            welcome: None,
            deeds: Vec::new(),
            end: None,
        });
        Ok(())
    }

    fn welcome(
        &mut self,
        at: At,
        number: u64,
        device: &str,
        session: Uuid,
        node: &str,
        device_seq: Option<i64>,
    ) -> Result<(), String> {
        let session = self.sessions.of(session);
        let (device, node) = (self.names.of(device), self.names.of(node));
        let place = *self.places.get(&number).ok_or_else(|| format!("conn {number} was never dialled"))?;
        let conn = &mut self.conns[place];
        if conn.device != device {
            return Err(format!("conn {number} was dialled for another device"));
        }
        if conn.welcome.replace(Welcome { at, session, node, device_seq }).is_some() {
            return Err(format!("conn {number} was welcomed before"));
        }
        self.sessions.welcomed(session, place);
        Ok(())
    }

    fn end(&mut self, at: At, line: EndLine) -> Result<(), String> {
        let conn = self.conn(line.conn)?;
        let end = ConnEnd {
            at,
            how: line.how,
            code: line.code,
            pings: line.pings,
            pongs: line.pongs,
            lost: line.lost,
            slowest: line.slowest_us,
            owed_since: line.owed_since,
            last_pong_at: line.last_pong_at,
        };
        if conn.end.replace(end).is_some() {
            return Err(format!("conn {} ended before", line.conn));
        }
        Ok(())
    }
}
