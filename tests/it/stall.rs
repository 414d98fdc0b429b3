//! The program is stopped for longer than any deadline, and goes on: nobody who answers is ended for it.
//!
//! `TEST_STALL_SECS` says how long it is stopped; the default is many deadlines, and fits a test run.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::events::DISCONNECTED;
use crate::support::raw::{CLOSE, PING, Raw, Seen, TEXT, frame};
use crate::support::{End, Events, Fleet, Server, eventually, heavy, token, within};

const DEVICES: usize = 5_000;

/// So many of them talk, five times a second: a quarter of what they may.
const TALKING: usize = 500;
const EVERY: Duration = Duration::from_millis(200);
const FRAMES_PER_SEC: u64 = 20;

fn stall() -> Duration {
    let seconds =
        std::env::var("TEST_STALL_SECS").ok().map(|s| s.parse().expect("TEST_STALL_SECS is seconds"));
    Duration::from_secs(seconds.unwrap_or(12))
}

#[tokio::test]
async fn a_stall_of_ours_ends_no_session_that_answers() {
    let _turn = heavy().await;
    let limit = FRAMES_PER_SEC.to_string();
    let settings = [
        ("PING_INTERVAL", "2s"),
        ("PONG_TIMEOUT", "2s"),
        ("MAX_MISSED_PONGS", "1"),
        ("FRAMES_PER_SEC", &limit),
    ];
    let server = Server::start(&settings).await;
    let fleets = [
        Fleet::hold(&server, "patient", DEVICES - TALKING).await,
        Fleet::launch_talking(&server, "talking", TALKING, EVERY),
    ];
    fleets[1].wait_welcomed(TALKING).await;
    every_device_answers(&fleets).await;

    server.freeze().await;
    let said = fleets[1].heartbeats();
    // The stop itself is what is tested: there is no condition to wait for but its length.
    tokio::time::sleep(stall()).await;
    // What lies unread is twice what a device may send at once, so that counting it would end the session.
    let arrears = said + 2 * FRAMES_PER_SEC * TALKING as u64;
    eventually("enough to be said meanwhile", async || (fleets[1].heartbeats() >= arrears).then_some(()))
        .await;
    server.signal(Signal::CONT);

    // Twice over, so that a deadline that was set before the stop has had its day.
    for _ in 0..2 {
        every_device_answers(&fleets).await;
    }
    let mut events = Events::new();
    events.pull(&server).await;
    let ended: Vec<_> = events.of_kind(DISCONNECTED).take(3).collect();
    assert!(ended.is_empty(), "ended for our stall: {ended:#?}");
    assert_eq!(fleets.each_ref().map(Fleet::ended), [vec![0; 0], vec![0; 0]], "closed for our stall");
    assert_eq!(server.live().await, DEVICES as u64);
    a_flooder_is_still_ended(&server).await;
}

/// Waits for as many pongs as there are devices: about one each.
async fn every_device_answers(fleets: &[Fleet]) {
    let pongs = || fleets.iter().map(Fleet::pongs).sum::<u64>();
    let since = pongs();
    eventually("a round of pongs", async || (pongs() >= since + DEVICES as u64).then_some(())).await;
}

/// Floods and leaves, again and again, until it is ended for the flood: the time of grace is not for ever.
async fn a_flooder_is_still_ended(server: &Server) {
    let heartbeat = frame(true, TEXT, br#"{"type":"heartbeat","id":"1"}"#);
    let flood = [heartbeat.repeat(100), frame(true, CLOSE, &1000u16.to_be_bytes())].concat();
    let mut floods = 0;
    let session = eventually("a flooder to be ended", async || {
        floods += 1;
        let (mut device, welcome) = Raw::connect(server.addr, &token(&format!("flooder-{floods}"))).await;
        device.bytes(&flood).await.expect("connected");
        let session = welcome["session_id"].as_str().expect("a session id").to_owned();
        (device.closed(true).await == Seen::Close(Some(4013))).then_some(session)
    })
    .await;
    End::by("rate_limited").check(&Events::new().only_end(server, &session).await);
}

#[tokio::test]
async fn a_device_that_is_silent_too_is_found_after_our_stall() {
    let settings = [("PING_INTERVAL", "500ms"), ("PONG_TIMEOUT", "500ms"), ("MAX_MISSED_PONGS", "2")];
    let server = Server::start(&settings).await;
    let (mut device, welcome) = Raw::connect(server.addr, &token("gone-meanwhile")).await;
    assert_eq!(within("a ping", device.next()).await.unwrap().unwrap().opcode, PING);
    server.freeze().await;
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
    server.freeze().await;
    // It leaves in good order while nobody listens: that is its reason, not a missed pong.
    device.send(crate::support::raw::CLOSE, &1000u16.to_be_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.signal(Signal::CONT);
    let session = welcome["session_id"].as_str().unwrap();
    End::by("client_closed").code(1000).check(&Events::new().only_end(&server, session).await);
}
