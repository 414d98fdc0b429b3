//! For each promise, ways to break it in the records: that promise and no other is reported, with the session in its story.

mod p1;
mod p2;
mod p3;
mod p4;
mod p5;
mod p6;
mod whole;

use std::collections::BTreeSet;

use serde_json::Value;

use super::session::Made;
use super::session::Record;
use super::world::{Files, World};
use super::{Promise, Verdict, broken, judged};

/// Of this run this promise alone is broken, in this way, and the story tells of the device and its session.
fn expect(files: &Files, promise: Promise, kind: &str, device: &str) {
    let verdict = judged(files);
    let shown = verdict.to_string();
    let promises: BTreeSet<Promise> = broken(&verdict).into_iter().map(|(promise, _)| promise).collect();
    assert_eq!(promises, BTreeSet::from([promise]), "{shown}");
    assert!(!verdict.held(), "{shown}");
    let story = verdict.stories.iter().find(|story| story.violation.kind == kind);
    let story = story.unwrap_or_else(|| panic!("no story of {kind}: {shown}"));
    assert_eq!(story.violation.device.as_deref(), Some(device), "{shown}");
    let sources: BTreeSet<&str> = story.lines.iter().map(|line| line.from.as_str()).collect();
    assert!(sources.len() > 2, "{sources:?} {shown}");
    if let Some(session) = story.violation.session {
        let told = story.lines.iter().any(|line| line.text.contains(&session.to_string()));
        assert!(told && shown.contains(&session.to_string()), "{shown}");
    }
}

fn world(edit: impl FnOnce(&mut World)) -> Files {
    let mut world = World::healthy();
    edit(&mut world);
    world.files()
}

/// The log is changed, and everybody was told of what it now says.
fn log(edit: impl FnOnce(&mut Files)) -> Files {
    let mut files = World::healthy().files();
    edit(&mut files);
    files.number();
    files.tell();
    files
}

/// What one event says is changed, and everybody was told so.
fn said(device: &str, kind: &str, key: &str, value: Value) -> Files {
    let mut files = World::healthy().files();
    let place = files.place(device, kind, 0);
    files.log[place].1["data"][key] = value;
    files.tell();
    files
}

/// Another end for a device's session, which otherwise did as before.
fn record(device: &str, reason: &'static str, by: &'static str, code: Option<u16>) -> Files {
    world(|world| rerecord(world, device, reason, by, code))
}

fn rerecord(world: &mut World, device: &str, reason: &'static str, by: &'static str, code: Option<u16>) {
    let made = world.find(device);
    let old = made.record.clone().unwrap();
    made.record = Some(Record { reason, by, code, ..old });
}

/// A device that answers, and whose session the server ends.
fn ended(
    node: &'static str,
    dial: f64,
    end: f64,
    reason: &'static str,
    by: &'static str,
    code: Option<u16>,
) -> Files {
    world(|world| {
        let how = if code.is_some() { "close_frame" } else { "eof" };
        let mut made =
            Made::new("innocent", node, dial).saw(end + 0.03, how, code).ends(reason, by, code, end);
        made.id = uuid::Uuid::from_u128(1);
        world.made.push(made);
    })
}

fn without_fault(kind: &str, whom: &str) -> Files {
    world(|world| {
        let is = |line: &Value| line["kind"] == kind && line["whom"][0] == whom;
        let number = world.faults.iter().find(|line| is(line)).unwrap()["fault"].clone();
        world.faults.retain(|line| line["fault"] != number);
    })
}

fn subscriber(name: &str, edit: impl FnOnce(&mut Vec<Value>)) -> Files {
    let mut files = World::healthy().files();
    edit(files.subscribers.get_mut(name).unwrap());
    files
}
