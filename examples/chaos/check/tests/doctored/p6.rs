//! Honest reason.

use serde_json::json;

use super::super::session::{Made, at};
use super::{Promise, expect, judged, record, said, world};

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
    // Its last pong came half a second before it was replaced, and may have lain unread.
    assert!(judged(&said("twice", ended, "last_pong_at", time(26.0))).held());
    let mut files = world(|world| world.find("twice").last_pong = 29.5);
    let place = files.place("twice", ended, 0);
    files.log[place].1["data"]["last_pong_at"] = time(27.0);
    files.tell();
    expect(&files, Promise::P6, "last_pong_at", "twice");
}

#[test]
fn p6_counts_that_cannot_be() {
    expect(&said("closes", "disconnected", "pongs_received", json!(6)), Promise::P6, "counts", "closes");
    expect(&said("closes", "disconnected", "pings_sent", json!(4)), Promise::P6, "counts", "closes");
}

#[test]
fn p6_one_that_was_kicked_lives_on() {
    let files = world(|world| {
        let id = uuid::Uuid::from_u128(1);
        let made = Made::new("kicked-in-vain", "node-1", 10.0).did(55.0, "close").saw(
            55.02,
            "close_frame",
            Some(1000),
        );
        let made = made.ends("client_closed", "close_frame", Some(1000), 55.01);
        world.made.push(Made { id, ..made });
        world.kick("kicked-in-vain", 30.0);
    });
    expect(&files, Promise::P6, "kicked, and not ended", "kicked-in-vain");
}

#[test]
fn p6_timed_out_before_its_process_was_killed() {
    let files = world(|world| {
        let made = Made::new("was-well", "node-1", 150.0).swarm("swarm-b");
        let made = made.ends("pong_timeout", "heartbeat", Some(4012), 165.0);
        world.made.push(Made { id: uuid::Uuid::from_u128(1), ..made });
    });
    expect(&files, Promise::P6, "reason", "was-well");
}
