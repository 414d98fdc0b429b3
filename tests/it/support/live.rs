//! What Redis says of an installation: its live state and its stream, read past the program.

use std::collections::HashSet;

use serde_json::Value;

use super::eventually;
use super::redis::{Redis, Reply};

const PAGE: &str = "1000";

/// Waits until live state is that of these sessions, each with its device, and of no other.
pub async fn settles_to(redis: &Redis, sessions: impl IntoIterator<Item = (String, String)>) {
    let wanted: HashSet<(String, String)> = sessions.into_iter().collect();
    let mut last = String::new();
    let settled = eventually_or(async || match read(redis) {
        Ok(found) if found == wanted => Some(()),
        Ok(found) => {
            let missing: Vec<_> = wanted.difference(&found).take(3).collect();
            let left_over: Vec<_> = found.difference(&wanted).take(3).collect();
            last = format!("{} live; missing {missing:?}, left over {left_over:?}", found.len());
            None
        }
        Err(wrong) => {
            last = wrong;
            None
        }
    });
    assert!(settled.await, "live state is not that of {} sessions: {last}", wanted.len());
}

/// Sessions and their devices, where all that is said of them agrees.
fn read(redis: &Redis) -> Result<HashSet<(String, String)>, String> {
    let active = redis.command(&["ZRANGE", "lastpong:active", "0", "-1"]);
    let keys = redis.command(&["KEYS", "lastpong:session:*"]).list().len();
    let mut found = HashSet::new();
    for ids in active.texts().chunks(500) {
        let sessions = get_all(redis, ids.iter().map(|id| format!("lastpong:session:{id}")));
        let mut devices = Vec::new();
        for (id, session) in ids.iter().zip(&sessions) {
            let session = match session {
                Reply::Text(text) => {
                    serde_json::from_str::<Value>(text).map_err(|e| format!("{e}: {text}"))?
                }
                other => return Err(format!("{id} is active and has no session: {other:?}")),
            };
            if session["session_id"] != *id {
                return Err(format!("the session of {id} is {session}"));
            }
            devices.push(session["device_id"].as_str().ok_or("a session without a device")?.to_owned());
        }
        let of_devices = get_all(redis, devices.iter().map(|device| format!("lastpong:device:{device}")));
        for ((id, device), of_device) in ids.iter().zip(devices).zip(&of_devices) {
            if *of_device != Reply::Text((*id).to_owned()) {
                return Err(format!("{id} is of {device}, whose session is {of_device:?}"));
            }
            found.insert(((*id).to_owned(), device));
        }
    }
    if keys != found.len() {
        return Err(format!("{} are active, and {keys} sessions are kept", found.len()));
    }
    Ok(found)
}

fn get_all(redis: &Redis, keys: impl Iterator<Item = String>) -> Vec<Reply> {
    let keys: Vec<String> = keys.collect();
    let words: Vec<&str> = ["MGET"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    redis.command(&words).list().to_vec()
}

/// Waits until the stream holds as many entries as the log, then holds that they are its events, each once and in order.
pub async fn stream_is(redis: &Redis, log: &[Value]) {
    let length = || redis.command(&["XLEN", "lastpong:events"]).int();
    eventually("the stream to hold all events", async || (length() >= log.len() as i64).then_some(())).await;
    let entries = stream(redis);
    for (entry, event) in entries.iter().zip(log) {
        assert_eq!(entry.id, format!("{}-0", event["data"]["seq"]), "the stream is out of step: {entry:?}");
        assert_eq!((&entry.kind, &entry.event_id), (&event["type"], &event["id"]), "{entry:?}");
        assert_eq!(entry.event, *event);
    }
    assert_eq!(entries.len(), log.len(), "the stream holds more than the log");
}

/// An entry of the stream.
#[derive(Debug)]
pub struct Entry {
    pub id: String,
    pub kind: Value,
    pub event_id: Value,
    pub event: Value,
}

/// The whole stream.
pub fn stream(redis: &Redis) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let from = entries.last().map_or("-".to_owned(), |entry| format!("({}", entry.id));
        let page = redis.command(&["XRANGE", "lastpong:events", &from, "+", "COUNT", PAGE]);
        if page.list().is_empty() {
            return entries;
        }
        entries.extend(page.list().iter().map(entry));
    }
}

fn entry(reply: &Reply) -> Entry {
    let [id, fields] = reply.list() else { panic!("not an entry: {reply:?}") };
    let fields = fields.texts();
    let field = |name: &str| {
        let mut pairs = fields.chunks(2).filter(|pair| pair[0] == name);
        pairs.next().unwrap_or_else(|| panic!("no {name} in {fields:?}"))[1]
    };
    let event = serde_json::from_str(field("event")).expect("an event is JSON");
    Entry { id: id.text().to_owned(), kind: field("type").into(), event_id: field("id").into(), event }
}

async fn eventually_or(condition: impl AsyncFnMut() -> Option<()>) -> bool {
    let deadline = std::time::Instant::now() + super::PATIENCE;
    let mut condition = condition;
    loop {
        if condition().await.is_some() {
            return true;
        }
        if std::time::Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
