//! The books: over all events of an installation, does everything add up?

use std::collections::HashMap;

use serde_json::Value;

use super::events::Events;
use super::events::{CONNECTED, DISCONNECTED, NODE_LOST};
use super::fleet::Welcomed;
use super::server::Server;

/// One session as the events tell it.
#[derive(Debug, Default)]
pub struct Story {
    pub device_id: String,
    pub node_id: String,
    pub incarnation: String,
    pub start_device_seq: Option<i64>,
    pub ends: Vec<i64>,
    pub reasons: Vec<String>,
    pub detected_by: Vec<String>,
}

/// All sessions by their id, and what else was said.
#[derive(Debug, Default)]
pub struct Books {
    pub stories: HashMap<String, Story>,
    /// The events of nodes that were lost, each with its incarnation.
    pub lost: Vec<Value>,
    /// Starts told while another session of the device was live. Only what journals told late may do that.
    pub overlaps: Vec<String>,
}

/// Holds, over the whole log of an installation, at rest or not:
/// - `seq` is 1, 2, 3, … without gap or repeat over all events, `device_seq` the same over those of each device;
/// - every session has one start, and at most one end, which comes after it.
pub fn audit(events: &[Value]) -> Books {
    let mut books = Books::default();
    let mut devices: HashMap<&str, (i64, Vec<&str>)> = HashMap::new();
    for (event, expected) in events.iter().zip(1..) {
        let data = &event["data"];
        assert_eq!(data["seq"], expected, "seq has a gap or a repeat: {event:#}");
        if event["type"] == NODE_LOST {
            assert!(data["device_seq"].is_null(), "a node is no device: {event:#}");
            books.lost.push(event.clone());
            continue;
        }
        let session = text(event, "session_id");
        let (last, open) = devices.entry(text(event, "device_id")).or_default();
        *last += 1;
        assert_eq!(data["device_seq"], *last, "device_seq has a gap or a repeat: {event:#}");
        match event["type"].as_str() {
            Some(CONNECTED) => {
                if !open.is_empty() {
                    books.overlaps.push(session.to_owned());
                }
                open.push(session);
                let known = books.stories.insert(session.to_owned(), Story::begin(event, *last));
                assert!(known.is_none(), "a session started twice: {event:#}");
            }
            Some(DISCONNECTED) => {
                let live = open.iter().position(|other| *other == session);
                open.remove(live.unwrap_or_else(|| panic!("an end of what was not live: {event:#}")));
                let story = books.stories.get_mut(session).expect("what is live has a story");
                story.ends.push(expected);
                story.reasons.push(text(event, "reason").to_owned());
                story.detected_by.push(text(event, "detected_by").to_owned());
            }
            _ => {}
        }
    }
    books
}

/// Holds, over the whole log of an installation at rest whose store was always there:
/// - all that [`audit`] does, and that of every device starts and ends come in turn;
/// - every session has ended;
/// - every device that was told welcome finds its session there, under the `device_seq` it was told.
pub fn check(events: &[Value], welcomed: &[Welcomed]) -> HashMap<String, Story> {
    let books = audit(events);
    books.in_turn();
    books.all_ended();
    books.tell_of(welcomed);
    books.stories
}

/// Waits until every session in the log has ended.
pub async fn all_rest(server: &Server, log: &mut Events) {
    log.pull(server).await;
    let all: Vec<_> = audit(&log.all).stories.into_keys().collect();
    log.until_ended(server, all).await;
}

impl Books {
    /// Holds that a replaced session's end always came before its successor's start.
    pub fn in_turn(&self) {
        assert!(self.overlaps.is_empty(), "started before another had ended: {:#?}", self.overlaps);
    }

    pub fn all_ended(&self) {
        for (session, story) in &self.stories {
            assert_eq!(story.ends.len(), 1, "session {session} is not whole: {story:?}");
        }
    }

    /// Holds that every session that was told welcome is there as it was told.
    pub fn tell_of(&self, welcomed: &[Welcomed]) {
        for told in welcomed {
            let story = self.of(&told.session_id);
            let kept = (&story.device_id, &story.node_id);
            assert_eq!(kept, (&told.device_id, &told.node_id), "{told:?}: {story:?}");
            let number = story.start_device_seq;
            assert!(told.device_seq.is_none() || told.device_seq == number, "{told:?}: {story:?}");
        }
    }

    /// # Panics
    /// When there is none.
    pub fn of(&self, session_id: &str) -> &Story {
        self.stories.get(session_id).unwrap_or_else(|| panic!("{session_id} was welcomed, yet is unknown"))
    }
}

impl Story {
    fn begin(event: &Value, device_seq: i64) -> Self {
        Self {
            device_id: text(event, "device_id").to_owned(),
            node_id: text(event, "node_id").to_owned(),
            incarnation: text(event, "incarnation").to_owned(),
            start_device_seq: Some(device_seq),
            ..Self::default()
        }
    }
}

fn text<'a>(event: &'a Value, name: &str) -> &'a str {
    event["data"][name].as_str().unwrap_or_else(|| panic!("no {name}: {event:#}"))
}
