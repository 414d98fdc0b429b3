//! Our fault is not the device's.

use serde_json::{Value, json};

use super::super::session::{Made, at};
use super::{Files, Promise, World, broken, ended, expect, judged, log, without_fault, world};

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
fn p4_a_device_hears_nothing_more_though_nothing_is_broken() {
    for (reason, by, code) in [("read_error", "socket", None), ("pong_timeout", "heartbeat", Some(4012))] {
        let files = world(|world| {
            let made =
                Made::new("hears-nothing", "node-1", 18.0).did(35.0, "gave_up").saw(35.0, "self", None);
            let made = made.ends(reason, by, code, 35.01);
            world.made.push(Made { id: uuid::Uuid::from_u128(1), ..made });
        });
        expect(&files, Promise::P4, "gave up", "hears-nothing");
    }
}

#[test]
fn p4_replaced_by_one_that_no_node_let_in() {
    for (is, error) in [("refused", ""), ("failed", "1.2.3.4:1: Connection refused (os error 111)")] {
        let mut files = log(|files| {
            files
                .log
                .retain(|(_, event)| event["subject"] != "twice" || event["data"]["node_id"] != "node-2");
        });
        let lines = files.devices.get_mut("swarm-a").unwrap();
        let second =
            |line: &Value| line["is"] == "dial" && line["device"] == "twice" && line["at"] == at(32.0);
        let conn = lines.iter().find(|line| second(line)).unwrap()["conn"].clone();
        lines.retain(|line| line["conn"] != conn || line["is"] == "dial");
        let place = lines.partition_point(|line| line["at"].as_i64() <= Some(at(32.0)));
        lines.insert(place, json!({"at": at(32.01), "is": is, "conn": conn, "status": 503, "error": error}));
        expect(&files, Promise::P4, "replaced", "twice");
    }
}

#[test]
fn p4_replaced_by_one_that_came_when_it_was_long_over() {
    let files = world(|world| {
        let first = world.find("twice");
        first.end = Some((22.0, "close_frame", Some(4509)));
        first.last_pong = 21.5;
    });
    let verdict = judged(&files);
    assert!(broken(&verdict).contains(&(Promise::P4, "replaced")), "{verdict}");
}

#[test]
fn p4_a_clock_fault_lets_no_earlier_fault_explain_it() {
    let files = world(|world| {
        world.fault("clock", &["node-1"], &[], 298.0, 305.0);
        let made = Made::new("innocent", "node-1", 245.0).saw(300.03, "close_frame", Some(4012));
        let made = made.ends("pong_timeout", "heartbeat", Some(4012), 300.0);
        world.made.push(Made { id: uuid::Uuid::from_u128(1), ..made });
    });
    expect(&files, Promise::P4, "pong_timeout", "innocent");
}

#[test]
fn p4_it_came_after_the_kill() {
    // The node was long in becoming ready, and lost one of its new run.
    let files = world(|world| {
        let fault = world.faults.iter().find(|line| line["kind"] == "kill").unwrap()["fault"].clone();
        let end = world.faults.iter_mut().find(|line| line["fault"] == fault && line["is"] == "end").unwrap();
        end["at"] = json!(at(88.0));
        let made = Made::new("innocent", "node-2", 86.0).saw(90.0, "eof", None);
        let made = made.ends("node_lost", "peer_node", None, 90.0);
        world.made.push(Made { id: uuid::Uuid::from_u128(1), ..made });
    });
    expect(&files, Promise::P4, "node_lost", "innocent");
}

#[test]
fn p4_the_nodes_own_slow_recovery_makes_no_outage_longer() {
    let healed = |files: &mut Files, kind: &str, whom: &str, when: f64| {
        let is = |line: &Value| line["kind"] == kind && line["whom"][0] == whom;
        let place = files.faults.iter().rposition(is).unwrap();
        let number = files.faults[place]["fault"].clone();
        files.faults.insert(place + 1, json!({"at": at(when), "is": "healed", "fault": number}));
    };
    // It stood still for three seconds of a lease of five, and took as many to be ready again.
    let mut files = World::healthy().files();
    healed(&mut files, "stop", "node-3", 113.0);
    expect(&files, Promise::P4, "node_lost", "stood-still");
    let mut files = World::healthy().files();
    healed(&mut files, "stop", "node-3", 119.0);
    assert!(judged(&files).held(), "it stood still for more than a lease");
}
