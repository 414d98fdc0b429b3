//! The event log as it stands at the end, and the sessions that it and the devices speak of.
//!
//! Kept of an event: where it stands, who it is, the sum of its content, and of an end what a judgement needs. The rest is
//! read again for a story.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::at::At;
use super::names::{Name, Names};
use super::records::{BadLine, Unreadable, each_line};

const CONNECTED: &str = "lastpong.session.connected.v1";
const DISCONNECTED: &str = "lastpong.session.disconnected.v1";

#[derive(Debug)]
pub struct LogEvent {
    pub line: u32,
    pub seq: i64,
    pub device_seq: Option<i64>,
    pub id: Uuid,
    pub kind: Name,
    pub subject: Option<Name>,
    pub sum: u64,
    pub what: What,
    /// When the first subscriber got it.
    pub seen_at: Option<At>,
}

#[derive(Debug, Clone, Copy)]
pub enum What {
    Start {
        session: u32,
        node: Name,
        incarnation: Option<Name>,
        connected_at: At,
    },
    /// Of a session; the number is its place in [`Log::ends`].
    End {
        session: u32,
        end: u32,
    },
    Other,
}

/// What an end's event says.
#[derive(Debug, Clone)]
pub struct EndRecord {
    pub device: Name,
    pub node: Name,
    pub reason: Name,
    pub initiator: Name,
    pub detected_by: Name,
    pub close_code: Option<u16>,
    pub connected_at: At,
    pub last_pong_at: Option<At>,
    pub last_active_at: At,
    pub disconnected_at: At,
    pub pings_sent: Option<u64>,
    pub pongs_received: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Log {
    /// As they were given.
    pub events: Vec<LogEvent>,
    pub ends: Vec<EndRecord>,
    /// `seq` and place of each, by `seq`.
    order: Vec<(i64, u32)>,
}

impl Log {
    /// The place of the event with this `seq`; the first, where there are several.
    pub fn place(&self, seq: i64) -> Option<usize> {
        let at = self.order.partition_point(|(s, _)| *s < seq);
        self.order.get(at).filter(|(s, _)| *s == seq).map(|(_, place)| *place as usize)
    }

    /// The first event after `seq`, by `seq`.
    pub fn next_after(&self, seq: i64) -> Option<&LogEvent> {
        let at = self.order.partition_point(|(s, _)| *s <= seq);
        self.order.get(at).map(|(_, place)| &self.events[*place as usize])
    }
}

/// One session, from both sides.
#[derive(Debug)]
pub struct Session {
    pub id: Uuid,
    /// The dial that was welcomed with it; the first, where there were several.
    pub conn: Option<usize>,
    pub welcomes: u32,
    /// The places in the log of its starts and ends; mostly one each.
    pub starts: Vec<u32>,
    pub ends: Vec<u32>,
}

#[derive(Debug, Default)]
pub struct Sessions {
    known: HashMap<Uuid, u32>,
    all: Vec<Session>,
}

impl Sessions {
    pub fn of(&mut self, id: Uuid) -> u32 {
        *self.known.entry(id).or_insert_with(|| {
            self.all.push(Session { id, conn: None, welcomes: 0, starts: Vec::new(), ends: Vec::new() });
            u32::try_from(self.all.len() - 1).expect("fewer sessions than 2^32")
        })
    }

    pub fn welcomed(&mut self, session: u32, conn: usize) {
        let session = &mut self.all[session as usize];
        session.conn.get_or_insert(conn);
        session.welcomes += 1;
    }

    pub fn get(&self, session: u32) -> &Session {
        &self.all[session as usize]
    }

    pub fn find(&self, id: Uuid) -> Option<&Session> {
        self.known.get(&id).map(|session| self.get(*session))
    }

    pub fn all(&self) -> &[Session] {
        &self.all
    }
}

/// 64-bit FNV-1a of the canonical JSON (keys sorted, which `serde_json`'s map does).
pub fn sum(data: &Value) -> u64 {
    let mut sum: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in data.to_string().bytes() {
        sum = (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    sum
}

/// A CloudEvent as it stands in the log and in the stream.
#[derive(Deserialize)]
pub struct CloudEvent<'a> {
    pub id: Uuid,
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    pub subject: Option<String>,
    pub data: Value,
}

#[derive(Deserialize)]
struct StartData<'a> {
    session_id: Uuid,
    node_id: &'a str,
    incarnation: Option<&'a str>,
    connected_at: jiff::Timestamp,
}

#[derive(Deserialize)]
struct EndData<'a> {
    session_id: Uuid,
    device_id: &'a str,
    node_id: &'a str,
    reason: &'a str,
    initiator: &'a str,
    detected_by: &'a str,
    close_code: Option<u16>,
    connected_at: jiff::Timestamp,
    last_pong_at: Option<jiff::Timestamp>,
    last_active_at: jiff::Timestamp,
    disconnected_at: jiff::Timestamp,
    pings_sent: Option<u64>,
    pongs_received: Option<u64>,
}

pub fn read(path: &Path, names: &mut Names, sessions: &mut Sessions) -> Result<Log, Unreadable> {
    let mut log = Log::default();
    each_line(path, |line, bytes| {
        let event: CloudEvent<'_> = serde_json::from_slice(bytes)?;
        let place = u32::try_from(log.events.len()).expect("fewer events than 2^32");
        let what = match &*event.kind {
            CONNECTED => {
                let StartData { session_id, node_id, incarnation, connected_at } = part(&event.data)?;
                let incarnation = incarnation.map(|i| names.of(i));
                let session = sessions.of(session_id);
                sessions.all[session as usize].starts.push(place);
                let (node, connected_at) = (names.of(node_id), moment(connected_at));
                What::Start { session, node, incarnation, connected_at }
            }
            DISCONNECTED => {
                let data: EndData<'_> = part(&event.data)?;
                let session = sessions.of(data.session_id);
                sessions.all[session as usize].ends.push(place);
                let end = u32::try_from(log.ends.len()).expect("fewer ends than 2^32");
                log.ends.push(end_record(&data, names));
                What::End { session, end }
            }
            _ => What::Other,
        };
        let seq = event.data["seq"].as_i64().ok_or_else(|| "the event has no seq".to_owned())?;
        log.events.push(LogEvent {
            line,
            seq,
            device_seq: event.data["device_seq"].as_i64(),
            id: event.id,
            kind: names.of(&event.kind),
            subject: event.subject.as_deref().map(|s| names.of(s)),
            sum: sum(&event.data),
            what,
            seen_at: None,
        });
        Ok(())
    })?;
    log.order = log.events.iter().zip(0..).map(|(event, place)| (event.seq, place)).collect();
    log.order.sort();
    Ok(log)
}

/// What is wanted of an event's data. What the log lacks is no cut line: it stands in valid JSON.
fn part<'a, T: Deserialize<'a>>(data: &'a Value) -> Result<T, BadLine> {
    T::deserialize(data).map_err(|error| BadLine::Sense(error.to_string()))
}

fn moment(time: jiff::Timestamp) -> At {
    At(time.as_microsecond())
}

fn end_record(data: &EndData<'_>, names: &mut Names) -> EndRecord {
    EndRecord {
        device: names.of(data.device_id),
        node: names.of(data.node_id),
        reason: names.of(data.reason),
        initiator: names.of(data.initiator),
        detected_by: names.of(data.detected_by),
        close_code: data.close_code,
        connected_at: moment(data.connected_at),
        last_pong_at: data.last_pong_at.map(moment),
        last_active_at: moment(data.last_active_at),
        disconnected_at: moment(data.disconnected_at),
        pings_sent: data.pings_sent,
        pongs_received: data.pongs_received,
    }
}
