//! Durable, then told.

use serde_json::{Value, json};

use super::super::session::at;
use super::{Promise, World, broken, expect, judged, subscriber, world};

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
fn p3_a_message_is_malformed() {
    for seq in [json!(30), json!(null)] {
        let files = subscriber("sse-1", |lines| {
            let place = lines.len();
            lines.insert(place, json!({"at": at(400.0), "is": "bad", "seq": seq, "what": "id: 9"}));
        });
        let verdict = judged(&files);
        assert_eq!(broken(&verdict), [(Promise::P3, "malformed")], "{verdict}");
        assert!(verdict.to_string().contains("sse-1 got id: 9"));
    }
}

#[test]
fn p3_pubsub_says_nothing_though_all_is_well() {
    let mut device = None;
    let files = subscriber("pubsub-1", |lines| {
        lines.retain(|line| {
            let calm = (at(10.0)..at(30.0)).contains(&line["at"].as_i64().unwrap()) && line["is"] == "event";
            if calm && device.is_none() {
                device = line["subject"].as_str().map(str::to_owned);
            }
            !calm
        });
    });
    expect(&files, Promise::P3, "pub/sub: missing", &device.unwrap());
}

#[test]
fn p3_the_stream_lost_its_beginning() {
    let lost = |until: f64, edit: &dyn Fn(&mut World)| {
        let mut files = world(|world| edit(world));
        let n = files.log.iter().filter(|(told, _)| *told < until).count();
        files.stream.drain(..n);
        judged(&files)
    };
    let never = |world: &mut World| {
        let emptied = world.faults.iter().find(|line| line["kind"] == "emptied").unwrap()["fault"].clone();
        world.faults.retain(|line| line["fault"] != emptied);
    };
    assert_eq!(broken(&lost(20.0, &never)), [(Promise::P3, "stream: begins late")]);
    let verdict = lost(345.0, &|_| {});
    assert!(verdict.held(), "Redis was emptied then: {verdict}");
    assert_eq!(broken(&lost(519.0, &|_| {})), [(Promise::P3, "stream: begins late")]);
}
