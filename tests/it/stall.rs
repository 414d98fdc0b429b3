//! The program is stopped for longer than any deadline, and goes on: nobody who answers is ended for it.
//!
//! `TEST_STALL_SECS` says how long it is stopped; the default is many deadlines, and fits a test run.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::events::DISCONNECTED;
use crate::support::raw::{PING, Raw, Seen};
use crate::support::{End, Events, Fleet, Server, eventually, heavy, token, within};

const DEVICES: usize = 5_000;

fn stall() -> Duration {
    let seconds =
        std::env::var("TEST_STALL_SECS").ok().map(|s| s.parse().expect("TEST_STALL_SECS is seconds"));
    Duration::from_secs(seconds.unwrap_or(8))
}

#[tokio::test]
async fn a_stall_of_ours_ends_no_session_that_answers() {
    let _turn = heavy().await;
    let settings = [("PING_INTERVAL", "2s"), ("PONG_TIMEOUT", "1s"), ("MAX_MISSED_PONGS", "1")];
    let server = Server::start(&settings).await;
    let fleet = Fleet::hold(&server, "patient", DEVICES).await;
    let answered = fleet.pongs();
    every_device_answers(&fleet, answered).await;

    server.signal(Signal::STOP);
    // The stop itself is what is tested: there is no condition to wait for but its length.
    tokio::time::sleep(stall()).await;
    server.signal(Signal::CONT);

    // Twice over, so that a deadline that was set before the stop has had its day.
    for _ in 0..2 {
        every_device_answers(&fleet, fleet.pongs()).await;
    }
    let mut events = Events::new();
    events.pull(&server).await;
    let ended: Vec<_> = events.of_kind(DISCONNECTED).take(3).collect();
    assert!(ended.is_empty(), "ended for our stall: {ended:#?}");
    assert_eq!(fleet.ended(), vec![0; 0], "closed for our stall");
    assert_eq!(server.live().await, DEVICES as u64);
}

/// Waits for as many pongs as there are devices, above `since`: about one each.
async fn every_device_answers(fleet: &Fleet, since: u64) {
    eventually("a round of pongs", async || (fleet.pongs() >= since + DEVICES as u64).then_some(())).await;
}

#[tokio::test]
async fn a_device_that_is_silent_too_is_found_after_our_stall() {
    let settings = [("PING_INTERVAL", "500ms"), ("PONG_TIMEOUT", "500ms"), ("MAX_MISSED_PONGS", "2")];
    let server = Server::start(&settings).await;
    let (mut device, welcome) = Raw::connect(server.addr, &token("gone-meanwhile")).await;
    assert_eq!(within("a ping", device.next()).await.unwrap().unwrap().opcode, PING);
    server.signal(Signal::STOP);
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.signal(Signal::CONT);
    assert_eq!(device.closed(false).await, Seen::Close(Some(4012)));
    let session = welcome["session_id"].as_str().unwrap();
    End::by("pong_timeout").check(&Events::new().only_end(&server, session).await);
}

#[tokio::test]
async fn what_came_during_our_stall_counts() {
    let settings = [("PING_INTERVAL", "500ms"), ("PONG_TIMEOUT", "500ms"), ("MAX_MISSED_PONGS", "1")];
    let server = Server::start(&settings).await;
    let (mut device, welcome) = Raw::connect(server.addr, &token("left-meanwhile")).await;
    server.signal(Signal::STOP);
    // It leaves in good order while nobody listens: that is its reason, not a missed pong.
    device.send(crate::support::raw::CLOSE, &1000u16.to_be_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.signal(Signal::CONT);
    let session = welcome["session_id"].as_str().unwrap();
    End::by("client_closed").code(1000).check(&Events::new().only_end(&server, session).await);
}
