//! The stream in Redis: what public clients read there is what the log says, in its order, whichever node relays.

use crate::support::events::{Events, NODE_LOST};
use crate::support::python::Script;
use crate::support::size::{lanes, sessions};
use crate::support::{Churn, Cluster, Device, Fleet, Server, Sse, Stores, eventually, heavy, ledger, live};

const SUBSCRIBER: &str = include_str!("python/subscriber.py");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_group_and_server_sent_events_tell_the_same() {
    let _turn = heavy().await;
    let cluster = Cluster::start(2, &[("UPDATE_INTERVAL", "1s")]).await;
    let count = 4 * sessions();
    let number = count.to_string();
    let url = cluster.stores.redis.url();
    let mut group = Script::start("redis", SUBSCRIBER, &[&url, "group", &number]).await;
    let mut channel = Script::start("redis", SUBSCRIBER, &[&url, "channel", &number]).await;
    group.next("ready").await;
    channel.next("ready").await;
    let mut streams = Vec::new();
    for node in &cluster.nodes {
        streams.push(Sse::open(node, "after=0", None).await);
    }

    let churn = Churn::start(&cluster.addrs(), "restless", lanes()).await;
    let (mut from_sse, mut from_group, mut from_channel) = ([Vec::new(), Vec::new()], Vec::new(), Vec::new());
    for _ in 0..count {
        for (stream, told) in streams.iter_mut().zip(&mut from_sse) {
            let sent = stream.expect().await;
            let id = sent.json()["id"].clone();
            told.push(serde_json::json!({"entry": format!("{}-0", sent.id), "id": id, "type": sent.event}));
        }
        from_group.push(group.next("event").await);
        from_channel.push(channel.next("event").await);
    }
    assert_eq!(group.next("pending").await, 0, "all is acknowledged");
    let visits = churn.stop().await;
    let mut log = Events::new();
    log.until_ended(&cluster.nodes[0], visits.iter().map(|visit| visit.welcomed.session_id.clone())).await;
    let of_log = |event: &serde_json::Value| {
        serde_json::json!({
            "entry": format!("{}-0", event["data"]["seq"]), "id": event["id"], "type": event["type"]
        })
    };
    let expected: Vec<_> = log.all.iter().take(count).map(of_log).collect();
    for (who, told) in [
        ("SSE", &from_sse[0]),
        ("SSE of the other node", &from_sse[1]),
        ("group", &from_group),
        ("channel", &from_channel),
    ] {
        let wrong = told.iter().zip(&expected).position(|(told, expected)| told != expected);
        assert_eq!((wrong, told.len()), (None, expected.len()), "{who} is not the log");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_node_dies_the_stream_goes_on_without_a_gap() {
    let _turn = heavy().await;
    let mut cluster = Cluster::start(3, &[("UPDATE_INTERVAL", "1s")]).await;
    let mut told = Vec::new();
    // All but one: the one that relays is among the dead, whichever it is, unless it is the last.
    for round in 1..=2 {
        let churn = Churn::start(&cluster.addrs(), "restless", lanes()).await;
        let mut dying = cluster.nodes.remove(0);
        dying.kill().await;
        churn.go_to(&cluster.addrs());
        churn.more_numbered(5 * lanes()).await;
        told.extend(churn.stop().await.into_iter().map(|visit| visit.welcomed));
        let mut log = cluster.log(0).await;
        log.until_ended(&cluster.nodes[0], told.iter().map(|told| told.session_id.clone())).await;
        // The node's loss is told even where it held nobody any more; what it let in last was not welcomed.
        eventually("the node's loss to be told", async || {
            log.pull(&cluster.nodes[0]).await;
            (log.of_kind(NODE_LOST).count() == round).then_some(())
        })
        .await;
        ledger::all_rest(&cluster.nodes[0], &mut log).await;
        live::stream_is(&cluster.stores.redis, &log.all).await;
        ledger::check(&log.all, &told);
    }
    live::settles_to(&cluster.stores.redis, []).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_state_is_that_of_all_nodes() {
    let cluster = Cluster::start(2, &[("UPDATE_INTERVAL", "1s")]).await;
    let mut fleets = [
        Fleet::hold(&cluster.nodes[0], "first", sessions()).await,
        Fleet::hold(&cluster.nodes[1], "second", sessions()).await,
    ];
    let of = |fleets: &[Fleet]| {
        let all = fleets.iter().flat_map(Fleet::welcomed);
        all.map(|told| (told.session_id, told.device_id)).collect::<Vec<_>>()
    };
    live::settles_to(&cluster.stores.redis, of(&fleets)).await;
    fleets[0].leave().await;
    live::settles_to(&cluster.stores.redis, of(&fleets[1..])).await;
    // A device that moves to the other node is there with its new session alone.
    let moved = Device::connect(&cluster.nodes[0], "second-0").await;
    let mut expected = of(&fleets[1..]);
    expected.retain(|(_, device)| device != "second-0");
    expected.push((moved.session_id(), "second-0".to_owned()));
    live::settles_to(&cluster.stores.redis, expected).await;
}

#[tokio::test]
async fn the_stream_is_cut_at_its_old_end() {
    let stores = Stores::start().await;
    let server = Server::start_on(&stores, &[("STREAM_MAXLEN", "200")]).await;
    let churn = Churn::start(&[server.addr], "restless", lanes()).await;
    churn.more_numbered(500).await;
    let visits = churn.stop().await;
    let mut log = Events::new();
    log.until_ended(&server, visits.iter().map(|visit| visit.welcomed.session_id.clone())).await;
    let newest = format!("{}-0", log.all.last().expect("an event")["data"]["seq"]);
    let entries = eventually("the newest event in the stream", async || {
        let entries = live::stream(&stores.redis);
        (entries.last()?.id == newest).then_some(entries)
    })
    .await;
    // Redis cuts whole nodes of its tree, of 100 entries by default.
    assert!((200..=400).contains(&entries.len()), "{} entries of {}", entries.len(), log.all.len());
    let kept = &log.all[log.all.len() - entries.len()..];
    assert!(
        entries.iter().zip(kept).all(|(entry, event)| entry.event == *event),
        "what is kept is not the newest"
    );
}
