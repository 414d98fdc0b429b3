//! The whole story of what was broken: a second reading of the records for the few sessions that are told of.
//!
//! A line is when it was (as its writer's clock said; of the log, when the first subscriber got it), where it stands, and
//! the record itself. Told are the session's own dial and the device's others near it, the device's events near its own,
//! who saw which of them, what the operator did to it, and the faults that were open.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::Serialize;

use super::at::{At, SECOND};
use super::devices;
use super::log::What;
use super::records::{Records, Unreadable, each_line, files_in};
use super::told;
use super::verdict::{Findings, Violation};

/// Other dials and events of the device are told that lie so near.
const NEAR: i64 = 30 * SECOND;
/// Lines of one source in a story.
const MOST: usize = 40;

#[derive(Debug, Serialize)]
pub struct Story {
    pub violation: Violation,
    pub lines: Vec<StoryLine>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct StoryLine {
    pub at: Option<At>,
    pub from: String,
    pub text: String,
}

/// Tells what was kept of the findings, in their order.
pub fn tell(dir: &Path, records: &Records, findings: &mut Findings) -> Result<Vec<Story>, Unreadable> {
    let mut teller = Teller::new(records, std::mem::take(&mut findings.kept));
    teller.faults_and_acts();
    teller.devices(&dir.join("devices"))?;
    teller.log(&dir.join("log.jsonl"))?;
    teller.subscribers(&dir.join("subscribers"))?;
    let mut stories = teller.stories;
    for story in &mut stories {
        story.lines.sort();
        story.lines.dedup();
    }
    Ok(stories)
}

struct Teller<'a> {
    records: &'a Records,
    stories: Vec<Story>,
    /// From the first that is known of it to the last.
    spans: Vec<(At, At)>,
    /// Stories by connection, by line of the log, by seq.
    conns: HashMap<(u32, u64), Vec<usize>>,
    lines: HashMap<u32, Vec<usize>>,
    seqs: HashMap<i64, Vec<usize>>,
}

impl<'a> Teller<'a> {
    fn new(records: &'a Records, violations: Vec<Violation>) -> Self {
        let spans = violations.iter().map(|violation| span(records, violation)).collect();
        let stories =
            violations.into_iter().map(|violation| Story { violation, lines: Vec::new() }).collect();
        let (conns, lines, seqs) = Default::default();
        let mut teller = Self { records, stories, spans, conns, lines, seqs };
        teller.choose_conns();
        teller.choose_events();
        teller
    }

    fn choose_conns(&mut self) {
        for (number, story) in self.stories.iter().enumerate() {
            let (from, to) = self.spans[number];
            let device = story.violation.device.as_deref().and_then(|d| self.records.names.known(d));
            let dials = device.and_then(|d| self.records.dials.get(&d)).map_or(&[][..], |d| &d[..]);
            let own =
                story.violation.session.and_then(|s| self.records.sessions.find(s)).and_then(|s| s.conn);
            let near = dials.iter().copied().filter(|place| {
                let at = self.records.conns[*place].dial_at;
                at >= from.before(NEAR) && at <= to.after(NEAR)
            });
            for place in own.into_iter().chain(near).take(MOST) {
                let conn = &self.records.conns[place];
                self.conns.entry((conn.swarm, conn.number)).or_default().push(number);
            }
        }
    }

    fn choose_events(&mut self) {
        let mut by_device: HashMap<_, Vec<usize>> = HashMap::new();
        let mut sessions: HashMap<_, Vec<usize>> = HashMap::new();
        let mut asked: HashMap<i64, Vec<usize>> = HashMap::new();
        for (number, story) in self.stories.iter().enumerate() {
            if let Some(device) = story.violation.device.as_deref().and_then(|d| self.records.names.known(d))
            {
                by_device.entry(device).or_default().push(number);
            }
            if let Some(session) = story.violation.session {
                sessions.entry(session).or_default().push(number);
            }
            if let Some(seq) = story.violation.seq {
                asked.entry(seq).or_default().push(number);
            }
        }
        let mut told = vec![0; self.stories.len()];
        for event in &self.records.log.events {
            let session = told::session_of(event).map(|s| self.records.sessions.get(s).id);
            let own =
                session.and_then(|s| sessions.get(&s)).into_iter().chain(asked.get(&event.seq)).flatten();
            let mut whose: HashSet<usize> = own.copied().collect();
            for number in event.subject.and_then(|s| by_device.get(&s)).into_iter().flatten() {
                let (from, to) = self.spans[*number];
                let near = |at: At| at >= from.before(NEAR) && at <= to.after(NEAR);
                if told[*number] < MOST && event.seen_at.is_some_and(near) {
                    told[*number] += 1;
                    whose.insert(*number);
                }
            }
            for number in whose {
                self.lines.entry(event.line).or_default().push(number);
                self.seqs.entry(event.seq).or_default().push(number);
            }
        }
        // What is told of may not be in the log at all.
        for (seq, numbers) in asked {
            let stories = self.seqs.entry(seq).or_default();
            stories.extend(numbers);
            stories.sort_unstable();
            stories.dedup();
        }
    }

    fn say(&mut self, number: usize, at: Option<At>, from: &str, text: String) {
        self.stories[number].lines.push(StoryLine { at, from: from.to_owned(), text });
    }

    fn faults_and_acts(&mut self) {
        for number in 0..self.stories.len() {
            let (from, to) = self.spans[number];
            for fault in self.records.faults.open(from.before(NEAR), to).take(MOST) {
                let whom = fault.whom.join(", ");
                let ways: Vec<String> = fault.ways.iter().map(|(a, b)| format!("{a} to {b}")).collect();
                let what = format!("{} of {whom} {}", fault.kind.word(), ways.join(", "));
                self.say(number, Some(fault.begin), "fault", format!("{} begins: {what}", fault.number));
                if fault.end != At::NEVER {
                    self.say(number, Some(fault.end), "fault", format!("{} is over: {what}", fault.number));
                }
            }
            let session = self.stories[number].violation.session;
            for kick in self.records.kicks.iter().filter(|kick| Some(kick.session) == session) {
                self.say(number, Some(kick.at), "operator", "kick".into());
            }
        }
    }

    fn devices(&mut self, dir: &Path) -> Result<(), Unreadable> {
        let records = self.records;
        for (file, path) in files_in(dir)? {
            let Some(swarm) = records.swarms.iter().position(|s| s.file == file) else { continue };
            let swarm = u32::try_from(swarm).unwrap_or(u32::MAX);
            each_line(&path, |_, bytes| {
                let line: devices::Line = serde_json::from_slice(bytes)?;
                let devices::Stamp { at } = serde_json::from_slice(bytes)?;
                let conn = line.conn().and_then(|conn| self.conns.get(&(swarm, conn))).cloned();
                for number in conn.unwrap_or_default() {
                    self.say(number, Some(at), &file, shown(bytes));
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn log(&mut self, path: &Path) -> Result<(), Unreadable> {
        let seen: HashMap<u32, Option<At>> = self
            .records
            .log
            .events
            .iter()
            .filter(|event| self.lines.contains_key(&event.line))
            .map(|event| (event.line, event.seen_at))
            .collect();
        each_line(path, |line, bytes| {
            for number in self.lines.get(&line).cloned().unwrap_or_default() {
                self.say(number, seen[&line], "log", shown(bytes));
            }
            Ok(())
        })
    }

    fn subscribers(&mut self, dir: &Path) -> Result<(), Unreadable> {
        for (file, path) in files_in(dir)? {
            each_line(&path, |_, bytes| {
                let line: told::Line<'_> = serde_json::from_slice(bytes)?;
                let numbers = line.seq.and_then(|seq| self.seqs.get(&seq)).cloned().unwrap_or_default();
                for number in numbers {
                    let seq = line.seq.unwrap_or_default();
                    let what = format!("got seq {seq} {}", line.kind.as_deref().unwrap_or_default());
                    self.say(number, Some(line.at), &file, what);
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// From the first that is known of a violation's session to the last.
fn span(records: &Records, violation: &Violation) -> (At, At) {
    let session = violation.session.and_then(|session| records.sessions.find(session));
    let mut known: Vec<At> = violation.at.into_iter().collect();
    if let Some(session) = session {
        let conn = session.conn.map(|conn| &records.conns[conn]);
        known.extend(conn.map(|c| c.dial_at));
        known.extend(conn.and_then(|c| c.end).map(|end| end.at));
        for place in session.starts.iter().chain(&session.ends) {
            let event = &records.log.events[*place as usize];
            let connected = match event.what {
                What::Start { connected_at, .. } => Some(connected_at),
                _ => None,
            };
            known.extend(event.seen_at.or(connected));
        }
    }
    let first = known.iter().min().copied().or(records.run.began_at).unwrap_or(At(0));
    (first, known.iter().max().copied().unwrap_or(first))
}
