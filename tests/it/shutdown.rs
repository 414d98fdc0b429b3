//! A stop in good order: every device is told where to go, every end is durable before the program is gone.

use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;

use crate::support::events::DISCONNECTED;
use crate::support::raw::{Raw, Seen};
use crate::support::{Ask, Device, End, Events, Fleet, Server, eventually, ledger, token};

#[tokio::test]
async fn sigterm_drains_two_hundred_sessions() {
    let mut server = Server::start(&[("DRAIN_SPREAD", "1s")]).await;
    let mut fleet = Fleet::hold(&server, "drained", 200).await;
    server.signal(Signal::TERM);
    fleet.all_ended().await;
    assert_eq!(fleet.ended(), vec![1001; 200]);
    assert_eq!(server.exited().await.code(), Some(0));

    let server = server.restart().await;
    let mut events = Events::new();
    events.pull(&server).await;
    let stories = ledger::check(&events.all, &fleet.welcomed());
    assert_eq!(stories.len(), 200);
    for end in events.of_kind(DISCONNECTED) {
        End::by("draining").check(end);
    }
}

#[tokio::test]
async fn whoever_is_just_coming_in_is_drained_too() {
    for (round, welcomed) in [0, 1, 60, 140].into_iter().enumerate() {
        let mut server = Server::start(&[("DRAIN_SPREAD", "500ms")]).await;
        let mut fleet = Fleet::launch(&server, "coming", 200);
        // A turn for every device between two looks: the signal falls into the midst of their handshakes.
        while fleet.welcomed_count() < welcomed {
            tokio::task::yield_now().await;
        }
        server.signal(Signal::TERM);
        fleet.all_ended().await;
        assert_eq!(server.exited().await.code(), Some(0), "round {round}");
        let told = fleet.welcomed();
        assert_eq!(fleet.ended(), vec![1001; told.len()], "round {round}: the welcomed");
        let unwelcomed = fleet.unwelcomed();
        assert_eq!(unwelcomed, vec![1001; unwelcomed.len()], "round {round}: those let in and not welcomed");

        let server = server.restart().await;
        let mut events = Events::new();
        events.pull(&server).await;
        let stories = ledger::check(&events.all, &told);
        assert!(stories.len() <= told.len() + unwelcomed.len(), "round {round}: sessions of nobody");
        for end in events.of_kind(DISCONNECTED) {
            End::by("draining").check(end);
        }
    }
}

#[tokio::test]
async fn sigint_drains_too() {
    let mut server = Server::start(&[]).await;
    let mut device = Device::connect(&server, "interrupted").await;
    server.signal(Signal::INT);
    assert_eq!(device.closed().await, Seen::Close(Some(1001)));
    assert_eq!(server.exited().await.code(), Some(0));
    let server = server.restart().await;
    End::by("draining").check(&Events::new().only_end(&server, &device.session_id()).await);
}

#[tokio::test]
async fn a_device_that_does_not_answer_holds_up_no_drain() {
    let mut server = Server::start(&[("CLOSE_TIMEOUT", "500ms")]).await;
    // It neither answers pings nor the close frame, and never hangs up.
    let (_device, welcome) = Raw::connect(server.addr, &token("stubborn")).await;
    server.signal(Signal::TERM);
    assert_eq!(server.exited().await.code(), Some(0));
    let server = server.restart().await;
    let session = welcome["session_id"].as_str().unwrap();
    End::by("draining").check(&Events::new().only_end(&server, session).await);
}

#[tokio::test]
async fn a_draining_node_refuses_newcomers_and_says_so() {
    let server = Server::start(&[("DRAIN_SPREAD", "10m")]).await;
    let _fleet = Fleet::hold(&server, "held", 20).await;
    assert_eq!(server.status("/readyz").await.0, 200);
    server.signal(Signal::TERM);
    eventually("the node to be unready", async || (server.status("/readyz").await.0 == 503).then_some(()))
        .await;
    let refusal = Ask::with_token(&token("late")).refused(server.addr).await;
    assert_eq!(refusal.status, 503, "{refusal:?}");
    let counted = server.metric(r#"lastpong_handshakes_total{outcome="draining"}"#).await;
    assert!(counted >= Some(1.0), "who came too late is not counted");
    let after = refusal.header("retry-after").and_then(|s| s.parse::<u64>().ok());
    assert!(after.is_some_and(|seconds| seconds > 0), "{refusal:?}");
    refusal.problem();
    assert_eq!(server.status("/healthz").await.0, 200, "alive while it drains");
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let mut server = Server::start(&[("DRAIN_SPREAD", "10m")]).await;
    let mut fleet = Fleet::hold(&server, "abandoned", 50).await;
    server.signal(Signal::TERM);
    eventually("the drain to begin", async || (server.status("/readyz").await.0 == 503).then_some(())).await;
    assert!(server.is_running(), "the drain takes ten minutes");
    server.signal(Signal::TERM);
    let status = server.exited().await;
    assert!(
        status.code() != Some(0) || status.signal().is_some(),
        "a hurried end is not a clean one: {status}"
    );
    fleet.all_ended().await;
    // What had no time to end well is ended by the next start.
    let server = server.restart().await;
    let mut events = Events::new();
    events.pull(&server).await;
    ledger::check(&events.all, &fleet.welcomed());
}
