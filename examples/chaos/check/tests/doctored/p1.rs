//! One end.

use serde_json::{Value, json};

use super::super::session::at;
use super::{Promise, World, broken, expect, judged, log};

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
fn p1_a_session_is_welcomed_on_two_connections() {
    let mut files = World::healthy().files();
    let lines = files.devices.get_mut("swarm-a").unwrap();
    let of = |line: &Value, is: &str| line["is"] == is && line["device"] == "resets";
    let welcome = lines.iter().find(|line| of(line, "welcome")).unwrap().clone();
    let mut dial = lines.iter().find(|line| of(line, "dial")).unwrap().clone();
    let mut again = welcome;
    (dial["conn"], again["conn"]) = (json!(999), json!(999));
    (dial["at"], again["at"]) = (json!(at(10.1)), json!(at(10.2)));
    let place = lines.partition_point(|line| line["at"].as_i64() < Some(at(10.2)));
    lines.splice(place..place, [dial, again]);
    expect(&files, Promise::P1, "welcomed twice", "resets");
}
