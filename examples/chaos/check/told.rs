//! P3, durable, then told: what each subscriber got, held against the log.
//!
//! - What anybody saw is in the log with the same id, type, subject and content. The log is read after everything was
//!   killed that was to be, so what was told before it was durable is missing there, or differs.
//! - Within one connection `seq` never falls. A repeat of the newest is allowed: at least once is what is promised.
//! - From the first connection's `after` to the log's end nothing is skipped, over any number of reconnects. Pub/sub
//!   is for those who need only now, and owes order and truth alone, and in calm time nearly all.
//! - A message is what its kind of subscription says: `bad` lines tell of those that are not.
//! - The stream is judged in `stream`, and what pub/sub owes in calm time in `lags`.
//!
//! Subscribers' records are many times the log, so they are judged line by line and not kept. Their owner keeps them whole:
//! the process that writes them is never killed.

use std::borrow::Cow;
use std::path::Path;

use serde::Deserialize;
use uuid::Uuid;

use super::at::{At, SECOND};
use super::faults::Faults;
use super::lags::Receipts;
use super::log::{Log, LogEvent, What};
use super::names::Names;
use super::records::{BadLine, Records, Setup, Unreadable, each_line, files_in};
use super::stream;
use super::verdict::{Findings, Promise, Violation};

/// So long after Redis was hurt the relay may publish anew what it cannot know to have been heard.
const RETELLING: i64 = 60 * SECOND;

/// A line of a subscriber's record.
#[derive(Deserialize)]
pub struct Line<'a> {
    pub at: At,
    #[serde(borrow)]
    pub is: Cow<'a, str>,
    pub after: Option<i64>,
    pub seq: Option<i64>,
    pub id: Option<Uuid>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub subject: Option<String>,
    pub sum: Option<String>,
    pub what: Option<String>,
}

pub fn judge(
    dir: &Path,
    records: &mut Records,
    findings: &mut Findings,
) -> Result<Vec<Receipts>, Unreadable> {
    let mut all = Vec::new();
    for (file, path) in files_in(&dir.join("subscribers"))? {
        let Records { log, names, sessions, faults, .. } = records;
        let mut watch = Watch {
            owes: !file.starts_with("pubsub"),
            file: &file,
            names,
            sessions,
            faults,
            findings,
            within: None,
            floor: None,
            opened: false,
            events: 0,
            first: vec![None; log.events.len()],
            opens: Vec::new(),
        };
        each_line(&path, |_, bytes| {
            let line: Line<'_> = serde_json::from_slice(bytes)?;
            watch.take(log, &line)
        })?;
        watch.finish(log);
        let Watch { events, owes, first, opens, .. } = watch;
        records.subscribers.push((file.clone(), events));
        all.push(Receipts { file, owes, first, opens });
    }
    if records.run.setup == Setup::Cluster {
        stream::judge(&dir.join("stream.jsonl"), records, findings)?;
    }
    Ok(all)
}

struct Watch<'a> {
    file: &'a str,
    /// It is to get everything.
    owes: bool,
    names: &'a Names,
    sessions: &'a super::log::Sessions,
    faults: &'a Faults,
    findings: &'a mut Findings,
    /// The newest in this connection.
    within: Option<i64>,
    /// Everything up to here was seen, or came before the first connection's `after`.
    floor: Option<i64>,
    opened: bool,
    events: u64,
    /// When it first got each, by its place in the log.
    first: Vec<Option<At>>,
    opens: Vec<(At, At)>,
}

impl Watch<'_> {
    fn take(&mut self, log: &mut Log, line: &Line<'_>) -> Result<(), BadLine> {
        match &*line.is {
            "open" => {
                // The first says where it begins; later ones cannot lift what is owed.
                if !self.opened {
                    self.floor = line.after;
                }
                (self.opened, self.within) = (true, None);
                self.closes(line.at);
                self.opens.push((line.at, At::NEVER));
            }
            "close" => self.closes(line.at),
            "bad" => self.bad(log, line),
            "event" if !self.opened => return Err(BadLine::Sense("an event before the first open".into())),
            "event" => {
                let seq = line.seq.ok_or_else(|| "the event has no seq".to_owned())?;
                let id = line.id.ok_or_else(|| "the event has no id".to_owned())?;
                self.event(log, line, seq, id);
            }
            other => return Err(BadLine::Sense(format!("{other:?} is nothing a subscriber does"))),
        }
        Ok(())
    }

    fn closes(&mut self, at: At) {
        if let Some((_, until)) = self.opens.last_mut() {
            *until = at.min(*until);
        }
    }

    /// A message that is not what its kind of subscription says.
    fn bad(&mut self, log: &Log, line: &Line<'_>) {
        let event = line.seq.and_then(|seq| log.place(seq)).map(|place| &log.events[place]);
        let what = line.what.as_deref().unwrap_or("a message that is none");
        let text = format!("{} got {what}", self.file);
        self.break_with("malformed", event, None, line.seq, line.at, text);
    }

    fn event(&mut self, log: &mut Log, line: &Line<'_>, seq: i64, id: Uuid) {
        self.findings.tried(Promise::P3);
        self.events += 1;
        let (at, subject) = (line.at, line.subject.as_deref());
        let Some(place) = log.place(seq) else {
            let device = line.subject.clone();
            let text = format!("{} got event {id}, which is not in the log", self.file);
            self.break_with("told, but not in the log", None, device, seq, at, text);
            return self.pass(log, seq, at);
        };
        self.first[place].get_or_insert(at);
        let event = &mut log.events[place];
        event.seen_at = Some(event.seen_at.map_or(at, |seen| seen.min(at)));
        let same_sum = line.sum.as_deref().and_then(|s| u64::from_str_radix(s, 16).ok()) == Some(event.sum);
        let same_kind = line.kind.as_deref() == Some(self.names.text(event.kind));
        let same_subject = subject == event.subject.map(|s| self.names.text(s));
        if id != event.id || !same_kind || !same_subject || !same_sum {
            let what =
                [(id == event.id, "id"), (same_kind, "type"), (same_subject, "subject"), (same_sum, "data")];
            let differs: Vec<_> = what.iter().filter(|(same, _)| !same).map(|(_, what)| *what).collect();
            let text = format!("{} got it with another {} than the log has", self.file, differs.join(", "));
            self.break_with("told otherwise than the log", Some(&log.events[place]), None, seq, at, text);
        }
        self.pass(log, seq, at);
    }

    /// The order: what came before it in this connection, and what is missing between.
    fn pass(&mut self, log: &Log, seq: i64, at: At) {
        let event = log.place(seq).map(|place| &log.events[place]);
        if let Some(before) = self.within.filter(|before| *before > seq)
            && (self.owes || !self.was_retold(at))
        {
            let text = format!("{} got seq {seq} after {before}", self.file);
            self.break_with("told out of order", event, None, seq, at, text);
        }
        self.within = Some(self.within.map_or(seq, |before| before.max(seq)));
        if let Some(floor) = self.floor.filter(|floor| self.owes && *floor < seq)
            && let Some(missing) = log.next_after(floor).filter(|missing| missing.seq < seq)
        {
            let text = format!("{} got seq {seq} next after {floor}", self.file);
            self.break_with("skipped", Some(missing), None, missing.seq, at, text);
        }
        self.floor = Some(self.floor.map_or(seq, |floor| floor.max(seq)));
    }

    fn was_retold(&self, at: At) -> bool {
        self.faults.open(at.before(RETELLING), at).any(|f| f.hits("redis") || f.ways.iter().any(of_redis))
    }

    fn finish(&mut self, log: &Log) {
        let missing = self.floor.filter(|_| self.owes).and_then(|floor| log.next_after(floor));
        if let (Some(missing), Some(floor)) = (missing, self.floor) {
            let text = format!("{} got nothing after seq {floor}, and the log goes on", self.file);
            let at = missing.seen_at.unwrap_or(At::NEVER);
            self.break_with("never told", Some(missing), None, missing.seq, at, text);
        }
    }

    fn break_with(
        &mut self,
        kind: &'static str,
        event: Option<&LogEvent>,
        device: Option<String>,
        seq: impl Into<Option<i64>>,
        at: At,
        text: String,
    ) {
        let device = device.or_else(|| event?.subject.map(|s| self.names.text(s).to_owned()));
        let session = event.and_then(session_of).map(|session| self.sessions.get(session).id);
        let at = Some(at).filter(|at| *at != At::NEVER);
        self.findings.broken(Violation {
            promise: Promise::P3,
            kind,
            session,
            device,
            seq: seq.into(),
            at,
            text,
        });
    }
}

fn of_redis(way: &(String, String)) -> bool {
    way.0 == "redis" || way.1 == "redis"
}

pub fn session_of(event: &LogEvent) -> Option<u32> {
    match event.what {
        What::Start { session, .. } | What::End { session, .. } => Some(session),
        What::Other => None,
    }
}
