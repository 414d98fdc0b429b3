//! The most recent events, and where the feed stands.

use std::sync::Arc;

use askama::Template;

use super::Frame;
use super::words::{clock, count};
use crate::event::{Event, EventKind};
use crate::feed::Standing;
use crate::http::browser;
use crate::reason::Reason;

#[derive(Template)]
#[template(path = "events.html")]
struct Events {
    frame: Frame,
    fields: Vec<(String, String)>,
    kinds: Vec<&'static str>,
    reasons: Vec<&'static str>,
    total: String,
    newest: i64,
    subscribers: usize,
    lag: i64,
    /// Up to where the log was read for this page.
    scanned: i64,
    /// None where those that are shown are still the newest.
    events: Option<Vec<Told>>,
    next: Option<String>,
    first: Option<String>,
}

struct Told {
    seq: i64,
    at: String,
    kind: &'static str,
    class: &'static str,
    device: String,
    session: Option<String>,
    reason: &'static str,
    json: String,
}

impl Events {
    fn value(&self, name: &str) -> &str {
        self.fields.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.value(name) == value
    }
}

/// How much of the log there is, and how much of it was seen.
pub(in crate::http) struct LogPlace {
    pub total: i64,
    pub scanned: i64,
}

/// The page of events.
pub(in crate::http) fn events_page(
    frame: Frame,
    query: &str,
    events: Option<&[Arc<Event>]>,
    next_cursor: Option<&str>,
    place: LogPlace,
    feed: Standing,
) -> String {
    let fields: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
    let with = |cursor: Option<&str>| {
        let kept = fields.iter().filter(|(name, _)| !["cursor", "since"].contains(&name.as_str()));
        let mut all: Vec<(&str, &str)> = kept.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        all.extend(cursor.map(|cursor| ("cursor", cursor)));
        format!("/debug/events?{}", serde_urlencoded::to_string(all).unwrap_or_default())
    };
    let goes_on = fields.iter().any(|(name, _)| name == "cursor");
    let page = Events {
        frame,
        next: next_cursor.map(|cursor| with(Some(cursor))),
        first: goes_on.then(|| with(None)),
        kinds: EventKind::ALL.iter().map(|kind| kind.as_str()).collect(),
        reasons: Reason::ALL.iter().map(|reason| reason.as_str()).collect(),
        total: count(place.total.max(0).unsigned_abs()),
        scanned: place.scanned,
        newest: feed.newest,
        subscribers: feed.subscribers,
        lag: feed.slowest_lag,
        events: events.map(|events| events.iter().map(|event| told(event)).collect()),
        fields,
    };
    browser::written(&page)
}

fn told(event: &Event) -> Told {
    let whole = event.kind.as_str();
    let kind = whole.strip_prefix("lastpong.").and_then(|kind| kind.strip_suffix(".v1")).unwrap_or(whole);
    let class = match event.kind {
        EventKind::SessionConnected => "good",
        EventKind::SessionDisconnected => "",
        _ => "warn",
    };
    Told {
        seq: event.seq,
        at: clock(event.time),
        kind,
        class,
        device: event.device_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        session: event.session_id.map(|id| id.to_string()),
        reason: event.reason.map(|reason| reason.as_str()).unwrap_or_default(),
        json: event.json.to_string(),
    }
}
