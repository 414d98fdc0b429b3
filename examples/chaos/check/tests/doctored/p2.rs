//! In order.

use serde_json::json;

use super::super::session::at;
use super::{Promise, World, expect, judged, log, said};

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
fn p2_a_welcome_says_no_number_though_nothing_kept_the_node_from_the_store() {
    let unnumbered = |device: &str| {
        let mut files = World::healthy().files();
        let lines = files.devices.get_mut("swarm-a").unwrap();
        let welcome =
            lines.iter_mut().find(|line| line["is"] == "welcome" && line["device"] == device).unwrap();
        welcome["device_seq"] = json!(null);
        files
    };
    // Only swarms had come and gone, and Redis been hurt.
    expect(&unnumbered("stays-3"), Promise::P2, "welcomed without a number", "stays-3");
    expect(&unnumbered("given-up"), Promise::P2, "welcomed without a number", "given-up");
    assert!(judged(&unnumbered("orphan")).held(), "a node had just been drained");
    assert!(judged(&unnumbered("closes")).held(), "all devices had just come");
    let mut files = unnumbered("stays-3");
    files.slow.push(json!({"at": at(465.5), "is": "slow", "took_ms": 900}));
    assert!(judged(&files).held(), "Postgres was slow");
}
