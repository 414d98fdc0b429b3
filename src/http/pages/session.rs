//! One session: what is known of it, its heartbeats as a plot and a table, its socket, its events, and what its device held
//! before.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use askama::Template;

use super::Frame;
use super::words::{NONE, ago, clock, count, lasting, ms, some_ms, state};
use crate::event::{Event, RttMs};
use crate::http::debug::Known;
use crate::http::record::Record;
use crate::http::{browser, json};
use crate::supervisor::closeup::{CloseUp, Heartbeat, Heartbeats, Outcome, SocketStats};
use crate::supervisor::snapshot::{SessionView, Source};
use crate::time::Timestamp;

/// Heartbeats in the table; the plot has all.
const BEATS: usize = 20;

#[derive(Template)]
#[template(path = "session.html")]
struct Session {
    frame: Frame,
    id: String,
    device: String,
    /// Of an address: what its port belongs to may change.
    ip: String,
    state: (String, &'static str),
    live: bool,
    held_by: &'static str,
    facts: Vec<(&'static str, String)>,
    socket: Vec<(&'static str, String)>,
    /// As the plot reads it.
    beats_json: Option<String>,
    noted_since: String,
    beats: Vec<Beat>,
    events: Vec<Told>,
    before: Vec<Before>,
}

struct Beat {
    at: String,
    outcome: (&'static str, &'static str),
    rtt: String,
}

struct Told {
    seq: i64,
    at: String,
    kind: &'static str,
    json: String,
}

struct Before {
    id: String,
    state: String,
    connected: String,
    ended: String,
}

/// A session's page.
pub(in crate::http) fn session_page(
    frame: Frame,
    known: &Known,
    events: &[Arc<Event>],
    history: Vec<Record>,
) -> HttpResponse {
    let now = Timestamp::now();
    let mut page = match known {
        Known::Here(seen) => here(frame, seen, now),
        Known::Elsewhere(view) => of_view(frame, view, "as its node last wrote it to live state", now),
        Known::Record(record, beats) => {
            let page = of_record(frame, &Record::from((**record).clone()));
            beats.iter().fold(page, noted)
        }
    };
    page.events = events.iter().rev().map(|event| told(event)).collect();
    let others = history.iter().filter(|record| record.session_id.to_string() != page.id);
    page.before = others.map(before).collect();
    browser::page(StatusCode::OK, &page)
}

fn here(frame: Frame, seen: &CloseUp, now: Timestamp) -> Session {
    let page = of_view(frame, &seen.view, "by this node", now);
    Session { socket: seen.socket.as_ref().map(socket).unwrap_or_default(), ..noted(page, &seen.heartbeats) }
}

fn noted(page: Session, beats: &Heartbeats) -> Session {
    Session {
        beats_json: Some(json::text(&beats.items)),
        noted_since: beats.noted_since.map(clock).unwrap_or_default(),
        beats: beats.items.iter().rev().take(BEATS).map(beat).collect(),
        ..page
    }
}

fn of_view(frame: Frame, view: &SessionView, held_by: &'static str, now: Timestamp) -> Session {
    let (start, told) =
        (&view.start, |n: u32| if view.source == Source::Record { NONE.into() } else { n.to_string() });
    let (word, class) = state(view.state);
    let mut facts = vec![
        ("Session", view.session_id.to_string()),
        ("Device type", start.device_type.to_string()),
        ("Node", start.node_id.to_string()),
        ("Connected", format!("{} ({} ago)", start.connected_at, ago(start.connected_at, now))),
        ("Last pong", since(view.last_pong_at, now)),
        ("Last heard", since(Some(view.last_active_at), now)),
        ("Idle", lasting(view.idle_ms)),
        ("Round trips", rtt(&view.rtt_ms)),
        ("Pings sent", told(view.pings_sent)),
        ("Pongs received", told(view.pongs_received)),
        ("Missed in a row", told(view.missed)),
        ("Address", start.remote_addr.to_string()),
        ("device_seq of its start", view.device_seq.map_or_else(|| NONE.into(), |seq| seq.to_string())),
    ];
    facts.extend(start.trace_id.iter().map(|trace| ("Trace", trace.clone())));
    if !start.meta.is_empty() {
        let meta: Vec<String> = start.meta.iter().map(|(key, value)| format!("{key}={value}")).collect();
        facts.push(("Meta", meta.join(", ")));
    }
    Session {
        frame,
        id: view.session_id.to_string(),
        device: start.device_id.to_string(),
        ip: start.remote_addr.ip().to_canonical().to_string(),
        state: (word.to_owned(), class),
        live: true,
        held_by,
        facts,
        socket: Vec::new(),
        beats_json: None,
        noted_since: String::new(),
        beats: Vec::new(),
        events: Vec::new(),
        before: Vec::new(),
    }
}

fn of_record(frame: Frame, record: &Record) -> Session {
    let mut facts = vec![
        ("Session", record.session_id.to_string()),
        ("Device type", record.device_type.to_string()),
        ("Node", record.node_id.to_string()),
        ("Connected", record.connected_at.to_string()),
    ];
    if let Some(ended) = record.disconnected_at {
        facts.push(("Ended", format!("{ended} (after {})", ago(record.connected_at, ended))));
    }
    // What its end says beyond that, as it says it.
    let end: Option<serde_json::Map<String, serde_json::Value>> =
        record.end.as_ref().and_then(|end| serde_json::from_str(end.get()).ok());
    for (name, label) in [
        ("initiator", "Initiator"),
        ("detected_by", "Detected by"),
        ("close_code", "Close code"),
        ("detection_ms", "Detected after, ms"),
        ("last_pong_at", "Last pong"),
        ("last_active_at", "Last heard"),
        ("pings_sent", "Pings sent"),
        ("pongs_received", "Pongs received"),
        ("remote_addr", "Address"),
        ("trace_id", "Trace"),
    ] {
        match end.as_ref().and_then(|end| end.get(name)) {
            None | Some(serde_json::Value::Null) => {}
            Some(serde_json::Value::String(text)) => facts.push((label, text.clone())),
            Some(value) => facts.push((label, value.to_string())),
        }
    }
    let addr = end.as_ref().and_then(|end| end.get("remote_addr")?.as_str()?.parse::<SocketAddr>().ok());
    let live = record.disconnected_at.is_none();
    let reason = record.reason.map_or("active", |reason| reason.as_str()).to_owned();
    Session {
        frame,
        id: record.session_id.to_string(),
        device: record.device_id.to_string(),
        ip: addr.map(|addr| addr.ip().to_canonical().to_string()).unwrap_or_default(),
        state: (reason, if live { "good" } else { "" }),
        live,
        held_by: "as the record has it",
        facts,
        socket: Vec::new(),
        beats_json: None,
        noted_since: String::new(),
        beats: Vec::new(),
        events: Vec::new(),
        before: Vec::new(),
    }
}

fn since(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(|| NONE.to_owned(), |at| format!("{at} ({} ago)", ago(at, now)))
}

fn rtt(rtt: &RttMs) -> String {
    match rtt.last {
        None => NONE.to_owned(),
        Some(last) => format!(
            "last {} ms, least {}, mean {}, most {}",
            ms(last),
            some_ms(rtt.min),
            some_ms(rtt.avg),
            some_ms(rtt.max)
        ),
    }
}

fn socket(s: &SocketStats) -> Vec<(&'static str, String)> {
    let in_ms = |n: u32| lasting(f64::from(n));
    vec![
        ("Round trip of the kernel", format!("{} ms, varies by {}", ms(s.rtt_ms), ms(s.rtt_var_ms))),
        ("Sent again", format!("{} segments in all, {} times now", s.retransmits_total, s.retransmits_now)),
        ("Retransmit timeout", format!("{} ms", ms(s.retransmit_timeout_ms))),
        ("Not acknowledged", format!("{} segments, {} taken for lost", s.unacknowledged, s.lost)),
        ("Data received", in_ms(s.since_data_received_ms) + " ago"),
        ("Data sent", in_ms(s.since_data_sent_ms) + " ago"),
        ("Acknowledged", in_ms(s.since_ack_received_ms) + " ago"),
        (
            "Window, segment, path",
            format!("{} segments, {} bytes, {} bytes", s.congestion_window, s.segment_bytes, s.path_mtu),
        ),
        ("Output waiting here", format!("{} bytes", count(s.output_waiting_bytes as u64))),
    ]
}

fn beat(beat: &Heartbeat) -> Beat {
    let outcome = match beat.outcome {
        Outcome::Waiting => ("waiting", ""),
        Outcome::Answered => ("answered", "good"),
        Outcome::Missed => ("missed", "bad"),
        Outcome::Late => ("late", "warn"),
    };
    Beat {
        at: clock(beat.at),
        outcome,
        rtt: beat.rtt_ms.map_or_else(|| NONE.to_owned(), |rtt| ms(rtt) + " ms"),
    }
}

fn told(event: &Event) -> Told {
    Told { seq: event.seq, at: clock(event.time), kind: event.kind.as_str(), json: event.json.to_string() }
}

fn before(record: &Record) -> Before {
    Before {
        id: record.session_id.to_string(),
        state: record.reason.map_or_else(|| "live".to_owned(), |reason| reason.as_str().to_owned()),
        connected: clock(record.connected_at),
        ended: record.disconnected_at.map_or_else(|| NONE.to_owned(), clock),
    }
}
