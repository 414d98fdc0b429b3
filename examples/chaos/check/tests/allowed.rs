//! What an honest system may do under the faults: no alarm is raised.

use serde_json::json;
use uuid::Uuid;

use super::Promise;
use super::session::{Made, at};
use super::world::World;
use super::{broken, judged};

/// The made-up run with these sessions besides.
fn fine(sessions: Vec<Made>, edit: impl FnOnce(&mut World)) {
    let mut world = World::healthy();
    for (made, n) in sessions.into_iter().zip(1..) {
        world.made.push(Made { id: Uuid::from_u128(n), ..made });
    }
    edit(&mut world);
    let verdict = judged(&world.files());
    assert!(broken(&verdict).is_empty() && verdict.held(), "{verdict}");
}

fn timed_out(made: Made, when: f64) -> Made {
    made.saw(when + 0.01, "close_frame", Some(4012)).ends("pong_timeout", "heartbeat", Some(4012), when)
}

#[test]
fn a_device_that_answers_too_late_is_timed_out() {
    let late = Made { slowest_us: 700_000, ..Made::new("late", "node-1", 10.0) };
    let owing = Made::new("owing", "node-1", 10.0).owed(13.0);
    fine(vec![timed_out(late, 15.0), timed_out(owing, 15.0)], |_| {});
}

#[test]
fn pings_that_come_after_a_close_are_owed_no_answer() {
    let made = Made::new("leaves", "node-1", 10.0).did(20.0, "close").lost(3).owed(20.1);
    fine(vec![made.saw(25.0, "self", None).ends("client_closed", "close_frame", Some(1000), 20.01)], |_| {});
}

#[test]
fn a_close_and_the_servers_own_cross() {
    let drained =
        Made::new("crosses", "node-1", 50.0).did(62.0, "close").saw(62.02, "close_frame", Some(1001));
    let kicked = Made::new("kicked", "node-3", 50.0).did(55.001, "reset").saw(55.001, "self", None);
    let sessions = vec![
        drained.ends("draining", "watchdog", Some(1001), 62.0),
        kicked.ends("kicked", "operator", Some(4011), 55.0),
    ];
    fine(sessions, |world| world.kick("kicked", 54.9));
}

#[test]
fn what_a_lost_node_could_not_say_is_lost() {
    let closed = Made::new("closed", "node-2", 70.0).did(79.99, "close").saw(80.01, "reset", None);
    let told = Made::new("told", "node-3", 275.0).did(284.0, "close").saw(284.03, "close_frame", Some(1000));
    let replaced = Made::new("moved", "node-2", 70.0).saw(80.01, "reset", None);
    let again = Made { started: 81.05, ..Made::new("moved", "node-1", 81.0) };
    let closes = |made: Made, when: f64| {
        let made = made.did(when, "close").saw(when + 0.02, "close_frame", Some(1000));
        made.ends("client_closed", "close_frame", Some(1000), when + 0.01)
    };
    let sessions = vec![
        closed.ends_told("node_lost", "peer_node", None, 85.2, 85.3),
        told.ends("node_lost", "peer_node", None, 286.0),
        replaced.ends("replaced", "peer_node", Some(4509), 81.02),
        closes(again, 88.0),
    ];
    fine(sessions, |_| {});
}

/// Drained while Postgres stood still: its word is in its own journal, and its peers take it for lost.
#[test]
fn a_node_that_left_while_nobody_could_write_is_taken_for_lost() {
    let made = Made::new("drained-then", "node-3", 195.0).saw(208.5, "close_frame", Some(1001));
    fine(vec![made.ends_told("node_lost", "peer_node", None, 222.0, 222.1)], |world| {
        world.fault("drain", &["node-3"], &[], 207.0, 225.0);
    });
}

/// Its start waited for Postgres when its node was told to leave: both are told late, and take the place of nobody.
#[test]
fn who_was_never_welcomed_may_overlap_another_where_postgres_was_slow() {
    let mut world = World::healthy();
    let first = Made::new("overlaps", "node-2", 390.0).did(400.0, "vanish").saw(400.0, "self", None);
    let second = Made { started: 402.5, ..Made::new("overlaps", "node-3", 400.5).unwelcomed() };
    let sessions = [
        first.ends_told("read_error", "socket", None, 400.01, 403.0),
        second.ends_told("draining", "watchdog", Some(1001), 401.0, 402.6),
    ];
    world.made.extend((1..).zip(sessions).map(|(n, made)| Made { id: Uuid::from_u128(n), ..made }));
    world.fault("drain", &["node-3"], &[], 400.9, 404.0);
    let mut files = world.files();
    let overlap = (Promise::P2, "start before the last one's end");
    assert_eq!(broken(&judged(&files)), [overlap], "Postgres took what it was given");
    files.slow.push(json!({"at": at(402.0), "is": "slow", "took_ms": 1_800}));
    assert!(judged(&files).held(), "Postgres was slow");
}

/// Its node's disk was full and Postgres stood still, so that its start was durable nowhere.
#[test]
fn a_device_that_waited_in_vain_for_its_welcome_is_let_go() {
    let waits = || {
        let made = Made { welcomed: false, started: 222.0, ..Made::new("waits", "node-3", 206.0) };
        made.ends_told("internal_error", "watchdog", Some(1011), 216.0, 222.1)
    };
    fine(vec![waits()], |world| world.fault("full", &["node-3"], &[], 205.0, 221.0));
    let mut world = World::healthy();
    world.made.push(Made { id: Uuid::from_u128(1), ..waits() });
    assert_eq!(broken(&judged(&world.files())), [(Promise::P6, "reason")], "nothing was full");

    let mut world = World::healthy();
    let made = Made { welcomed: false, started: 411.0, ..Made::new("waits", "node-3", 400.0) };
    let made = made.ends_told("internal_error", "watchdog", Some(1011), 410.0, 411.1);
    world.made.push(Made { id: Uuid::from_u128(1), ..made });
    world.fault("full", &["node-3"], &[], 399.0, 411.0);
    let mut files = world.files();
    assert_eq!(broken(&judged(&files)), [(Promise::P6, "reason")], "Postgres took what it was given");
    files.slow.push(json!({"at": at(400.0), "is": "slow", "took_ms": 2_500}));
    assert!(judged(&files).held(), "Postgres was slow, and then the disk was full");
}

/// Its device was told 1001; that word was in the journal, and the device's next session was on the record first.
#[test]
fn what_a_drained_node_could_not_say_its_devices_next_session_says() {
    let told = Made::new("moves-on", "node-3", 195.0).saw(208.5, "close_frame", Some(1001));
    let again = Made { started: 222.05, journaled: true, ..Made::new("moves-on", "node-1", 209.0) };
    let again = again.did(230.0, "close").saw(230.02, "close_frame", Some(1000));
    let sessions = vec![
        told.ends_told("replaced", "peer_node", Some(4509), 222.0, 222.02),
        again.ends("client_closed", "close_frame", Some(1000), 230.01),
    ];
    fine(sessions, |world| world.fault("drain", &["node-3"], &[], 207.0, 213.0));
}

#[test]
fn after_a_cut_connections_back_off_for_as_long_again() {
    let made = Made::new("backs-off", "node-1", 245.0).owed(255.0).saw(261.0, "error", None);
    fine(vec![made.ends("ping_failed", "socket", None, 260.9)], |_| {});
}

#[test]
fn a_swarm_that_stood_still_could_not_answer() {
    let stopped = Made::new("stopped", "node-1", 440.0).owed(446.0);
    fine(vec![timed_out(stopped, 448.0)], |world| world.fault("stop", &["swarm-a"], &[], 445.0, 449.0));
    let mut world = World::healthy();
    world
        .made
        .push(Made { id: Uuid::from_u128(1), ..timed_out(Made::new("starved", "node-1", 440.0), 448.0) });
    let mut files = world.files();
    assert!(!judged(&files).held(), "nothing says that it stood still");
    let lines = files.devices.get_mut("swarm-a").unwrap();
    let place = lines.partition_point(|line| line["at"].as_i64() < Some(at(448.1)));
    lines.insert(place, json!({"at": at(448.1), "is": "late", "ms": 2_600}));
    let verdict = judged(&files);
    assert!(verdict.held(), "{verdict}");
}

/// Its last line, and with it what it did last, is lost with the process.
#[test]
fn a_swarm_that_is_killed_may_have_had_a_word_to_say() {
    let made = |device: &str| Made::new(device, "node-1", 160.0).swarm("swarm-b");
    let sessions = vec![
        made("reset-by-kernel").ends("ping_failed", "socket", None, 170.3),
        made("was-closing").ends("client_closed", "close_frame", Some(1000), 169.98),
        made("no-word-of-it").unwelcomed().ends("read_error", "socket", None, 170.02),
    ];
    fine(sessions, |_| {});
}

#[test]
fn a_deaf_device_is_reset_when_its_process_ends() {
    let made = Made::new("deaf-to-the-end", "node-1", 515.0).did(519.5, "deaf").saw(520.9, "left", None);
    fine(vec![made.ends("read_error", "socket", None, 521.1)], |_| {});
}

/// Kicked by way of another node; before its own had heard of that, it was drained.
#[test]
fn a_node_closes_for_what_came_after_the_record() {
    let made = Made::new("kicked-first", "node-1", 50.0).saw(62.0, "close_frame", Some(1001));
    let made = made.ends("kicked", "operator", Some(4011), 57.0);
    fine(vec![made], |world| world.kick("kicked-first", 56.9));
}

#[test]
fn a_device_gives_up_where_the_network_or_its_node_was_away() {
    let gave_up = |device: &str, node: &'static str, dial: f64, when: f64| {
        Made::new(device, node, dial).did(when, "gave_up").saw(when, "self", None)
    };
    let cut = gave_up("in-a-cut", "node-1", 240.0, 255.0).ends("read_error", "socket", None, 256.1);
    let stopped = gave_up("at-a-stop", "node-3", 105.0, 114.5);
    let found = gave_up("found-before", "node-1", 245.0, 256.5);
    let starved = gave_up("starved", "node-1", 350.0, 363.5).ends("read_error", "socket", None, 363.51);
    let sessions = vec![
        cut,
        starved,
        stopped.ends("node_lost", "peer_node", None, 116.0),
        found.ends("pong_timeout", "heartbeat", Some(4012), 253.0),
    ];
    fine(sessions, |_| {});
}

#[test]
fn a_silent_device_is_found_late_where_the_store_was_away() {
    let made = Made::new("found-late", "node-1", 195.0).did(201.0, "silent").owed(201.2);
    let made = made.saw(203.3, "close_frame", Some(4012));
    fine(vec![made.ends_told("pong_timeout", "heartbeat", Some(4012), 203.25, 225.0)], |_| {});
}

#[test]
fn a_kick_that_found_nobody_ends_nobody() {
    let mut files = World::healthy().files();
    files
        .operator
        .push(json!({"at": at(30.0), "is": "kick", "session": Uuid::from_u128(77), "status": null}));
    files.operator.push(json!({"at": at(30.1), "is": "kick", "session": Uuid::from_u128(77), "status": 404}));
    let verdict = judged(&files);
    assert!(verdict.held(), "{verdict}");
}

/// Over a lossy network some come through and others do not.
#[test]
fn of_nodes_on_one_lossy_network_one_may_be_lost() {
    let made = Made::new("unlucky", "node-3", 436.0).saw(452.0, "close_frame", Some(4000));
    fine(vec![made.ends("node_lost", "peer_node", None, 451.0)], |world| {
        let ways = [["node-1", "postgres"], ["node-2", "postgres"], ["node-3", "postgres"]];
        world.fault("lossy", &["postgres"], &ways, 440.0, 455.0);
    });
}

/// What ended it first was known to its node alone, which died with it; the record says who came next.
#[test]
fn one_that_was_over_is_replaced_where_its_node_could_not_say_so() {
    let made = Made::new("comes-back", "node-2", 70.0).did(79.9, "reset").saw(79.9, "self", None);
    let again = Made { started: 84.0, ..Made::new("comes-back", "node-1", 83.9) };
    let again = again.did(88.0, "close").saw(88.02, "close_frame", Some(1000));
    let sessions = vec![
        made.ends("replaced", "peer_node", Some(4509), 83.95),
        again.ends("client_closed", "close_frame", Some(1000), 88.01),
    ];
    fine(sessions, |_| {});
}

/// With the machine so busy that Postgres takes long, the ping lies on its way, and what ended a session waits for the record.
#[test]
fn what_a_slow_machine_brings_about_is_no_fault() {
    let told_wrong = |sessions: Vec<Made>, from: f64| {
        let mut world = World::healthy();
        for (made, n) in sessions.into_iter().zip(1..) {
            world.made.push(Made { id: Uuid::from_u128(n), ..made });
        }
        let mut files = world.files();
        assert_eq!(broken(&judged(&files)), [(Promise::P6, "reason")], "nothing was slow");
        files.slow.push(json!({"at": at(from + 1.5), "is": "slow", "took_ms": 1_400}));
        let verdict = judged(&files);
        assert!(verdict.held(), "{verdict}");
    };
    let lost = Made::new("loses-then", "node-1", 10.0).did(27.0, "lose").lost(2).owed(27.0);
    told_wrong(vec![timed_out(lost, 28.4)], 26.5);

    let made = Made::new("comes-back", "node-2", 10.0).did(20.0, "reset").saw(20.0, "self", None);
    let again = Made { started: 22.3, ..Made::new("comes-back", "node-1", 22.1) };
    let again = again.did(28.0, "close").saw(28.02, "close_frame", Some(1000));
    let sessions = vec![
        made.ends("replaced", "peer_node", Some(4509), 22.25),
        again.ends("client_closed", "close_frame", Some(1000), 28.01),
    ];
    told_wrong(sessions, 20.6);
}
