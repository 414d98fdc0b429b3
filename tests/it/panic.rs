//! A fault of ours in one session is that session's end, and nobody else's. Needs the `chaos` feature.

use crate::support::raw::Seen;
use crate::support::{Device, End, Events, Fleet, Server, ledger};

#[tokio::test]
async fn a_panic_ends_its_own_session_only() {
    let server = Server::start(&[("PING_INTERVAL", "1s"), ("PONG_TIMEOUT", "5s")]).await;
    let fleet = Fleet::hold(&server, "bystander", 200).await;
    let mut events = Events::new();
    for n in 0..10 {
        let mut device = Device::connect(&server, &format!("victim-{n}")).await;
        device.text(r#"{"type":"chaos","do":"panic"}"#).await;
        let seen = device.closed().await;
        let end = events.only_end(&server, &device.session_id()).await;
        End::by("internal_error").check(&end);
        assert_eq!(seen, Seen::Close(Some(1011)));
    }
    // The others go on being asked, and answering.
    let pongs = fleet.pongs();
    crate::support::eventually("pongs after the panics", async || {
        (fleet.pongs() > pongs + 400).then_some(())
    })
    .await;
    assert_eq!(fleet.ended(), vec![0; 0], "a bystander was closed");
    assert_eq!(server.live().await, 200);
    assert_eq!(server.metric(r#"lastpong_disconnects_total{reason="internal_error"}"#).await, Some(10.0));
}

#[tokio::test]
async fn a_device_comes_back_after_a_panic() {
    let mut server = Server::start(&[]).await;
    for _ in 0..2 {
        let mut device = Device::connect(&server, "phoenix").await;
        device.text(r#"{"type":"chaos","do":"panic"}"#).await;
        device.closed().await;
        Events::new().only_end(&server, &device.session_id()).await;
    }
    let mut last = Device::connect(&server, "phoenix").await;
    assert_eq!(last.welcome["device_seq"], 5);
    last.close(Some(1000)).await;
    server.kill().await;
    let server = server.restart().await;
    let mut events = Events::new();
    events.pull(&server).await;
    ledger::check(&events.all, &[]);
}
