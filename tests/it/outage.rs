//! The store fails while the node serves, and comes back: devices stay, newcomers wait outside, no end is lost.
//!
//! The disk is a real one of the test's own: it is full, or it hangs.

use rustix::process::Signal;

use crate::support::disk::Trouble;
use crate::support::events::{CONNECTED, DISCONNECTED};
use crate::support::raw::{CLOSE, Raw, Seen};
use crate::support::{Ask, Disk, End, Events, Fleet, Server, eventually, ledger, token};

/// Devices that stay through the outage.
const STAYING: usize = 100;
/// Devices that leave in it.
const LEAVING: usize = 20;

/// One worker, so that the order in which devices leave is the order in which the node learns of it.
async fn start(disk: &Disk) -> Server {
    let brisk = [("PING_INTERVAL", "500ms"), ("PONG_TIMEOUT", "2s"), ("WORKERS", "1")];
    let data = disk.data_dir();
    // It is SQLite that writes to this disk, whatever the other stories are told of.
    Server::start_embedded(&[&brisk[..], &[("DATA_DIR", &data)]].concat()).await
}

#[tokio::test]
async fn a_full_disk_ends_nobody_and_loses_nothing() {
    let disk = Disk::mount();
    let server = start(&disk).await;
    an_outage(server, || disk.fill(), "a full disk").await;
}

#[tokio::test]
async fn a_disk_that_hangs_ends_nobody_and_loses_nothing() {
    let disk = Disk::mount();
    let server = start(&disk).await;
    an_outage(server, || disk.freeze(), "a disk that hangs").await;
}

async fn an_outage(mut server: Server, begin: impl Fn() -> Trouble, what: &str) {
    let mut fleet = Fleet::hold(&server, "staying", STAYING).await;
    let mut leaving = Vec::new();
    for n in 0..LEAVING {
        leaving.push(Raw::connect(server.addr, &token(&format!("leaving-{n}"))).await);
    }
    eventually("a node that is ready", async || (server.status("/readyz").await.0 == 200).then_some(()))
        .await;

    let trouble = begin();
    let mut left = Vec::new();
    for (mut device, welcome) in leaving {
        device.send(CLOSE, &1000u16.to_be_bytes()).await.expect("it is still connected");
        assert_eq!(
            device.closed(true).await,
            Seen::Close(Some(1000)),
            "{what}: a device that leaves is answered"
        );
        left.push(welcome["session_id"].as_str().expect("a session id").to_owned());
    }
    newcomers_wait_outside(&server, what).await;
    // Long enough that every device is asked again, and its deadline is over.
    let since = fleet.pongs();
    eventually("ten rounds of pongs", async || (fleet.pongs() >= since + 10 * STAYING as u64).then_some(()))
        .await;
    assert_eq!(fleet.ended(), vec![0; 0], "{what}: devices that answer stay");
    assert_eq!(server.live().await, STAYING as u64);
    assert_eq!(server.status("/healthz").await.0, 200);
    let mut events = Events::new();
    // A disk that hangs lets nothing be read either.
    if matches!(trouble, Trouble::Full(_)) {
        events.pull(&server).await;
        assert_eq!(events.of_kind(CONNECTED).count(), STAYING + LEAVING, "{what}: the record can be read");
        assert_eq!(events.of_kind(DISCONNECTED).count(), 0, "{what}: an end was told that is not durable");
    }

    drop(trouble);
    let mut late = eventually("a newcomer to be let in again", async || {
        Ask::with_token(&token("late")).send(server.addr).await.expect("an answer").ok()
    })
    .await;
    late.welcome().await;
    eventually("a node that is ready again", async || {
        (server.status("/readyz").await.0 == 200).then_some(())
    })
    .await;
    eventually("the ends of those who left", async || {
        events.pull(&server).await;
        (events.of_kind(DISCONNECTED).count() >= LEAVING).then_some(())
    })
    .await;
    let ended: Vec<_> = events
        .of_kind(DISCONNECTED)
        .map(|end| {
            End::by("client_closed").code(1000).check(end);
            end["data"]["session_id"].as_str().expect("a session id").to_owned()
        })
        .collect();
    assert_eq!(ended, left, "{what}: each end once, in the order in which they came about");

    drop(late);
    server.signal(Signal::TERM);
    fleet.all_ended().await;
    assert_eq!(server.exited().await.code(), Some(0));
    let server = server.restart().await;
    let mut events = Events::new();
    events.pull(&server).await;
    ledger::check(&events.all, &fleet.welcomed());
    let lost = events.of_kind(DISCONNECTED).filter(|end| end["data"]["reason"] == "node_lost").count();
    assert_eq!(lost, 0, "{what}: a session was left over");
}

/// Waits until the node says what it lacks, and holds that it then lets nobody in.
async fn newcomers_wait_outside(server: &Server, what: &str) {
    let report = eventually("a node that is unready", async || {
        let (status, body) = server.status("/readyz").await;
        let report: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let lacks = |name: &str| {
            let all = report["dependencies"].as_array().expect("dependencies");
            all.iter().any(|d| d["name"] == name && d["ok"] == false)
        };
        (status == 503 && lacks("sql") && lacks("admission")).then_some(report)
    })
    .await;
    let refusal = Ask::with_token(&token("too-early")).refused(server.addr).await;
    assert_eq!(refusal.status, 503, "{what}: {refusal:?} although {report}");
    let after = refusal.header("retry-after").and_then(|s| s.parse::<u64>().ok());
    assert!(after.is_some_and(|seconds| seconds > 0), "{what}: {refusal:?}");
    refusal.problem();
    let counted = server.metric(r#"lastpong_handshakes_total{outcome="overloaded"}"#).await;
    assert!(counted >= Some(1.0), "{what}: who was turned away is not counted");
}
