//! Devices that come and go too often: one event for each episode, in the device's order, whichever nodes it came to.

use serde_json::{Value, json};

use crate::support::acts::paged;
use crate::support::raw::Seen;
use crate::support::{Ask, Cluster, Device, Events, Server, eventually, token};

const FLAPPING: &str = "lastpong.device.flapping.v1";

/// Comes and goes so often.
async fn flap(server: &Server, device: &str, times: usize) {
    for _ in 0..times {
        let mut one = Device::connect(server, device).await;
        one.close(Some(1000)).await;
    }
}

/// The log up to and with a further session's end.
async fn log(server: &Server) -> Events {
    let mut marker = Device::connect(server, "marker").await;
    let id = marker.session_id();
    marker.close(Some(1000)).await;
    let mut events = Events::new();
    events.until_ended(server, [id]).await;
    events
}

/// What is told of the device of these stories; the others may come often too.
fn episodes(log: &Events) -> Vec<&Value> {
    log.of_kind(FLAPPING).filter(|event| event["subject"] == "loose").collect()
}

/// Holds that the numbers of a device, and of the log, go up by one.
fn in_order(log: &Events, device: &str) {
    let numbers: Vec<_> =
        log.of_device(device).map(|e| e["data"]["device_seq"].as_i64().expect("a number")).collect();
    assert_eq!(numbers, (1..=numbers.len() as i64).collect::<Vec<_>>(), "{device}");
    let seqs: Vec<_> = log.all.iter().map(|e| e["data"]["seq"].as_i64().expect("a number")).collect();
    assert_eq!(seqs, (1..=seqs.len() as i64).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_episode_is_told_once() {
    let server = Server::start(&[("FLAP_COUNT", "4"), ("FLAP_WINDOW", "1h")]).await;
    flap(&server, "loose", 3).await;
    assert_eq!(episodes(&log(&server).await).len(), 0, "three are none");
    flap(&server, "loose", 5).await;
    flap(&server, "calm", 3).await;
    let log = log(&server).await;
    let told = episodes(&log);
    assert_eq!(told.len(), 1, "{told:#?}");
    let (event, data) = (told[0], &told[0]["data"]);
    assert_eq!((&event["subject"], &event["source"]), (&json!("loose"), &json!("/lastpong/node-1")));
    assert_eq!(
        (&data["device_id"], &data["starts"], &data["window_ms"]),
        (&json!("loose"), &json!(4), &json!(3_600_000))
    );
    assert_eq!(data["ban_ms"], 0);
    assert!(data["span_ms"].as_i64().is_some_and(|ms| (0..3_600_000).contains(&ms)), "{data}");
    let started = log.of_device("loose").filter(|e| e["type"] == "lastpong.session.connected.v1").nth(3);
    assert_eq!(data["session_id"], started.expect("a fourth start")["data"]["session_id"]);
    in_order(&log, "loose");
    assert_eq!(server.metric("lastpong_flapping_total").await, Some(1.0));
}

#[tokio::test]
async fn a_device_that_pauses_and_begins_again_is_told_of_again() {
    let server = Server::start(&[("FLAP_COUNT", "3"), ("FLAP_WINDOW", "1s")]).await;
    // Where the machine is busy three sessions may take longer than the window.
    eventually("an episode", async || {
        flap(&server, "loose", 3).await;
        (!episodes(&log(&server).await).is_empty()).then_some(())
    })
    .await;
    let before = episodes(&log(&server).await).len();
    eventually("another", async || {
        tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
        flap(&server, "loose", 3).await;
        (episodes(&log(&server).await).len() > before).then_some(())
    })
    .await;
    in_order(&log(&server).await, "loose");
}

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let settings = [("FLAP_COUNT", "4"), ("FLAP_WINDOW", "1h")];
    let mut server = Server::start(&settings).await;
    flap(&server, "loose", 3).await;
    server.kill().await;
    let server = server.restart().await;
    flap(&server, "loose", 1).await;
    assert_eq!(episodes(&log(&server).await).len(), 1);
}

#[tokio::test]
async fn over_many_nodes_an_episode_is_told_once() {
    let cluster = Cluster::start(2, &[("FLAP_COUNT", "6"), ("FLAP_WINDOW", "1h")]).await;
    // Also such as take over from each other.
    for n in 0..12 {
        let server = &cluster.nodes[n % 2];
        let mut device = Device::connect(server, "loose").await;
        if n % 3 == 0 {
            std::mem::forget(device);
        } else {
            device.close(Some(1000)).await;
        }
    }
    let log = log(&cluster.nodes[0]).await;
    let told = episodes(&log);
    assert_eq!(told.len(), 1, "{told:#?}");
    in_order(&log, "loose");
}

#[tokio::test]
async fn a_flapping_device_is_banned_where_the_settings_say_so() {
    let settings = [("FLAP_COUNT", "3"), ("FLAP_WINDOW", "1h"), ("FLAP_BAN", "1h")];
    let server = Server::start(&settings).await;
    flap(&server, "loose", 2).await;
    let mut third = Device::connect(&server, "loose").await;
    assert_eq!(third.closed().await, Seen::Close(Some(4503)));
    let refused = Ask::with_token(&token("loose")).refused(server.addr).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    let bans = paged(&server, "/v1/bans", 10).await;
    assert_eq!(bans.len(), 1, "{bans:#?}");
    let ban = &bans[0];
    assert_eq!((&ban["device_id"], &ban["by"]), (&json!("loose"), &json!("flapping policy")), "{ban}");
    let time = |name: &str| ban[name].as_str().expect("a time").parse::<jiff::Timestamp>().expect("RFC 3339");
    assert_eq!(time("until").duration_since(time("at")).as_secs(), 3_600, "{ban}");
    let log = log(&server).await;
    assert_eq!(episodes(&log)[0]["data"]["ban_ms"], 3_600_000);
    in_order(&log, "loose");
}
