//! The whole installation, looked at from one of its nodes.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::proxy::Weather;
use crate::support::{Cluster, Device, Events, Fleet, Server, eventually, token, within};

const BRISK: [(&str, &str); 3] =
    [("PING_INTERVAL", "1s"), ("PONG_TIMEOUT", "10s"), ("UPDATE_INTERVAL", "500ms")];

/// What a node lists, once `ready` holds of it.
async fn listed(server: &Server, query: &str, ready: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("connections with {query:?}"), async || {
        let list = server.json(&format!("/debug/connections?{query}")).await;
        ready(&list).then_some(list)
    })
    .await
}

fn part<'a>(list: &'a Value, node: &str) -> &'a Value {
    let parts = list["nodes"].as_array().unwrap_or_else(|| panic!("no nodes: {list}"));
    parts.iter().find(|part| part["node_id"] == node).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_lists_them_all() {
    let mut cluster = Cluster::start_cuttable(3, &BRISK).await;
    let fleets = [
        Fleet::hold(&cluster.nodes[0], "a", 20).await,
        Fleet::hold(&cluster.nodes[1], "b", 30).await,
        Fleet::hold(&cluster.nodes[2], "c", 7).await,
    ];
    let list =
        listed(&cluster.nodes[0], "limit=1", |list| list["total"] == 57 && list["complete"] == true).await;
    for (node, source, sessions) in
        [("node-1", "own", 20), ("node-2", "live_state", 30), ("node-3", "live_state", 7)]
    {
        let part = part(&list, node);
        assert_eq!(
            (&part["source"], &part["sessions"], &part["state"]),
            (&json!(source), &json!(sessions), &json!("live"))
        );
        assert!(part["as_of"].is_string() && part["age_ms"].is_number(), "{part}");
    }
    // What its node knows of a session is known here: that it answers, and how fast.
    listed(&cluster.nodes[0], "node=node-2&limit=1000", |list| {
        let all = list["items"].as_array().unwrap();
        all.len() == 30
            && all
                .iter()
                .all(|item| item["rtt_ms"]["last"].is_number() && item["pongs_received"].as_u64() > Some(0))
    })
    .await;
    for (query, total) in
        [("node=node-1", 20), ("node=node-3&device_id=c-*", 7), ("node=node-9", 0), ("device_id=b-1*", 11)]
    {
        listed(&cluster.nodes[2], query, |list| list["total"] == total).await;
    }

    // Page by page, in order, over all nodes: each once, whoever comes and goes meanwhile.
    for sort in ["device_id", "-connected_at", "rtt", "-node", "idle"] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let list =
                cluster.nodes[1].json(&format!("/debug/connections?sort={sort}&limit=10{cursor}")).await;
            seen.extend(
                list["items"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|item| item["session_id"].as_str().unwrap().to_owned()),
            );
            let Some(next) = list["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let held: BTreeSet<String> =
            fleets.iter().flat_map(|fleet| fleet.welcomed()).map(|told| told.session_id).collect();
        let seen_once: BTreeSet<String> = seen.iter().cloned().collect();
        if ["device_id", "-connected_at", "-node"].contains(&sort) {
            assert_eq!(seen.len(), 57, "{sort}: one came twice, or none");
        }
        assert_eq!(seen_once.intersection(&held).count(), seen_once.len(), "{sort}");
        // What moves while it is read may be met twice or never; most of it does not.
        assert!(seen_once.len() > held.len() / 2, "{sort}: {} of {}", seen_once.len(), held.len());
    }

    // One session of another node.
    let told = &fleets[1].welcomed()[0];
    let whole = cluster.nodes[0].json(&format!("/debug/connections/{}", told.session_id)).await;
    assert_eq!((&whole["node_id"], &whole["state"]), (&json!("node-2"), &json!("live")));
    assert!(
        whole["rtt_ms"]["last"].is_number() && whole["events"].as_array().is_some_and(|e| e.len() == 1),
        "{whole}"
    );

    // Without Redis they are read on the record, which says less, and says so.
    cluster.to_redis(0, Weather::Cut);
    let list =
        listed(&cluster.nodes[0], "limit=1000", |list| part(list, "node-2")["source"] == "record").await;
    assert_eq!((&list["total"], &list["complete"]), (&json!(57), &json!(true)), "{list}");
    let other = list["items"].as_array().unwrap().iter().find(|item| item["node_id"] == "node-2").unwrap();
    assert_eq!((&other["pings_sent"], &other["rtt_ms"]["last"]), (&Value::Null, &Value::Null));
    assert_eq!(part(&list, "node-1")["source"], "own");
    cluster.to_redis(0, Weather::Fair);

    cluster.nodes[2].kill().await;
    listed(&cluster.nodes[0], "limit=1", |list| list["total"] == 50 && part(list, "node-3").is_null()).await;

    // Without the record only this node's are sure.
    cluster.to_postgres(0, Weather::Cut);
    let list = listed(&cluster.nodes[0], "limit=1", |list| list["complete"] == false).await;
    assert_eq!(part(&list, "node-1")["source"], "own");
}

#[tokio::test]
async fn a_session_is_looked_at_closely() {
    let server = Server::start(&[("PING_INTERVAL", "200ms"), ("PONG_TIMEOUT", "5s")]).await;
    let mut device = Device::connect(&server, "close").await;
    device.answer_pings(2).await;
    let path = format!("/debug/connections/{}", device.session_id());
    // The last of what was before the first look is known.
    eventually("a round trip", async || {
        let query = "/debug/connections?min_rtt_ms=0";
        (server.json(query).await["total"] == 1).then_some(())
    })
    .await;
    let first = server.json(&path).await;
    assert!(first["heartbeats"]["noted_since"].is_string(), "{first}");
    let last = &first["heartbeats"]["items"][0];
    assert_eq!(
        (&last["outcome"], &last["rtt_ms"]),
        (&json!("answered"), &first["rtt_ms"]["last"]),
        "{first}"
    );
    let socket = &first["socket"];
    assert!(socket["rtt_ms"].as_f64() > Some(0.0) && socket["segment_bytes"].as_u64() > Some(0), "{socket}");
    assert_eq!(socket["output_waiting_bytes"], 0);
    let seen = eventually("answers that are noted", async || {
        device.answer_pings(1).await;
        let seen = server.json(&path).await;
        let answered = |beat: &&Value| beat["outcome"] == "answered" && beat["rtt_ms"].is_number();
        (seen["heartbeats"]["items"].as_array().unwrap().iter().filter(answered).count() >= 3).then_some(seen)
    })
    .await;
    assert_eq!(seen["heartbeats"]["noted_since"], first["heartbeats"]["noted_since"]);
    let at = |n: usize| seen["heartbeats"]["items"][n]["at"].as_str().unwrap().to_owned();
    assert!(at(0) < at(1) && at(1) < at(2), "{seen}");

    // They outlive it: that is when they are asked for.
    device.close(Some(1000)).await;
    Events::new().only_end(&server, &device.session_id()).await;
    let ended = server.json(&path).await;
    assert_eq!(ended["state"], "closed");
    assert_eq!(ended["heartbeats"]["noted_since"], first["heartbeats"]["noted_since"], "{ended}");
    assert!(ended["heartbeats"]["items"].as_array().unwrap().len() >= 3, "{ended}");
}

#[tokio::test]
async fn sessions_are_told_of_by_their_ids() {
    let server = Server::start(&[]).await;
    let (mut ended, held) = (Device::connect(&server, "ended").await, Device::connect(&server, "held").await);
    ended.close(Some(1000)).await;
    Events::new().only_end(&server, &ended.session_id()).await;
    let nobody = "0197f000-0000-7000-8000-000000000000";
    let ids = format!("{},{nobody},{}", ended.session_id(), held.session_id());
    let mut found = server.json(&format!("/v1/sessions?ids={ids}")).await;
    let items = found["items"].as_array_mut().unwrap();
    items.sort_by_key(|item| item["device_id"].to_string());
    let told: Vec<_> =
        items.iter().map(|item| (&item["device_id"], &item["state"], &item["reason"])).collect();
    let expected = [
        (&json!("ended"), &json!("closed"), &json!("client_closed")),
        (&json!("held"), &json!("active"), &Value::Null),
    ];
    assert_eq!(told, expected);
    let many = vec![nobody; 101].join(",");
    assert_eq!(server.json("/v1/sessions").await["items"], json!([]));
    for bad in ["?ids=", "?ids=a", &format!("?ids={many}"), &format!("?ids={nobody},")] {
        assert_eq!(server.status(&format!("/v1/sessions{bad}")).await.0, 400, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_live_state_lost_is_not_said_to_be_all() {
    // Nobody repairs it meanwhile: the node that would is stopped, and not yet missed.
    let settings = [("UPDATE_INTERVAL", "500ms"), ("NODE_LEASE", "60s")];
    let cluster = Cluster::start_cuttable(2, &settings).await;
    let fleet = Fleet::hold(&cluster.nodes[1], "b", 5).await;
    let whole = |list: &Value| list["total"] == 5 && part(list, "node-2")["complete"] == true;
    listed(&cluster.nodes[0], "limit=10", whole).await;
    let redis = &cluster.stores.redis;
    // The node has said that they are five.
    eventually("its mark", async || {
        let mark = redis.command(&["GET", "lastpong:node:node-2"]);
        mark.text().contains(r#""sessions":5"#).then_some(())
    })
    .await;
    cluster.nodes[1].signal(Signal::STOP);
    let lost = format!("lastpong:session:{}", fleet.welcomed()[0].session_id);
    let mut session: Value = serde_json::from_str(redis.command(&["GET", &lost]).text()).unwrap();
    // What an earlier run of the node left there has ended: it stands in for nobody.
    let ghost = "0197f000-0000-7000-8000-000000000000";
    (session["session_id"], session["incarnation"]) = (json!(ghost), json!(ghost));
    redis.command(&["SET", &format!("lastpong:session:{ghost}"), &session.to_string()]);
    redis.command(&["ZADD", "lastpong:active", "1", ghost]);
    redis.command(&["DEL", &lost]);
    let list = listed(&cluster.nodes[0], "limit=10", |list| list["total"] != 5).await;
    assert_eq!(list["total"], 4, "{list}");
    assert_eq!(
        (&part(&list, "node-2")["complete"], &list["complete"]),
        (&json!(false), &json!(false)),
        "{list}"
    );
    cluster.nodes[1].signal(Signal::CONT);
    listed(&cluster.nodes[0], "limit=10", whole).await;
}

#[tokio::test]
async fn a_ping_that_is_not_answered_is_noted_as_missed() {
    let settings = [("PING_INTERVAL", "200ms"), ("PONG_TIMEOUT", "300ms"), ("MAX_MISSED_PONGS", "100")];
    let server = Server::start(&settings).await;
    let device = Device::connect(&server, "mute").await;
    let path = format!("/debug/connections/{}", device.session_id());
    eventually("missed pings", async || {
        let seen = server.json(&path).await;
        let beats = seen["heartbeats"]["items"].as_array().unwrap().clone();
        let missed = beats.iter().filter(|beat| beat["outcome"] == "missed").count();
        (missed >= 2 && beats.last().unwrap()["outcome"] == "waiting" && seen["state"] == "suspect")
            .then_some(())
    })
    .await;
    drop(device);
}

#[tokio::test]
async fn a_device_has_a_history() {
    let server = Server::start(&[]).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut device = Device::connect(&server, "returns").await;
        device.close(Some(1000)).await;
        Events::new().only_end(&server, &device.session_id()).await;
        held.push(device.session_id());
    }
    let mut other = Device::connect(&server, "returns-not").await;
    other.close(Some(1000)).await;
    let now = Device::at(&server, "/ws", &token("returns")).await;
    held.push(now.session_id());
    held.reverse();
    for limit in [1, 2, 6, 100] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let list = server.json(&format!("/v1/devices/returns/sessions?limit={limit}{cursor}")).await;
            assert_eq!(list["total"], 6, "{list}");
            let items = list["items"].as_array().unwrap();
            assert!(items.len() <= limit, "{list}");
            seen.extend(items.iter().map(|item| item["session_id"].as_str().unwrap().to_owned()));
            let Some(next) = list["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, held, "limit={limit}");
    }
    let list = server.json("/v1/devices/returns/sessions").await;
    assert_eq!(
        (&list["items"][0]["state"], &list["items"][1]["reason"]),
        (&json!("active"), &json!("client_closed"))
    );
    let kicked = server.json("/v1/devices/returns/sessions?reason=kicked").await;
    assert_eq!((&kicked["items"], &kicked["total"]), (&json!([]), &json!(0)));
    assert_eq!(server.json("/v1/devices/nobody/sessions").await["items"], json!([]));
    for (path, status) in [
        ("/v1/devices/a%20b/sessions", 400),
        ("/v1/devices/returns/sessions?limit=0", 400),
        ("/v1/devices/returns/sessions?cursor=00", 400),
        ("/v1/devices/returns/sessions?state=closed", 400),
    ] {
        assert_eq!(server.status(path).await.0, status, "{path}");
    }
}

#[tokio::test]
async fn the_dashboard_is_told_of_each_second_and_of_what_was() {
    const VIEWERS: usize = 64;
    let server = Server::start(&[]).await;
    let _device = Device::connect(&server, "seen").await;
    let view = async || server.get("/debug/live").header("Accept", "text/event-stream").send().await.unwrap();
    let mut viewers = Vec::new();
    for _ in 0..VIEWERS {
        let answer = view().await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        viewers.push(answer);
    }
    let refused = view().await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));

    let mut said = String::new();
    within("a second that tells of the device", async {
        while !(said.contains(r#""recent":[{"seq":1"#) && said.contains(r#""node_id":"node-1""#)) {
            let bytes = viewers[0].chunk().await.unwrap().expect("the stream goes on");
            said.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    })
    .await;
    assert!(said.starts_with("event: history\ndata: {\"node\":\"node-1\",\"points\":["), "{said}");
    let frames: Vec<Value> = said
        .split("\n\n")
        .filter_map(|frame| serde_json::from_str(frame.strip_prefix("event: pulse\ndata: ")?).ok())
        .collect();
    let last = frames.last().expect("a second");
    assert_eq!(last["point"]["s"], json!([0, 1, 0]));
    assert_eq!(last["nodes"][0]["sessions"], 1);
    let times: Vec<i64> = frames.iter().map(|frame| frame["point"]["t"].as_i64().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");

    // Who leaves makes room.
    viewers.pop();
    eventually("room for another", async || (view().await.status() == 200).then_some(())).await;
}
