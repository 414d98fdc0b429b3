//! P3 of the Redis Stream as it stands at the end: it holds the log from its first entry to the log's end, each as `{seq}-0`,
//! and from the log's beginning where nobody emptied it.

use std::path::Path;

use serde::Deserialize;
use uuid::Uuid;

use super::explain::NEAR;
use super::faults::Kind;
use super::log::{CloudEvent, LogEvent, sum};
use super::records::{Records, Unreadable, each_line};
use super::told::session_of;
use super::verdict::{Findings, Promise, Violation};

#[derive(Deserialize)]
struct Entry<'a> {
    entry: String,
    #[serde(rename = "type")]
    kind: String,
    id: Uuid,
    #[serde(borrow)]
    event: CloudEvent<'a>,
}

pub fn judge(path: &Path, records: &Records, findings: &mut Findings) -> Result<(), Unreadable> {
    let log = &records.log;
    let (mut first, mut last): (Option<i64>, Option<i64>) = (None, None);
    let mut broken = |kind, event: Option<&LogEvent>, seq, text| {
        let device = event.and_then(|e| e.subject).map(|s| records.names.text(s).to_owned());
        let session = event.and_then(session_of).map(|session| records.sessions.get(session).id);
        let (promise, at) = (Promise::P3, event.and_then(|e| e.seen_at));
        findings.broken(Violation { promise, kind, session, device, seq: Some(seq), at, text });
    };
    let mut tried = 0_u64;
    each_line(path, |_, bytes| {
        let entry: Entry<'_> = serde_json::from_slice(bytes)?;
        tried += 1;
        let seq = entry.event.data["seq"].as_i64().ok_or_else(|| "the event has no seq".to_owned())?;
        let event = log.place(seq).map(|place| &log.events[place]);
        if entry.entry != format!("{seq}-0") {
            let text = format!("the stream has seq {seq} as entry {}", entry.entry);
            broken("stream: wrong entry id", event, seq, text);
        }
        let same = event.is_some_and(|e| {
            let kind = records.names.text(e.kind);
            (entry.id, &*entry.kind) == (e.id, kind)
                && (entry.event.id, &*entry.event.kind) == (e.id, kind)
                && sum(&entry.event.data) == e.sum
        });
        if !same {
            let text = format!("the stream's entry {} is not what the log has as seq {seq}", entry.entry);
            broken("stream: not the log's", event, seq, text);
        }
        if let Some(last) = last.filter(|last| *last >= seq) {
            broken("stream: out of order", event, seq, format!("the stream has seq {seq} after {last}"));
        }
        if let Some(last) = last.filter(|last| *last < seq)
            && let Some(missing) = log.next_after(last).filter(|missing| missing.seq < seq)
        {
            let text = format!("the stream has no entry between seq {last} and {seq}");
            broken("stream: hole", Some(missing), missing.seq, text);
        }
        first.get_or_insert(seq);
        last = Some(last.map_or(seq, |last| last.max(seq)));
        Ok(())
    })?;
    if let Some(missing) = log.next_after(last.unwrap_or(i64::MIN)) {
        broken("stream: ends early", Some(missing), missing.seq, format!("the stream ends after {last:?}"));
    }
    let owed = log.next_after(begins_after(records));
    if let Some(missing) = owed.filter(|owed| first.is_some_and(|first| first > owed.seq)) {
        let text = format!("the stream begins with {first:?}, and nobody emptied it after that");
        broken("stream: begins late", Some(missing), missing.seq, text);
    }
    for _ in 0..tried {
        findings.tried(Promise::P3);
    }
    Ok(())
}

/// What the stream may lack at its beginning: all that was told when Redis was emptied for the last time. It keeps the rest
/// through anything else, for it runs with its own log on disk.
fn begins_after(records: &Records) -> i64 {
    let emptied = records.faults.of(Kind::Emptied, "redis").map(|f| f.end).max();
    let Some(emptied) = emptied else { return 0 };
    let told =
        records.log.events.iter().filter(|e| e.seen_at.is_some_and(|seen| seen <= emptied.after(NEAR)));
    told.map(|event| event.seq).max().unwrap_or(0)
}
