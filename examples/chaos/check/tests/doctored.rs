//! For each promise, ways to break it in the records: that promise and no other is reported, with the session in its story.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::session::{Made, Record, at};
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

#[test]
fn p1_an_end_is_missing() {
    let files = log(|f| drop(f.log.remove(f.place("closes", "disconnected", 0))));
    expect(&files, Promise::P1, "no end", "closes");
}

#[test]
fn p1_a_session_that_was_never_welcomed_has_no_end() {
    let files = log(|f| drop(f.log.remove(f.place("never-welcomed", "disconnected", 0))));
    expect(&files, Promise::P1, "no end", "never-welcomed");
}

#[test]
fn p1_an_end_is_there_twice() {
    let files = log(|f| {
        let place = f.place("closes", "disconnected", 0);
        f.log.insert(place + 1, f.log[place].clone());
    });
    expect(&files, Promise::P1, "more than one end", "closes");
}

#[test]
fn p1_a_start_is_there_twice() {
    let files = log(|f| {
        let place = f.place("never-welcomed", "connected", 0);
        f.log.insert(place + 1, f.log[place].clone());
    });
    expect(&files, Promise::P1, "more than one start", "never-welcomed");
}

#[test]
fn p1_what_never_started_ends() {
    let files = log(|f| drop(f.log.remove(f.place("never-welcomed", "connected", 0))));
    expect(&files, Promise::P1, "end without a start", "never-welcomed");
}

#[test]
fn p1_a_welcome_without_a_start() {
    let files = log(|f| drop(f.log.remove(f.place("closes", "connected", 0))));
    expect(&files, Promise::P1, "welcomed, not on record", "closes");
}

#[test]
fn p1_a_welcome_that_the_log_knows_nothing_of() {
    let mut files = World::healthy().files();
    files.log.retain(|(_, event)| event["subject"] != "says-bye");
    files.number();
    files.tell();
    let verdict = judged(&files);
    assert_eq!(broken(&verdict), [(Promise::P1, "welcomed, not on record")]);
}

#[test]
fn p1_a_session_is_listed_that_has_ended() {
    let mut files = World::healthy().files();
    let session = World::healthy().find("closes").id;
    let item = json!({"at": at(490.0), "node": "node-1", "session_id": session, "device_id": "closes", "state": "live"});
    files.live.push(item);
    expect(&files, Promise::P1, "listed, not live", "closes");
}

#[test]
fn p1_a_live_session_is_not_listed() {
    let mut files = World::healthy().files();
    files.live.retain(|item| item["device_id"] != "stays-3");
    expect(&files, Promise::P1, "live, not listed", "stays-3");
}

#[test]
fn p2_a_gap_in_seq() {
    let mut files = World::healthy().files();
    let place = files.place("closes", "disconnected", 0);
    for (_, event) in &mut files.log[place..] {
        let seq = event["data"]["seq"].as_i64().unwrap();
        event["data"]["seq"] = json!(seq + 1);
    }
    files.tell();
    expect(&files, Promise::P2, "seq", "closes");
}

#[test]
fn p2_a_device_seq_is_there_twice() {
    expect(&said("closes", "disconnected", "device_seq", json!(1)), Promise::P2, "device_seq", "closes");
}

#[test]
fn p2_a_device_seq_is_missing() {
    let files = said("closes", "disconnected", "device_seq", json!(null));
    expect(&files, Promise::P2, "device_seq", "closes");
}

#[test]
fn p2_the_welcome_said_another_device_seq() {
    let mut files = World::healthy().files();
    let lines = files.devices.get_mut("swarm-a").unwrap();
    let welcome =
        lines.iter_mut().find(|line| line["is"] == "welcome" && line["device"] == "resets").unwrap();
    welcome["device_seq"] = json!(5);
    expect(&files, Promise::P2, "welcome's device_seq", "resets");
}

#[test]
fn p2_a_start_before_the_end_of_the_replaced() {
    let files = log(|f| {
        let (end, start) = (f.place("twice", "disconnected", 0), f.place("twice", "connected", 1));
        f.log.swap(end, start);
    });
    expect(&files, Promise::P2, "start before the last one's end", "twice");
}

#[test]
fn p2_an_end_before_its_start() {
    let files = log(|f| {
        let (start, end) = (f.place("resets", "connected", 0), f.place("resets", "disconnected", 0));
        f.log.swap(end, start);
    });
    expect(&files, Promise::P2, "end before its start", "resets");
}

#[test]
fn p3_an_event_is_shown_that_is_not_in_the_log() {
    let files = subscriber("sse-1", |lines| {
        let mut ghost = lines.iter().rfind(|line| line["is"] == "event").unwrap().clone();
        ghost["seq"] = json!(ghost["seq"].as_i64().unwrap() + 1);
        ghost["id"] = json!(uuid::Uuid::from_u128(9));
        ghost["subject"] = json!("stays-0");
        lines.push(ghost);
    });
    expect(&files, Promise::P3, "told, but not in the log", "stays-0");
}

#[test]
fn p3_one_is_skipped_after_a_reconnect() {
    for name in ["sse-1", "ws-1", "page-1", "stream-1"] {
        let mut device = String::new();
        let files = subscriber(name, |lines| {
            let opens: Vec<usize> = (0..lines.len()).filter(|n| lines[*n]["is"] == "open").collect();
            device = lines.remove(opens[2] + 1)["subject"].as_str().unwrap().to_owned();
        });
        expect(&files, Promise::P3, "skipped", &device);
    }
}

#[test]
fn p3_one_comes_back_after_what_it_did_not_see() {
    let mut device = String::new();
    let files = subscriber("ws-1", |lines| {
        let opens: Vec<usize> = (0..lines.len()).filter(|n| lines[*n]["is"] == "open").collect();
        let gone = lines.remove(opens[2] + 1);
        lines[opens[2]]["after"] = gone["seq"].clone();
        device = gone["subject"].as_str().unwrap().to_owned();
    });
    expect(&files, Promise::P3, "skipped", &device);
}

#[test]
fn p3_the_last_is_never_told() {
    let mut device = String::new();
    let files = subscriber("page-1", |lines| {
        let last = lines.iter().rposition(|line| line["is"] == "event").unwrap();
        device = lines.remove(last)["subject"].as_str().unwrap().to_owned();
    });
    expect(&files, Promise::P3, "never told", &device);
}

#[test]
fn p3_the_order_is_inverted() {
    for name in ["sse-1", "pubsub-1"] {
        let mut device = String::new();
        let files = subscriber(name, |lines| {
            lines.swap(4, 5);
            device = lines[5]["subject"].as_str().unwrap().to_owned();
        });
        expect(&files, Promise::P3, "told out of order", &device);
    }
}

#[test]
fn p3_the_content_differs() {
    for (key, value) in [
        ("sum", json!("0123456789abcdef")),
        ("id", json!(uuid::Uuid::from_u128(9))),
        ("type", json!("lastpong.session.resumed.v1")),
    ] {
        let mut device = String::new();
        let files = subscriber("pubsub-1", |lines| {
            lines[7][key] = value;
            device = lines[7]["subject"].as_str().unwrap().to_owned();
        });
        expect(&files, Promise::P3, "told otherwise than the log", &device);
    }
}

#[test]
fn p3_the_stream_is_not_the_log() {
    let stream = |edit: &dyn Fn(&mut Vec<Value>)| {
        let mut files = World::healthy().files();
        let device = |entry: &Value| entry["event"]["subject"].as_str().unwrap().to_owned();
        let (tenth, last) = (device(&files.stream[10]), device(files.stream.last().unwrap()));
        edit(&mut files.stream);
        (files, tenth, last)
    };
    let (files, tenth, _) = stream(&|s| drop(s.remove(10)));
    expect(&files, Promise::P3, "stream: hole", &tenth);
    let (files, _, last) = stream(&|s| drop(s.pop()));
    expect(&files, Promise::P3, "stream: ends early", &last);
    let (files, tenth, _) = stream(&|s| s[10]["entry"] = json!("11-1"));
    expect(&files, Promise::P3, "stream: wrong entry id", &tenth);
    let (files, tenth, _) = stream(&|s| s[10]["event"]["data"]["node_id"] = json!("node-9"));
    expect(&files, Promise::P3, "stream: not the log's", &tenth);
    let (files, tenth, _) = stream(&|s| s.swap(10, 11));
    expect(&files, Promise::P3, "stream: out of order", &tenth);
}

#[test]
fn p4_a_device_that_answers_is_timed_out() {
    let files = ended("node-1", 45.0, 50.0, "pong_timeout", "heartbeat", Some(4012));
    expect(&files, Promise::P4, "pong_timeout", "innocent");
}

#[test]
fn p4_a_socket_breaks_though_nothing_broke_it() {
    expect(&ended("node-1", 45.0, 50.0, "read_error", "socket", None), Promise::P4, "read_error", "innocent");
    expect(
        &ended("node-1", 45.0, 50.0, "ping_failed", "socket", None),
        Promise::P4,
        "ping_failed",
        "innocent",
    );
}

#[test]
fn p4_the_device_pays_for_a_store_that_is_away() {
    // Postgres stood still for all from 200 to 215, Redis was killed at 365.
    for (node, dial, end) in [("node-1", 195.0, 208.0), ("node-2", 195.0, 217.0), ("node-3", 355.0, 368.0)] {
        let files = ended(node, dial, end, "node_lost", "watchdog", Some(4000));
        expect(&files, Promise::P4, "node_lost", "innocent");
        let files = ended(node, dial, end, "pong_timeout", "heartbeat", Some(4012));
        expect(&files, Promise::P4, "pong_timeout", "innocent");
    }
}

#[test]
fn p4_the_device_pays_for_a_stall_a_load_or_a_clock() {
    // node-1 stood still from 140 to 143; all cores were busy from 360 to 364; node-2's clock was off from 320 to 330.
    for (node, dial, end) in [("node-1", 138.0, 143.2), ("node-3", 355.0, 363.0), ("node-2", 318.0, 326.0)] {
        let files = ended(node, dial, end, "pong_timeout", "heartbeat", Some(4012));
        expect(&files, Promise::P4, "pong_timeout", "innocent");
    }
    let files = ended("node-1", 138.0, 143.2, "node_lost", "peer_node", None);
    expect(&files, Promise::P4, "node_lost", "innocent");
}

#[test]
fn p4_the_network_of_another_node_was_cut() {
    let files = ended("node-2", 245.0, 254.0, "pong_timeout", "heartbeat", Some(4012));
    expect(&files, Promise::P4, "pong_timeout", "innocent");
    let files = ended("node-2", 275.0, 286.0, "node_lost", "peer_node", None);
    expect(&files, Promise::P4, "node_lost", "innocent");
}

#[test]
fn p4_it_ended_long_after_the_fault() {
    let files = ended("node-1", 245.0, 275.0, "pong_timeout", "heartbeat", Some(4012));
    expect(&files, Promise::P4, "pong_timeout", "innocent");
    // It came to the node after that was killed and was back.
    let files = ended("node-2", 86.0, 90.0, "node_lost", "peer_node", None);
    expect(&files, Promise::P4, "node_lost", "innocent");
}

#[test]
fn p4_an_internal_error_and_words_for_what_was_never_done() {
    for (reason, by, code) in [
        ("internal_error", "watchdog", 1011),
        ("token_expired", "watchdog", 4005),
        ("rate_limited", "socket", 4013),
        ("slow_consumer", "socket", 4008),
        ("client_closed", "close_frame", 1000),
    ] {
        expect(&ended("node-1", 45.0, 50.0, reason, by, Some(code)), Promise::P4, reason, "innocent");
    }
}

#[test]
fn p4_kicked_without_an_operator() {
    expect(&world(|world| world.kicks.clear()), Promise::P4, "kicked", "is-kicked");
}

#[test]
fn p4_draining_without_a_drain() {
    expect(&without_fault("drain", "node-1"), Promise::P4, "draining", "drained");
}

#[test]
fn p4_replaced_by_nobody() {
    let files = world(|world| {
        let second = world.made.iter().rposition(|made| made.device == "twice").unwrap();
        world.made.remove(second);
    });
    expect(&files, Promise::P4, "replaced", "twice");
}

#[test]
fn p4_lost_by_a_node_that_was_not() {
    expect(&without_fault("stop", "node-3"), Promise::P4, "node_lost", "stood-still");
    expect(&without_fault("kill", "node-2"), Promise::P4, "node_lost", "orphan");
}

#[test]
fn p4_and_p6_the_network_was_whole() {
    let verdict = judged(&without_fault("cut", "node-1"));
    assert_eq!(broken(&verdict), [(Promise::P4, "pong_timeout"), (Promise::P6, "reason")]);
    let devices: Vec<_> = verdict.stories.iter().map(|story| story.violation.device.as_deref()).collect();
    assert_eq!(devices, [Some("cut-off"), Some("closes-in-a-cut")]);
}

#[test]
fn p6_the_wrong_reason() {
    expect(&record("closes", "read_error", "socket", None), Promise::P6, "reason", "closes");
    expect(&record("says-bye", "ping_failed", "socket", None), Promise::P6, "reason", "says-bye");
    expect(&record("resets", "client_closed", "close_frame", None), Promise::P6, "reason", "resets");
    expect(&record("vanishes", "pong_timeout", "heartbeat", Some(4012)), Promise::P6, "reason", "vanishes");
    expect(&record("falls-silent", "read_error", "socket", None), Promise::P6, "reason", "falls-silent");
    expect(&record("goes-deaf", "read_error", "socket", None), Promise::P6, "reason", "goes-deaf");
    expect(&record("resets", "internal_error", "watchdog", Some(1011)), Promise::P6, "reason", "resets");
    expect(&record("closes", "tired", "socket", None), Promise::P6, "reason", "closes");
}

#[test]
fn p6_timed_out_before_its_deadline() {
    let files = world(|world| world.find("falls-silent").deeds = vec![(25.3, "silent")]);
    expect(&files, Promise::P6, "reason", "falls-silent");
    let files = world(|world| {
        let made = world.find("loses");
        (made.lost, made.owed_since) = (1, None);
    });
    expect(&files, Promise::P6, "reason", "loses");
}

#[test]
fn p6_a_session_without_a_welcome_is_said_to_be_kicked() {
    for (reason, by, code) in [("kicked", "operator", 4011), ("draining", "watchdog", 1001)] {
        expect(&record("never-welcomed", reason, by, Some(code)), Promise::P6, "reason", "never-welcomed");
    }
}

#[test]
fn p6_the_wrong_initiator_detection_or_code() {
    let ended = "disconnected";
    expect(&said("closes", ended, "initiator", json!("network")), Promise::P6, "initiator", "closes");
    expect(&said("resets", ended, "detected_by", json!("heartbeat")), Promise::P6, "detected_by", "resets");
    expect(&said("is-kicked", ended, "close_code", json!(4012)), Promise::P6, "close_code", "is-kicked");
    expect(&said("is-kicked", ended, "close_code", json!(null)), Promise::P6, "close_code", "is-kicked");
    expect(&said("resets", ended, "close_code", json!(1000)), Promise::P6, "close_code", "resets");
    expect(&said("closes", ended, "close_code", json!(1001)), Promise::P6, "close_code", "closes");
    expect(&said("closes", ended, "node_id", json!("node-2")), Promise::P6, "node", "closes");
}

#[test]
fn p6_the_device_was_told_another_code() {
    let told = |device: &str, code: u16| {
        world(|world| {
            let made = world.find(device);
            made.end = made.end.map(|(when, how, _)| (when, how, Some(code)));
        })
    };
    expect(&told("is-kicked", 4012), Promise::P6, "code told", "is-kicked");
    expect(&told("drained", 4000), Promise::P6, "code told", "drained");
    expect(&told("stood-still", 4509), Promise::P6, "code told", "stood-still");
    expect(&told("closes", 1001), Promise::P6, "code told", "closes");
}

#[test]
fn p6_times_that_cannot_be() {
    let ended = "disconnected";
    let time = |seconds: f64| json!(jiff::Timestamp::from_microsecond(at(seconds)).unwrap());
    expect(&said("closes", ended, "last_pong_at", time(20.5)), Promise::P6, "times", "closes");
    expect(&said("closes", ended, "last_active_at", time(9.0)), Promise::P6, "times", "closes");
    expect(&said("closes", ended, "connected_at", time(21.0)), Promise::P6, "times", "closes");
    expect(
        &said("falls-silent", ended, "last_pong_at", time(25.3)),
        Promise::P6,
        "last_pong_at",
        "falls-silent",
    );
    expect(
        &said("is-kicked", ended, "detected_by", json!("watchdog")),
        Promise::P6,
        "detected_by",
        "is-kicked",
    );
    expect(&said("closes", ended, "last_pong_at", time(14.0)), Promise::P6, "last_pong_at", "closes");
}

#[test]
fn p6_counts_that_cannot_be() {
    expect(&said("closes", "disconnected", "pongs_received", json!(6)), Promise::P6, "counts", "closes");
    expect(&said("closes", "disconnected", "pings_sent", json!(4)), Promise::P6, "counts", "closes");
}

#[test]
fn p5_a_late_record_fails_a_strict_run_only() {
    let files = world(|world| {
        let record = world.find("resets").record.as_mut().unwrap();
        record.told = record.decided + 0.3;
    });
    let verdict = judged(&files);
    assert!(verdict.held());
    assert!(verdict.to_string().contains("over"));
    assert!(!Verdict { strict: true, ..verdict }.held());
}

fn lacking(edit: impl FnOnce(&mut Files)) -> Verdict {
    let mut files = World::healthy().files();
    edit(&mut files);
    judged(&files)
}

#[test]
fn a_run_that_did_not_come_to_its_end_did_not_hold() {
    for key in ["quiet_at", "left_at", "ended_at"] {
        let verdict = lacking(|files| files.run[key] = json!(null));
        assert!(!verdict.held() && broken(&verdict).is_empty(), "{key}");
    }
    let verdict = lacking(|files| drop(files.faults.pop()));
    assert!(!verdict.held(), "a fault did not end");
    let verdict =
        lacking(|files| files.devices.get_mut("swarm-a").unwrap().retain(|line| line["is"] != "done"));
    assert!(!verdict.held(), "a swarm died by itself");
}

#[test]
fn what_was_not_tried_did_not_hold() {
    let files = world(|world| world.made.clear());
    let mut files = files;
    files.devices.insert(
        "swarm-a".into(),
        vec![json!({"at": at(1.0), "is": "swarm"}), json!({"at": at(2.0), "is": "done"})],
    );
    let verdict = judged(&files);
    assert!(broken(&verdict).is_empty() && !verdict.held());
    assert_eq!(verdict.to_string().matches("not tried").count(), 5);
}
