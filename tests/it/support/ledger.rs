//! The books: over all events of an installation in which no session is live, does everything add up?

use std::collections::HashMap;

use serde_json::Value;

use super::events::{CONNECTED, DISCONNECTED};
use super::fleet::Welcomed;

/// One session as the events tell it.
#[derive(Debug, Default)]
pub struct Story {
    pub device_id: String,
    pub start: Option<i64>,
    pub start_device_seq: Option<i64>,
    pub ends: Vec<i64>,
    pub reasons: Vec<String>,
}

/// Holds, over the whole log of an installation at rest:
/// - `device_seq` of every device is 1..n in the order of `seq`, starts and ends in turn;
/// - every session has one start and then one end;
/// - every device that was told welcome finds its session there, under the `device_seq` it was told.
pub fn check(events: &[Value], welcomed: &[Welcomed]) -> HashMap<String, Story> {
    let mut stories: HashMap<String, Story> = HashMap::new();
    let mut devices: HashMap<&str, (i64, Option<&str>)> = HashMap::new();
    for event in events {
        let data = &event["data"];
        let device = data["device_id"].as_str().expect("a device id");
        let session = data["session_id"].as_str().expect("a session id");
        let (seq, device_seq) = (data["seq"].as_i64().expect("a seq"), data["device_seq"].as_i64());
        let (last, open) = devices.entry(device).or_default();
        assert_eq!(device_seq, Some(*last + 1), "device_seq has a gap or a repeat: {event:#}");
        *last += 1;
        let story = stories.entry(session.to_owned()).or_default();
        device.clone_into(&mut story.device_id);
        match event["type"].as_str() {
            Some(CONNECTED) => {
                assert_eq!(*open, None, "a session started before the one it replaced ended: {event:#}");
                assert_eq!(story.start, None, "a session started twice: {event:#}");
                *open = Some(session);
                story.start = Some(seq);
                story.start_device_seq = device_seq;
            }
            Some(DISCONNECTED) => {
                assert_eq!(*open, Some(session), "an end without its start: {event:#}");
                *open = None;
                story.ends.push(seq);
                story.reasons.push(data["reason"].as_str().expect("a reason").to_owned());
            }
            _ => {}
        }
    }
    for (session, story) in &stories {
        assert!(story.start.is_some() && story.ends.len() == 1, "session {session} is not whole: {story:?}");
    }
    for told in welcomed {
        let story =
            stories.get(&told.session_id).unwrap_or_else(|| panic!("welcomed, yet unknown: {told:?}"));
        let kept = (story.device_id.as_str(), story.start_device_seq);
        assert_eq!(kept, (told.device_id.as_str(), Some(told.device_seq)), "{told:?}: {story:?}");
    }
    stories
}
