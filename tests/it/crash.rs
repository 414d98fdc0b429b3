//! The program dies without a word: after its next start every session that was let in has exactly one end.

use crate::support::fleet::Fleet;
use crate::support::{Device, End, Events, Server, heavy, ledger};

const DEVICES: usize = 5_000;

#[tokio::test]
async fn killed_with_five_thousand_sessions_live() {
    let _turn = heavy().await;
    let mut server = Server::start(&[]).await;
    let mut fleet = Fleet::hold(&server, "live", DEVICES).await;
    server.kill().await;
    fleet.all_ended().await;

    let server = server.restart().await;
    let mut events = Events::new();
    events.pull(&server).await;
    // The dead incarnation's sessions are ended before the new one says that it is there.
    let stories = ledger::check(&events.all, &fleet.welcomed());
    assert_eq!(stories.len(), DEVICES);
    assert!(stories.values().all(|s| s.reasons == ["node_lost"]), "{stories:#?}");
    for end in events.of_kind(crate::support::events::DISCONNECTED) {
        End::by("node_lost").check(end);
    }

    let counted = server.metric(r#"lastpong_disconnects_total{reason="node_lost"}"#).await;
    assert_eq!(counted, Some(DEVICES as f64), "the ends of the dead are counted by the living");

    // They all come back, and go on counting where they were.
    let again = Fleet::hold(&server, "live", DEVICES).await;
    assert!(again.welcomed().iter().all(|w| w.device_seq == Some(3)), "a device lost its count");
}

#[tokio::test]
async fn killed_in_the_middle_of_five_thousand_connecting() {
    let _turn = heavy().await;
    let mut server = Server::start(&[]).await;
    let mut fleet = Fleet::launch(&server, "rush", DEVICES);
    fleet.wait_welcomed(DEVICES / 2).await;
    server.kill().await;
    fleet.all_ended().await;
    let welcomed = fleet.welcomed();
    assert!(welcomed.len() < DEVICES, "all were in before the kill: nothing was in the middle");

    let mut server = server.restart().await;
    let mut events = Events::new();
    events.pull(&server).await;
    let stories = ledger::check(&events.all, &welcomed);
    assert!(stories.len() >= welcomed.len());

    // A second death finds nothing to end twice.
    let before = events.all.len();
    server.kill().await;
    let server = server.restart().await;
    events.pull(&server).await;
    assert_eq!(
        events.all.len(),
        before,
        "the second start ended what had ended: {:#?}",
        &events.all[before..]
    );
}

#[tokio::test]
async fn killed_again_and_again_while_devices_come_and_go() {
    let _turn = heavy().await;
    let mut server = Server::start(&[]).await;
    let mut welcomed = Vec::new();
    for round in 1..=5 {
        let mut fleet = Fleet::launch(&server, "churn", 300);
        // Each round is cut at another point, from the first handful to all.
        fleet.wait_welcomed(60 * round).await;
        server.kill().await;
        fleet.all_ended().await;
        welcomed.extend(fleet.welcomed());
        server = server.restart().await;
    }
    let mut events = Events::new();
    events.pull(&server).await;
    ledger::check(&events.all, &welcomed);
}

#[tokio::test]
async fn an_end_that_was_told_is_still_there_after_a_kill() {
    let mut server = Server::start(&[]).await;
    let mut device = Device::connect(&server, "sealed").await;
    device.close(Some(1000)).await;
    let told = Events::new().only_end(&server, &device.session_id()).await;
    server.kill().await;
    let server = server.restart().await;
    let kept = Events::new().only_end(&server, &device.session_id()).await;
    assert_eq!(kept, told);
}
